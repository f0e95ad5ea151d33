"""What the README and the chapters in `examples/` show is run as it stands: blocks in order, in one folder.

    python -m tests.chapters README.md

Comments above a block, which no reader of the page sees, say what it needs:

    <!-- before                      Python that comes first: what the text takes for granted
    from scipy import stats
    -->
    <!-- file: fit.yaml -->          it is kept in a file of that name, which is not run by that
    <!-- needs: torch -->            it is left out where that is not installed
    <!-- run by: tests/test_x.py::test_y -->   it wants what only that test, or program, has

A block of shell that is not run here has `mpiabc` commands that the command line understands, and modules
that are there.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LANGUAGES = {"python", "sh", "yaml", "text", "dockerfile"}
_COMMENT = re.compile(r"<!--\s*(before|file|needs|run by)\s*:?\s(.*?)\s*-->", re.DOTALL)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One block: its language, its text, the line it begins at, and what comments above it say."""

    language: str
    text: str
    line: int
    before: str = ""
    file: str = ""
    needs: str = ""
    elsewhere: str = ""


def pages():
    """The README and the chapters."""
    return [ROOT / "README.md", *sorted((ROOT / "examples").glob("*.md"))]


def blocks(text):
    """The blocks of a page, in their order."""
    found, end = [], 0
    for fence in _FENCED.finditer(text):
        said = dict(_COMMENT.findall(text[end : fence.start()]))
        line = text.count("\n", 0, fence.start()) + 1
        conditions = (said.get(name, "") for name in ("before", "file", "needs", "run by"))
        found.append(Block(fence[1], fence[2], line, *conditions))
        end = fence.end()
    return found


def anchors(text):
    """What a link may point to in a page, by GitHub's rule for headings."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_FENCED.sub("", text)))
    return {words.strip().replace(" ", "-") for words in kept}


def dead_links(page):
    """Links of a page to files or headings that are not there."""
    dead = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)
    return dead


def untested(block):
    """What is wrong with a block that is run elsewhere, or with its language; nothing if all is well."""
    wrong = [] if block.language in LANGUAGES else [f"{block.language!r} is no language of these pages"]
    for place in block.elsewhere.split(","):
        path, _, name = place.strip().partition("::")
        file = ROOT / path
        if path and not (file.is_file() and (not name or f"def {name}(" in file.read_text())):
            wrong.append(f"there is no {place.strip()}")
    if block.elsewhere and block.language == "sh":
        wrong += [line for line in commands(block.text) if not is_understood(line)]
    return wrong


def commands(text):
    """The words of each command of a block of shell: without prompts, comments, redirections, variables."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        for part in re.split(r"&&|\|\||[;|&]", line.partition("#")[0]):
            words = [word for word in shlex.split(part) if "=" not in word.partition("/")[0] or "--" in word]
            if words:
                yield words


def is_understood(words):
    """`mpiabc` knows the command, or Python the module, or it is none of them."""
    from mpiabc.cli.commands import parser

    if "mpiabc" in words:
        words = words[words.index("mpiabc") + 1 :]
        cut = next((i for i, word in enumerate(words) if word.startswith((">", "<"))), len(words))
        try:
            parser().parse_args([re.sub(r"[A-Z]+$", "1", word) for word in words[:cut]])
        except SystemExit as end:
            return not end.code
        return True
    if "-m" in words and words[0].startswith("python"):
        return importlib.util.find_spec(words[words.index("-m") + 1]) is not None
    return True


def run(page):
    """Run a page's blocks in this process and folder; what fails is raised, with the page's line."""
    space = {"__name__": "__main__"}
    sys.argv = [str(page)]
    for block in blocks(page.read_text()):
        if block.before:
            exec(compile(block.before, f"{page.name}, before line {block.line}", "exec"), space)
        if block.file:
            Path(block.file).write_text(block.text)
        if block.elsewhere or (block.needs and importlib.util.find_spec(block.needs) is None):
            continue
        if block.language == "python" and not block.file:
            exec(compile("\n" * block.line + block.text, page.name, "exec"), space)
        elif block.language == "sh":
            shell(block, page)


def shell(block, page):
    """Run a block of shell, as far as its first failure. Raises AssertionError with what it said."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-eu", "-o", "pipefail", "-c", block.text]
    free = {k: v for k, v in os.environ.items() if k != "MPIABC_SCHEDULER"}
    done = subprocess.run(
        command, env=free | {"PATH": path}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise AssertionError(f"{page.name}, line {block.line}:\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    wanted = Path(sys.argv[1]).resolve()
    os.environ.setdefault("MPIABC_SCHEDULER", "serial")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.path.insert(0, folder)
        run(wanted)
