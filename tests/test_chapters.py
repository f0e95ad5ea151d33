"""The README and the chapters in `examples/`: their blocks run, their links lead somewhere."""

import subprocess
import sys

import pytest

from tests import chapters
from tests.conftest import HANGS, environment, present, quick

PAGES = chapters.pages()
IDS = [page.stem for page in PAGES]
NAMED = dict(zip(IDS, PAGES, strict=True))
SHORT = ("what_to_do_when", "dask", "running", "redis", "glossary")


@pytest.mark.parametrize("name", quick(IDS, *SHORT))
def test_blocks_of_a_page_run_as_they_stand(name):
    """In a process of their own, in an empty folder, without MPI but where a command starts it."""
    present("matplotlib", "pandas", "arviz", "yaml", "jinja2")
    command = [sys.executable, "-m", "tests.chapters", NAMED[name]]
    here = environment(MPLBACKEND="agg", PYTHONWARNINGS="ignore")
    done = subprocess.run(
        command, cwd=chapters.ROOT, env=here, capture_output=True, text=True, timeout=2 * HANGS
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_that_are_run_elsewhere_say_where(page):
    assert {block.line: chapters.untested(block) for block in chapters.blocks(page.read_text())} == {
        block.line: [] for block in chapters.blocks(page.read_text())
    }


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_of_a_page_lead_to_files_and_headings(page):
    assert chapters.dead_links(page) == []


def test_every_chapter_is_reached_from_the_readme():
    readme = PAGES[0].read_text()
    assert [page.name for page in PAGES[1:] if f"](examples/{page.name}" not in readme] == []


PAGE = """# A page

<!-- before
x = 1
-->
<!-- file: kept.py -->
```python
y = 2
```

```python
from kept import y
assert x + y == {sum}
```

```sh
test -f kept.py && {command}
```

[one](#a-page) [two](#nowhere) [three](nothing.md) [four](https://example.org)
"""


@pytest.mark.parametrize(
    ("sum", "command", "said"),
    [(3, "true", ""), (4, "true", "page.md, line 13"), (3, "false", "page.md, line 16")],
    ids=["right", "wrong python", "wrong shell"],
)
def test_page_that_is_wrong_is_noticed(sum, command, said, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(sum=sum, command=command))
    done = subprocess.run(
        [sys.executable, "-m", "tests.chapters", page], env=environment(), capture_output=True, text=True
    )
    assert (done.returncode != 0) == bool(said)
    assert said in done.stderr.replace('page.md", line', "page.md, line")
    assert chapters.dead_links(page) == ["#nowhere", "nothing.md"]


@pytest.mark.parametrize(
    ("language", "text", "elsewhere"),
    [
        ("sh", "mpiabc run fit.py --no-such-option", "tests/test_run.py"),
        ("sh", "python -m tests.no_such_module", "tests/test_run.py"),
        ("sh", "true", "tests/test_run.py::test_no_such_name"),
        ("sh", "true", "tests/no_such_file.py"),
        ("cobol", "STOP RUN.", ""),
    ],
    ids=["option", "module", "test", "file", "language"],
)
def test_block_that_nothing_runs_is_noticed(language, text, elsewhere, capsys):
    assert chapters.untested(chapters.Block(language, text, 1, elsewhere=elsewhere))
