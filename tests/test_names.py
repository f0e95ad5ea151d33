"""A scheduler's short name stands in one table, which all that knows or mentions one follows."""

import ast
import re

from mpiabc import schedulers
from mpiabc.cli.settings import SETTINGS
from tests.conftest import ROOT

WRITTEN = re.compile(r"""scheduler=["']([^"'{}]+)["']|--scheduler[ =]([\w:/.-]+)|\| `"([\w:/.-]+)"`""")
FILES = [
    *(path for path in (ROOT / "mpiabc").rglob("*") if path.suffix in (".py", ".sh", ".html", ".md")),
    *(path for path in (ROOT / "examples").rglob("*") if path.suffix in (".py", ".md")),
    ROOT / "README.md",
]


def is_known(name):
    scheme = name.partition("://")[0]
    is_address = "://" in name and scheme in schedulers.SCHEMES
    return name in ("auto", *schedulers.NAMES) or is_address or name.endswith(".json")


def test_names_that_are_written_anywhere_are_those_of_the_table():
    found = {}
    for path in FILES:
        for words in WRITTEN.findall(path.read_text()):
            found.setdefault("".join(words), path.name)
    assert {"serial", "mpi-static", "redis", "dask"} <= found.keys()
    assert not {name: path for name, path in found.items() if not is_known(name)}


def test_the_command_line_has_all_of_them():
    said = re.split(r"[ ,]+", SETTINGS["scheduler"].help)
    assert {*schedulers.NAMES, *(f"{scheme}://..." for scheme in schedulers.SCHEMES)} <= set(said)


def test_a_name_or_an_address_that_is_added_to_the_table_is_understood(monkeypatch):
    serial = schedulers._ALL["Serial"]._replace(short="alone")
    monkeypatch.setitem(schedulers._ALL, "Serial", serial)
    monkeypatch.setitem(schedulers._BY_NAME, "alone", "Serial")
    assert isinstance(schedulers.resolve("alone"), schedulers.Serial)


def test_every_name_means_a_scheduler():
    assert all(hasattr(schedulers.resolve(name), "open") for name in schedulers.NAMES)


def test_types_and_public_names_are_those_of_the_table():
    tree = ast.parse((ROOT / "mpiabc" / "schedulers" / "__init__.py").read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {(part.module.rpartition(".")[2], each.name) for part in checked.body for each in part.names}
    assert typed == {(named.home, name) for name, named in schedulers._ALL.items()}
    assert schedulers._ALL.keys() <= set(schedulers.__all__)
