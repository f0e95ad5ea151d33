"""Fingerprints: what counts as the same code and the same values, and what does not."""

import collections
import ctypes
import dataclasses
import functools
import gc
import importlib
import json
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import threading
import time
import types
import weakref
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc.cli.files import MODULE
from mpiabc.fingerprint import Fingerprint, code_differences, differences, fingerprint, values
from tests.conftest import environment, missing


@pytest.fixture
def of(tmp_path, monkeypatch):
    """The fingerprint of parts, as expressions, of modules that are written, imported and forgotten."""
    count = iter(range(1000))

    def of(files, **parts):
        parts = parts or {"simulate": "model.simulate"}
        with imported(tmp_path / str(next(count)), monkeypatch, files) as modules:
            return fingerprint(**{name: eval(part, modules) for name, part in parts.items()})

    return of


class imported:  # noqa: N801
    """Modules of a folder of their own, for as long as one is inside; `lazy_...` are only written."""

    def __init__(self, folder, monkeypatch, files):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.files = files

    def __enter__(self):
        self.known = set(sys.modules)
        for name, text in self.files.items():
            path = self.folder / f"{name.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.context = self.monkeypatch.context()
        self.context.__enter__().syspath_prepend(str(self.folder))
        eager = [name for name in self.files if "lazy" not in name and "." not in name]
        return {name: importlib.import_module(name) for name in eager}

    def __exit__(self, *error):
        self.context.__exit__(*error)
        for name in set(sys.modules) - self.known:
            if name.partition(".")[0] in {file.partition(".")[0] for file in self.files}:
                del sys.modules[name]


def dedented(**files):
    return {name: textwrap.dedent(text) for name, text in files.items()}


MODEL = dedented(
    model="""
        import helper
        from helper import Base
        K = 3
        TABLE = {"a": 1.0}
        generations = 8

        def simulate(theta, rng):
            return helper.step(theta["a"]) + K + TABLE["a"] + Model().run()

        class Model(Base):
            scale = 2.0
            def run(self):
                return self.scale * self.size
            class Inner:
                def twice(self, x):
                    return 2 * x
            @property
            def size(self):
                return 5
            @staticmethod
            def fixed():
                return 6
            @classmethod
            def made(cls):
                return cls()

        def plot(history):
            return history
        """,
    helper="""
        UNIT = 10
        def step(x, dt=0.1):
            def inner(y):
                return y + 1
            return inner(x) * UNIT if x in {1, 2} else dt
        class Base:
            def name(self):
                return "base"
        """,
)


def changed(file, old, new, files=MODEL):
    assert old in files[file]
    return files | {file: files[file].replace(old, new, 1)}


# --- code ---


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("model", '["a"] + Model', '["a"] - Model', ["function model.simulate"]),
        ("model", "Model().run", "Model().size", ["function model.simulate"]),
        ("model", "simulate(theta, rng)", "simulate(theta, rng=None)", []),
        ("model", "rng", "generator", ["function model.simulate"]),
        ("model", "K = 3", "K = 4", ["global model.K: 3 there, 4 here"]),
        ("model", "K = 3", "K = 3.0", ["global model.K: 3 there, 3.0 here"]),
        ("model", "1.0", "2.0", ["global model.TABLE: {'a': 1.0} there, {'a': 2.0} here"]),
        ("model", "scale = 2", "scale = 3", ["global model.Model.scale: 2.0 there, 3.0 here"]),
        ("model", "self.scale *", "self.scale /", ["function model.Model.run"]),
        ("model", "2 * x", "3 * x", ["function model.Model.Inner.twice"]),
        ("model", "return 5", "return 7", ["function model.Model.size"]),
        ("model", "return 6", "return 7", ["function model.Model.fixed"]),
        ("model", "return cls()", "return cls", ["function model.Model.made"]),
        ("model", "def run", "def name(self):\n        return 1\n    def run", ["class model.Model"]),
        ("model", "Model(Base)", "Model", ["class model.Model"]),
        ("model", "def run", "unit = 3\n    def run", ["class model.Model"]),
        ("model", "@staticmethod", "@property", ["class model.Model"]),
        ("helper", "y + 1", "y + 2", ["function helper.step"]),
        ("helper", "{1, 2}", "{1, 3}", ["function helper.step"]),
        ("helper", "UNIT = 10", "UNIT = -10", ["global helper.UNIT: 10 there, -10 here"]),
        ("helper", "dt=0.1", "dt=0.2", ["default helper.step(dt): 0.1 there, 0.2 here"]),
        ("helper", '"base"', '"other"', ["function helper.Base.name"]),
    ],
)
def test_a_change_of_what_is_reached_is_named(of, file, old, new, named):
    there, here = of(MODEL), of(changed(file, old, new))
    assert code_differences(there, here) == named
    assert set(named) <= set(differences(there, here))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("model", "return history", "import matplotlib\n    return history[0]"),
        ("model", "generations = 8", "generations = 9"),
        ("model", "K = 3", "\n\n# three\nK = 3  # still"),
        ("model", "def simulate(theta, rng):", 'def simulate(theta, rng):\n    "Simulate."'),
        ("model", "class Inner:", 'class Inner:\n        "Inner."'),
        ("model", "simulate(theta, rng)", "simulate(theta: dict, rng: object) -> float"),
        ("helper", "def inner(y):", 'def inner(y):\n        "Inner."'),
        ("helper", "{1, 2}", "{2, 1}"),
    ],
)
def test_what_is_not_reached_and_what_does_nothing_changes_nothing(of, file, old, new):
    there, here = of(MODEL), of(changed(file, old, new))
    assert there == here
    assert differences(there, here) == []


@pytest.mark.parametrize("before", ["", '"One."', '"Another, longer."', '"doc"'])
@pytest.mark.parametrize("after", ["", '"doc"', '"""Line. Line."""'])
def test_docstrings_change_nothing_though_constants_move(of, before, after):
    lines = """
        def simulate(theta, rng):
            DOC
            class Local:
                DOC
                def f(self):
                    DOC
                    return "doc", 1.0, None
            return Local().f()
        """
    texts = [lines.replace("DOC", doc) if doc else lines.replace("DOC\n", "\n") for doc in (before, after)]
    there, here = (of({"model": textwrap.dedent(text)}) for text in texts)
    assert there == here


def test_local_names_change_nothing(of):
    text = "def simulate(theta, rng):\n    for {0} in theta: {1} = {0} + 1\n    return {1}\n"
    assert of({"model": text.format("a", "b")}) == of({"model": text.format("key", "total")})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.0", "-0.0"),
        ("1", "True"),
        ("1", "1.0"),
        ("'a'", "b'a'"),
        ("(1, 2)", "(1, (2,))"),
        ("x in {1, 2}", "x in {1, 2, 3}"),
        ("x in (1, 2)", "x in {1, 2}"),
        ("1e308 * 10", "-1e308 * 10"),
        ("x.real", "x.imag"),
        ("f(a=x)", "f(b=x)"),
        ("lambda y: y", "lambda y, *z: y"),
        ("[y for y in x]", "[y for y in x if y]"),
        ("(yield x)", "x"),
    ],
)
def test_constants_and_names_differ_as_python_sees_them(of, one, other):
    text = "def simulate(x, rng, f=int):\n    return {}\n"
    there, here = (of({"model": text.format(expression)}) for expression in (one, other))
    assert code_differences(there, here) == ["function model.simulate"]
    assert of({"model": text.format(one)}) == there


def test_an_exception_handler_is_code(of):
    text = (
        "def simulate(x, rng):\n    try:\n        {}\n        {}\n    except ValueError:\n        return 1\n"
    )
    outside = (
        "def simulate(x, rng):\n    f()\n    try:\n        g()\n    except ValueError:\n        return 1\n"
    )
    assert code_differences(of({"model": text.format("f()", "g()")}), of({"model": outside})) != []


@pytest.mark.parametrize(
    ("text", "old", "new", "named"),
    [
        ("simulate = lambda x, rng: x + 1", "1", "2", ["function model.<lambda>"]),
        (
            "from functools import partial\ndef f(k, x, rng): return x\nsimulate = partial(f, 3)",
            "return x",
            "return k",
            ["function model.f"],
        ),
        (
            "import functools\n@functools.lru_cache\ndef simulate(x, rng): return x + 1",
            "1",
            "2",
            ["function model.simulate"],
        ),
        (
            "class M:\n    def __call__(self, x, rng): return 1\nsimulate = M()",
            "1",
            "2",
            ["function model.M.__call__"],
        ),
        (
            "class M:\n    def run(self, x, rng): return 1\nsimulate = M().run",
            "1",
            "2",
            ["function model.M.run"],
        ),
        (
            "def make():\n    def inner(x, rng): return 1\n    return inner\nsimulate = make()",
            "1",
            "2",
            ["function model.make.inner"],
        ),
        (
            "def f(x): return 1\ndef g(x): return 2\nstep = f\ndef simulate(x, rng): return step(x)",
            "step = f",
            "step = g",
            ["global model.step: function f there, function g here"],
        ),
        (
            "STEPS = {'a': lambda x: 1}\ndef simulate(x, rng): return STEPS['a'](x)",
            "x: 1",
            "x: 2",
            ["function model.<lambda>"],
        ),
        (
            "import math as m\ndef simulate(x, rng): return m.sqrt(x)",
            "math",
            "cmath",
            ["global model.m: module math there, module cmath here"],
        ),
        (
            "from numpy import sin as f\ndef simulate(x, rng): return f(x)",
            "sin",
            "cos",
            ["global model.f: ufunc sin there, ufunc cos here"],
        ),
        (
            "import enum\nclass C(enum.Enum):\n    RED = 1\ndef simulate(x, rng): return C.RED",
            "1",
            "2",
            ["global model.C.RED: 1 there, 2 here"],
        ),
        (
            "import dataclasses\n@dataclasses.dataclass\nclass C:\n    a: int\nc = C(1)\n"
            "def simulate(x, rng): return c.a",
            "C(1)",
            "C(2)",
            ["global model.c: C(a=1) there, C(a=2) here"],
        ),
        (
            "import functools\ndef times(n):\n    def deco(f):\n        @functools.wraps(f)\n"
            "        def wrapper(*a): return [f(*a) for _ in range(n)]\n        return wrapper\n"
            "    return deco\n@times(3)\ndef simulate(x, rng): return x",
            "times(3)",
            "times(4)",
            ["closure model.times.deco.wrapper(n): 3 there, 4 here"],
        ),
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def wrapper(*a): return f(*a)\n"
            "    return wrapper\n@deco\ndef simulate(x, rng): return x + 1",
            "x + 1",
            "x + 2",
            ["function model.simulate"],
        ),
        (
            "import functools\n@functools.singledispatch\ndef step(x): return 1\n"
            "@step.register\ndef _(x: str): return 5\ndef simulate(x, rng): return step(x)",
            "return 1",
            "return 2",
            ["function model.step"],
        ),
    ],
)
def test_code_is_reached_however_it_is_wrapped(of, text, old, new, named):
    there, here = of({"model": text}), of(changed("model", old, new, {"model": text}))
    assert code_differences(there, here) == named


def test_a_function_of_a_numba_dispatcher_is_reached(of):
    text = dedented(
        model="""
            import sys
            sys.path.insert(0, __file__.replace("model.py", "site-packages"))
            import jit
            K = 1
            @jit.Dispatcher
            def step(x):
                return x + K
            def simulate(x, rng):
                return step(x)
            """,
    ) | dedented(
        **{
            "site-packages.jit": """
            class Dispatcher:
                def __init__(self, f):
                    self.py_func = f
                    self.targetoptions = {"fastmath": True, "lock": object()}
                    self.address = id(self)
            """,
        }
    )
    files = [text, text, changed("model", "x + K", "x - K", text)]
    files.append(changed("site-packages.jit", "True", "False", text))
    found = []
    for one in files:
        found.append(of(one))
        del sys.modules["jit"]
    there, again, here, slow = found
    assert there == again
    assert "global model.K" in there.code
    assert code_differences(there, here) == ["function model.step"]
    assert "fastmath=True" in there.code["global model.step"]
    assert len(code_differences(there, slow)) == 1


def test_installed_code_is_not_walked(of):
    text = (
        "import json, numpy as np, mpiabc\ndef simulate(x, rng): return json.dumps(np.mean(mpiabc.PNorm(x)))"
    )
    assert {name for name in of({"model": text}).code if name.startswith("function ")} == {
        "function model.simulate"
    }


@pytest.mark.parametrize("place", ["site-packages", "dist-packages"])
def test_code_is_installed_by_its_place_and_a_link_out_of_it_is_editable(tmp_path, place):
    from mpiabc.fingerprint.places import is_installed

    source, installed = tmp_path / "source" / "model", tmp_path / "lib" / place
    source.mkdir(parents=True)
    installed.mkdir(parents=True)
    (installed / "linked").symlink_to(source)
    assert is_installed(str(installed / "other" / "a.py"))
    assert not is_installed(str(installed / "linked" / "a.py"))
    assert not is_installed(str(source / "a.py"))
    assert is_installed(os.__file__)
    assert is_installed(mpiabc.__file__)


# --- state ---


@pytest.mark.parametrize(
    ("before", "touch"),
    [
        ("n = 0", "global n\n    n += 1"),
        ("model = None", "global model\n    model = model or 7"),
        ("CACHE = {}", "CACHE[x] = 1"),
        ("CACHE = {}", "CACHE[x] += 1"),
        ("CACHE = {}", "CACHE[str(x), (x, 1)] = [str(y) for y in range(x)]"),
        ("CACHE = {}", "CACHE[max(x, x)] = y = max(x, 1)"),
        ("CACHE = {}", "CACHE.setdefault(x, 1)"),
        ("CACHE = {}", "del CACHE[x]"),
        ("SEEN = []", "SEEN.append(x)"),
        ("import numpy as np\nBUFFER = np.zeros(3)", "BUFFER[:] = 1"),
        ("import helper", "helper.n = 5"),
        ("import helper", "helper.CACHE[x] = 5"),
        ("class C:\n    calls = 0", "C.calls += 1"),
        ("class C:\n    seen = []", "C.seen.append(1)"),
        ("class C:\n    seen = {}", "C.seen[max(x, x)] = str(x).strip()"),
        ("class C:\n    pass", "C.late = 1"),
    ],
)
def test_what_the_code_itself_assigns_or_fills_is_state(tmp_path, monkeypatch, before, touch):
    text = f"{before}\ndef simulate(x, rng):\n    {touch}\n"
    files = {"model": text, "helper": "n = 0\nCACHE = {}\n"}
    with imported(tmp_path / "m", monkeypatch, files) as modules:
        simulate = modules["model"].simulate
        there = fingerprint(simulate=simulate)
        try:
            simulate(1, None)
        except KeyError:
            modules["model"].CACHE[5] = 5
        assert differences(there, fingerprint(simulate=simulate)) == []


@pytest.mark.parametrize(
    "counts",
    [
        "cls.n += 1",
        "cls.n = 3",
        "cls.seen.append(1)",
        "self = cls(); self.seen[:] = [1]",
        "cls().seen.append(1)",
    ],
)
def test_counters_of_classes_are_values_and_workers_do_not_compare_them(tmp_path, monkeypatch, counts):
    text = "class C:\n    n = 0\n    @classmethod\n    def f(cls): {}\ndef simulate(x, rng): C.f()\n"
    with imported(tmp_path / "m", monkeypatch, {"model": text.format(counts)}) as modules:
        model = modules["model"]
        model.C.seen = []
        there = fingerprint(simulate=model.simulate)
        model.simulate(1, None)
        here = fingerprint(simulate=model.simulate)
    assert code_differences(there, here) == []
    assert len(differences(there, here)) == 1


def test_numpy_add_is_no_list_that_gets_an_item(of):
    text = "import numpy as np\ndef simulate(x, rng): return np.add(x, 1)\n"
    assert of({"model": text}).code["global model.np"] == "module numpy"


def test_what_is_only_read_beside_a_store_is_no_state(of):
    text = (
        "PARAMS = {'a': 1}\ndef simulate(x, rng):\n    out = {}\n    out['y'] = PARAMS['a']\n    return out"
    )
    assert code_differences(of({"model": text}), of(changed("model", "1}", "2}", {"model": text}))) == [
        "global model.PARAMS: {'a': 1} there, {'a': 2} here"
    ]


# --- the same code in other processes ---

TRAVELLER = """
import abc, collections, dataclasses, enum, functools, typing
import helper
LEVELS = {"a", "b", "c", "d", "e"}
class Color(enum.Enum):
    RED = 1
    BLUE = "b"
    def pretty(self): return self.name
class Flag(enum.IntFlag):
    A = 1
@dataclasses.dataclass
class Settings:
    a: int = 1
    b: list = dataclasses.field(default_factory=list)
@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Frozen:
    x: float = 1.0
class Pair(typing.NamedTuple):
    p: int = 2
    def total(self): return self.p
Point = collections.namedtuple("Point", "x y", defaults=[3])
class Abstract(abc.ABC):
    @abc.abstractmethod
    def go(self): ...
def times(n):
    def decorate(f):
        @functools.wraps(f)
        def wrapper(*a):
            wrapper.calls += 1
            return [f(*a) for _ in range(n)]
        wrapper.calls = 0
        return wrapper
    return decorate
K, SETTINGS, STEPS = 3.5, Settings(a=4), {"f": lambda x: x, "g": abs}
class Model(helper.Base, Abstract):
    size = {1, 2}
    lookup = {"a": Color.RED, Color.BLUE: Frozen(2.0)}
    def __init__(self, k):
        self.k, self.names, self.me = k, {"x", "y", "zz"}, self
    @times(2)
    def go(self): return super().name(), Flag.A
    go_on = functools.partialmethod(go, 1)
    @property
    def point(self): return Point(1), Pair().total(), SETTINGS.a
    @point.setter
    def point(self, value): self.k = value
    def __eq__(self, other): return NotImplemented
    __hash__, same = None, __eq__
    def __call__(self, theta, rng):
        known = (theta in LEVELS) + (theta in {"u", "v", "w"})
        return helper.step(theta) + K * self.k + known + STEPS["f"](1)
def make(scale):
    def distance(x, y, p=2):
        return scale * abs(x - y) ** p
    return distance
simulate, distance = Model(3), make(2.0)
summarize = lambda data: [x for x in data if x in {"q", "r", "s", 1.0}]
"""
GREET = """
import pathlib, sys
from mpiabc.fingerprint import fingerprint
"""
AS_SCRIPT = (
    TRAVELLER
    + GREET
    + """
import cloudpickle
parts = dict(simulate=simulate, distance=distance, summarize=summarize)
pathlib.Path("parts").write_bytes(cloudpickle.dumps(parts))
print(fingerprint(**parts).to_json())
"""
)
AS_WORKER = (
    GREET
    + """
import pickle
print(fingerprint(**pickle.loads(pathlib.Path("parts").read_bytes())).to_json())
"""
)


def described_by(folder, name, text, seed):
    (folder / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, f"{name}.py"],
        cwd=folder,
        env=environment(PYTHONHASHSEED=str(seed), PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=True,
    )
    return Fingerprint.from_json(done.stdout.strip())


def test_processes_agree_whatever_their_hash_seed_and_so_does_what_travelled(tmp_path):
    (tmp_path / "helper.py").write_text(textwrap.dedent(MODEL["helper"]))
    one = described_by(tmp_path, "script", AS_SCRIPT, 1)
    other = described_by(tmp_path, "renamed", AS_SCRIPT, 2)
    assert one == other
    assert {"function script.make.distance", "function helper.step", "global script.LEVELS"} <= set(one.code)
    assert one.values["distance(closure scale)"] == "2.0"
    assert differences(one, described_by(tmp_path, "worker", AS_WORKER, 3)) == []

    (tmp_path / "helper.py").write_text(textwrap.dedent(MODEL["helper"]).replace("UNIT = 10", "UNIT = 11"))
    worker = described_by(tmp_path, "worker", AS_WORKER, 4)
    assert code_differences(one, worker) == ["global helper.UNIT: 10 there, 11 here"]


def test_the_name_of_a_file_that_was_lost_on_the_way_changes_nothing():
    def simulate(theta, rng):
        return np.sin(add(theta, 1, 2))

    there = fingerprint(simulate=simulate)
    simulate.__code__ = simulate.__code__.replace(co_filename="<dynamic-code>", co_firstlineno=1)
    assert fingerprint(simulate=simulate) == there


def test_a_script_has_one_name_however_it_is_run():
    def of_module(name):
        module = types.ModuleType(name)
        exec("K = 1\nclass M:\n    def f(self): return K\ndef simulate(x, rng): return M().f()", vars(module))
        return fingerprint(simulate=module.simulate)

    one, *others = map(of_module, ["__main__", "__mp_main__", MODULE])
    assert [one] * 2 == others
    assert "function script.M.f" in one.code
    assert of_module("elsewhere") != one


def test_what_travelled_by_value_is_what_was_sent(of):
    def helper(x):
        return x + 1

    def simulate(theta, rng):
        return helper(theta)

    simulate.__module__ = "__main__"
    one = fingerprint(simulate=simulate)
    assert fingerprint(simulate=cloudpickle.loads(cloudpickle.dumps(simulate))) == one


# --- modules that nobody has imported ---

LAZY = dedented(
    model="""
        def simulate(theta, rng):
            import lazy
            from lazypack.sub import deep
            return lazy.step(theta) + deep(theta)
        """,
    lazy="""
        import math, sys
        from lazymore import more
        raise_if_executed = sys.modules["os"]
        K, J = 3, 4
        UNIT = 10
        class Base:
            def half(self): return 0.5
        class Model(Base):
            def run(self): return UNIT
        def step(x, dt=0.1):
            return Model().run() + more(x)
        def plot():
            return 1
        """,
    lazymore="def more(x):\n    return x + 1\n",
) | {
    "lazypack.__init__": "raise RuntimeError('executed')\n",
    "lazypack.sub": "from . import other\ndef deep(x):\n    return other.deeper(x)\n",
    "lazypack.other": "def deeper(x):\n    return x\n",
}


def test_modules_that_functions_import_are_read_and_not_executed(tmp_path, monkeypatch):
    with imported(tmp_path / "m", monkeypatch, LAZY) as modules:
        before = set(sys.modules)
        there = fingerprint(simulate=modules["model"].simulate)
        assert set(sys.modules) == before
        (tmp_path / "m" / "lazypack" / "__init__.py").write_text("")
        modules["model"].simulate(2, None)
        here = fingerprint(simulate=modules["model"].simulate)
    reached = {
        "function lazy.step",
        "default lazy.step(dt)",
        "function lazy.Model.run",
        "function lazy.Base.half",
        "global lazy.UNIT",
        "function lazymore.more",
        "function lazypack.sub.deep",
        "function lazypack.other.deeper",
    }
    assert reached <= there.code.keys() & here.code.keys()
    assert "function lazy.plot" not in there.code
    assert differences(there, here) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("lazy", "UNIT = 10", "UNIT = 11", "global lazy.UNIT: 10 there, 11 here"),
        ("lazy", "dt=0.1", "dt=0.2", "default lazy.step(dt): 0.1 there, 0.2 here"),
        ("lazy", "0.5", "0.6", "function lazy.Base.half"),
        ("lazymore", "x + 1", "x + 2", "function lazymore.more"),
        ("lazypack.other", "return x", "return -x", "function lazypack.other.deeper"),
    ],
)
def test_a_change_in_a_module_that_nobody_has_imported_is_named(of, file, old, new, named):
    assert code_differences(of(LAZY), of(changed(file, old, new, LAZY))) == [named]


def test_what_a_module_decides_when_it_runs_is_not_guessed(of):
    text = "import os\nif os.sep == '/':\n    def step(x): return 1\nelse:\n    def step(x): return 2\n"
    found = of({"model": "def simulate(x, rng):\n    import lazy\n    return lazy.step(x)", "lazy": text})
    assert "function lazy.step" not in found.code


# --- values ---


class Model:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def run(self, theta, rng):
        return theta


def make(scale):
    return lambda x, y: scale * abs(x - y)


def add(k, x, y):
    return k + x + y


@pytest.mark.parametrize(
    ("part", "there", "here", "named"),
    [
        (lambda k: Model(k=k).run, 3, 4, "simulate.k: 3 there, 4 here"),
        (lambda k: Model(inner=Model(k=k)), 3, 4, "simulate.inner.k: 3 there, 4 here"),
        (lambda k: Model(f=make(k)), 1.0, 2.0, "simulate.f(closure scale): 1.0 there, 2.0 here"),
        (make, 1.0, 2.0, "simulate(closure scale): 1.0 there, 2.0 here"),
        (make, "nan", float("nan"), "simulate(closure scale): 'nan' there, nan here"),
        (lambda k: functools.partial(add, k), 1, 2, "simulate(argument 0): 1 there, 2 here"),
        (lambda k: functools.partial(add, y=k), 1, 2, "simulate(argument y): 1 there, 2 here"),
        (lambda k: Model(a=[1, (k, {"b": {k}})]), 1, 2, None),
        (lambda k: Model(a=Path(k)), "data/a", "data/b", None),
        (lambda k: Model(a=np.float32(k)), 0.1, 0.2, None),
        (lambda k: Model(a=np.arange(k)), 3, 4, None),
        (lambda k: Model(a=np.full((100, 100), k)), 3, 4, None),
        (lambda k: Model(a=np.ma.array([1, 2], mask=[0, k])), 0, 1, None),
        (lambda k: Model(a=np.array([k, "x"], dtype=object)), 0, 1, None),
        (lambda k: Model(a=np.zeros(3, dtype=[("x", "f8"), ("y", k)])), "i4", "i8", None),
        (lambda k: Model(a=[Model(k=k)]), 0, 1, None),
        (lambda k: Model(a={"f": make(k)}), 0, 1, None),
        (lambda k: Model(a="x" * 1000 + k), "a", "b", None),
        (lambda k: Model(a=b"x" * 1000 + k), b"a", b"b", None),
        (lambda k: Model(a=10**k), 5000, 5001, None),
        (lambda k: Model(a=[10**k]), 5000, 5001, None),
        (lambda k: Model(a=collections.deque([1, k])), 1, 2, None),
        (lambda k: Model(a=collections.namedtuple("P", "x")(k)), 1, 2, None),
        (lambda k: Model(a=stats.norm(k, 1)), 1, 2, "simulate.a: norm(1, 1) there, norm(2, 1) here"),
        (lambda k: Model(a=slice(0, k)), 1, 2, None),
        (lambda k: Model(a=types.SimpleNamespace(b=k)), 1, 2, None),
        (lambda k: Model(f=k), add, make, "simulate.f: function add there, function make here"),
        (lambda k: Model(c=k), Model, dict, "simulate.c: class Model there, class dict here"),
    ],
)
def test_changed_values_are_named_with_both(part, there, here, named):
    found = differences(fingerprint(simulate=part(there)), fingerprint(simulate=part(here)))
    assert len(found) == 1
    assert differences(fingerprint(simulate=part(there)), fingerprint(simulate=part(there))) == []
    if named is not None:
        assert found == [named.format(__name__)]


def test_workers_do_not_compare_what_travels_with_the_part():
    assert code_differences(fingerprint(simulate=Model(k=3)), fingerprint(simulate=Model(k=4))) == []
    assert code_differences(fingerprint(simulate=make(1.0)), fingerprint(simulate=make(2.0))) == []


def test_a_value_on_one_side_only_is_named_and_code_is_not():
    there, here = fingerprint(simulate=Model(k=3)), fingerprint(simulate=Model(k=3, m=1))
    assert differences(there, here) == ["simulate.m: nothing there, 1 here"]
    assert differences(here, there) == ["simulate.m: 1 there, nothing here"]
    alone = Fingerprint(code={"function model.f": "1"}, values={})
    assert differences(alone, Fingerprint({}, {})) == []


def test_a_part_that_is_none_is_left_out():
    assert fingerprint(simulate=add, summarize=None) == fingerprint(simulate=add)


def test_counters_agree_when_they_are_looked_at_before_use():
    def started():
        def simulate(theta, rng):
            simulate.calls += 1
            return theta

        simulate.calls = 0
        return simulate

    one, other = started(), started()
    there = fingerprint(simulate=one)
    one(1, None)
    assert differences(there, fingerprint(simulate=other)) == []
    assert differences(there, fingerprint(simulate=one)) == ["simulate.calls: 0 there, 1 here"]
    assert code_differences(there, fingerprint(simulate=one)) == []


@pytest.mark.parametrize("kind", [str, os.fsencode, Path, lambda path: [{"path": Path(path)}]])
def test_a_path_below_the_temporary_folder_is_one_path(monkeypatch, tmp_path, kind):
    folders = [tempfile.mkdtemp() for _ in range(2)]
    one, other = (fingerprint(simulate=Model(folder=kind(f"{folder}/data"))) for folder in folders)
    for folder in folders:
        os.rmdir(folder)
    assert one == other
    assert "a temporary path" in one.values["simulate.folder"]
    outside = [fingerprint(simulate=Model(folder=kind(f"/data/{name}"))) for name in "ab"]
    assert differences(*outside) != []
    monkeypatch.setenv("TMPDIR", "/data")
    assert fingerprint(simulate=Model(folder=kind("/data/a"))) == one


def test_a_path_below_the_folder_of_its_module_moves_with_it(tmp_path, monkeypatch):
    text = (
        "from pathlib import Path\nDATA = Path(__file__).parent / 'd.npy'\ndef simulate(x, rng): return DATA"
    )
    found = []
    for place in ("/home/a/project", "/scratch/b/project"):
        module = types.ModuleType("model")
        module.__file__ = f"{place}/model.py"
        exec(compile(text, module.__file__, "exec"), vars(module))
        found.append(fingerprint(simulate=module.simulate))
    assert found[0] == found[1]
    assert found[0].code["global model.DATA"] == "'./d.npy'"


class Stateful(Model):
    def __getstate__(self):
        return {"k": self.k}


class Broken(Model):
    def __getstate__(self):
        raise RuntimeError("no")


class Watched(Model):
    asked = []

    @property
    def k(self):
        self.asked.append("k")
        raise RuntimeError("asked")

    @functools.cached_property
    def late(self):
        return 1

    def __getattr__(self, name):
        self.asked.append(name)
        raise AttributeError(name)

    def __repr__(self):
        self.asked.append("repr")
        return "?"

    __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __repr__


def test_getstate_says_what_belongs_to_an_object():
    assert differences(*(fingerprint(simulate=Stateful(k=1, n=n)) for n in (1, 2))) == []
    assert differences(*(fingerprint(simulate=Stateful(k=k, n=1)) for k in (1, 2))) == [
        "simulate.k: 1 there, 2 here"
    ]


def test_an_error_of_getstate_is_not_raised():
    for part in (Broken(k=1), Model(a=[Broken(k=1)])):
        assert fingerprint(simulate=part) == fingerprint(simulate=part)
    assert fingerprint(simulate=Broken(k=1)).values == {"simulate": "Broken"}


def test_nothing_of_an_object_is_asked_or_changed():
    part = Watched(a=1)
    before = dict(vars(part))
    fingerprint(simulate=part, distance=Model(a=[part, {"b": part}]))
    assert Watched.asked == []
    assert vars(part) == before
    late = Watched(a=1)
    assert late.late == 1
    assert fingerprint(simulate=late) == fingerprint(simulate=part)  # a cached property is no value


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a):
        self.a = a


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int
    b: tuple = ()


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    a: int


class Name(str):
    __slots__ = ()


class Table(dict):
    pass


@pytest.mark.parametrize("kind", [Slotted, Frozen, FrozenSlots])
def test_slots_and_dataclasses_have_named_attributes(kind):
    assert differences(*(fingerprint(simulate=kind(a)) for a in (1, 2))) == ["simulate.a: 1 there, 2 here"]
    assert len(differences(*(fingerprint(simulate=Model(a=[kind(a)])) for a in (1, 2)))) == 1


@pytest.mark.parametrize(("kind", "one", "other"), [(Name, "a", "b"), (Table, {"a": 1}, {"a": 2})])
def test_classes_derived_from_builtin_ones_keep_their_content(kind, one, other):
    assert len(differences(*(fingerprint(simulate=kind(value)) for value in (one, other)))) == 1
    assert len(differences(*(fingerprint(simulate=Model(a=[kind(value)])) for value in (one, other)))) == 1


class Weakly:
    pass


class MyThread(threading.Thread):
    pass


@pytest.mark.parametrize(
    "part",
    [
        lambda: np.random.default_rng(),
        lambda: np.random.RandomState(),
        lambda: np.random.PCG64(),
        lambda: random.Random(),
        lambda: threading.Lock(),
        lambda: threading.local(),
        lambda: threading.Event(),
        lambda: MyThread(),
        lambda: logging.getLogger(str(time.time())),
        lambda: open(os.devnull),  # noqa: SIM115
        lambda: tempfile.TemporaryDirectory(),
        lambda: weakref.ref(Weakly),
        lambda: (x for x in [1]),
        lambda: object(),
        lambda: [object(), Model()],
        lambda: f"<thing at {hex(id(object()))}>",
        lambda: {Weakly(): 1},
        lambda: stats.gaussian_kde([1.0, 2.0, 4.0]),
        lambda: json.JSONEncoder(),
        lambda: functools.partial(print, object()),
        lambda: np.vectorize(add),
        lambda: ctypes.c_double(1.0),
        lambda: ctypes.CDLL(None),
        lambda: [].append,
    ],
)
@pytest.mark.parametrize("place", [lambda x: x, lambda x: Model(a=x), lambda x: [(x,)]])
def test_nothing_that_differs_from_process_to_process_is_reported(part, place):
    one, other = part(), part()
    there, here = fingerprint(simulate=place(one)), fingerprint(simulate=place(other))
    assert there == here
    assert "0x7" not in there.to_json()
    for thing in (one, other):
        if hasattr(thing, "close"):
            thing.close()
        if hasattr(thing, "cleanup"):
            thing.cleanup()


def test_objects_of_installed_classes_are_described_by_what_they_hold():
    import pandas

    frames = [pandas.DataFrame({"a": [1.0, x], "b": ["u", "v"]}, index=[3, 4]) for x in (2.0, 2.0, 3.0)]
    one, same, other = (fingerprint(simulate=Model(data=frame)) for frame in frames)
    assert one == same
    assert frames[0].sum() is not None  # which fills caches
    assert frames[0]["a"].mean() == 1.5
    assert one == fingerprint(simulate=Model(data=frames[0]))
    assert [text.partition(":")[0] for text in differences(one, other)] == ["simulate.data"]


# --- large and strange values ---


def test_of_a_large_array_a_sample_is_read(tmp_path):
    array = np.zeros(3_000_000)
    one = fingerprint(simulate=Model(a=array))
    array[1] = 1  # both ends are read, and what lies evenly between
    assert len(differences(one, fingerprint(simulate=Model(a=array)))) == 1
    array[1] = 0
    array[1000] = 1
    assert differences(one, fingerprint(simulate=Model(a=array))) == []
    assert len(differences(one, fingerprint(simulate=Model(a=array[:-1])))) == 1
    assert len(differences(one, fingerprint(simulate=Model(a=np.zeros(3_000_000, np.int64))))) == 1


@pytest.mark.parametrize(
    "view", [lambda x: x, lambda x: x.reshape(1 << 10, -1), lambda x: np.asarray(x)[::2]]
)
def test_of_a_mapped_array_a_smaller_sample_is_read_whatever_view_it_is(tmp_path, view):
    array = np.memmap(tmp_path / "large", np.float64, "w+", shape=(1 << 20,))
    one = fingerprint(simulate=Model(a=view(array)))
    array[2048:8192] = 1  # between the ends and the second of the places
    assert fingerprint(simulate=Model(a=view(array))) == one
    array[0] = 1
    assert fingerprint(simulate=Model(a=view(array))) != one


def cycle():
    one, other = Model(), Model()
    one.other, other.other, one.me, one.items = other, one, one, [one, {"a": other}]
    return one


def self_containing():
    items = [1]
    items.append(items)
    return Model(a=items)


def nested(depth):
    items = []
    for _ in range(depth):
        items = [items]
    return Model(a=items)


def chain(length):
    last = None
    for _ in range(length):
        last = Model(next=last)
    return last


def doubled(depth):
    items = [1.0]
    for _ in range(depth):
        items = [items, items]
    return Model(a=items)


@pytest.mark.long
@pytest.mark.parametrize(
    "part",
    [
        cycle,
        self_containing,
        lambda: nested(100_000),
        lambda: chain(100_000),
        lambda: doubled(500),
        lambda: Model(a=list(range(100_000))),
        lambda: Model(a=[str(i) for i in range(100_000)]),
        lambda: Model(a={i: (i, str(i)) for i in range(50_000)}),
        lambda: Model(a=[Model(k=i) for i in range(10_000)]),
        lambda: Model(**{f"a{i}": i for i in range(10_000)}),
        lambda: Model(a=bytes(10_000_000)),
        lambda: Model(a=range(10**12)),
        lambda: Model(a=set(range(300_000))),
        lambda: Model(a=[0] * 10_000_000),
    ],
)
def test_strange_and_large_values_take_bounded_time_and_little_text(part):
    part = part()
    started = time.process_time()
    one = fingerprint(simulate=part)
    assert time.process_time() - started < 5
    assert max(map(len, one.values.values())) < 200
    assert fingerprint(simulate=part) == one
    while isinstance(part, Model):  # a long chain is let go link by link
        part = vars(part).pop("next", None)
    gc.collect()


@pytest.mark.parametrize(("size", "i"), [(100_000, 50_001), (100_000, 99_999), (10, 3)])
def test_every_item_of_a_list_counts(size, i):
    items = list(range(size))
    one = fingerprint(simulate=Model(a=items))
    items[i] = -1
    assert len(differences(one, fingerprint(simulate=Model(a=items)))) == 1


# --- compiled libraries, ours, JSON ---


def test_a_library_of_the_users_is_described_by_its_content(tmp_path):
    of_system = next(iter(re.findall(r"/\S*/libm[.-]\S+", Path("/proc/self/maps").read_text())), None)
    if of_system is None:
        missing("there is no library to copy")
    path = tmp_path / "libfast.so"
    shutil.copy(of_system, path)
    library = ctypes.CDLL(str(path))
    for part in (library, library.cos, Model(f=library.cos)):
        assert "library libfast.so" in fingerprint(simulate=part).code
    there = fingerprint(simulate=library)
    path.unlink()  # the copy stays loaded
    path.write_bytes(Path(of_system).read_bytes() + b"0")
    assert code_differences(there, fingerprint(simulate=library)) == ["library libfast.so"]
    assert fingerprint(simulate=ctypes.CDLL(of_system)).code == {}


@pytest.mark.parametrize("text", ["import xxlimited\ndef f(x, rng):", "def f(x, rng):\n    import xxlimited"])
def test_a_compiled_module_of_the_users_is_a_library(tmp_path, monkeypatch, text):
    library = next(Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("xxlimited.*.so"), None)
    if library is None:
        missing("this Python has no example of a compiled module")
    shutil.copy(library, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with imported(tmp_path, monkeypatch, {"model": f"{text}\n    return xxlimited.foo(1, 2)\n"}) as modules:
        found = fingerprint(simulate=modules["model"].f)
    sys.modules.pop("xxlimited", None)
    assert f"library {library.name}" in found.code


def test_our_own_parts_are_values_and_no_code():
    prior = mpiabc.Prior(mu=stats.norm(0, 2), k=mpiabc.LogUniform(0.1, 10), g=stats.gamma(2.0, scale=3))
    found = fingerprint(
        prior=prior,
        kernel=mpiabc.Gaussian(),
        threshold=mpiabc.Quantile(0.5),
        distance=mpiabc.PNorm(p=1, weights={"a": np.arange(3.0)}),
    )
    assert found.code == {}
    assert found.values["prior.mu"] == "Normal(mean=0.0, sd=2.0)"
    assert found.values["prior.g"] == "gamma(2.0, scale=3)"
    assert found.values["kernel"] == "Gaussian(scale=None)"
    assert found.values["distance"] == "PNorm(p=1, weights={'a': array float64 (3,) [0.0, 1.0, 2.0]})"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (mpiabc.Prior(a=stats.norm(0, 2)), mpiabc.Prior(a=stats.norm(0, 3))),
        (mpiabc.Prior(a=stats.t(3), b=stats.t(4)), mpiabc.Prior(b=stats.t(4), a=stats.t(3))),
        (mpiabc.Gaussian(), mpiabc.LocalGaussian()),
        (mpiabc.Quantile(0.5), mpiabc.Quantile(0.4)),
        (mpiabc.PNorm(weights=np.arange(1000.0)), mpiabc.PNorm(weights=np.arange(1000.0)[::-1])),
    ],
)
def test_other_settings_of_our_own_parts_are_other_values(one, other):
    assert differences(fingerprint(part=one), fingerprint(part=other)) != []
    assert fingerprint(part=one) == fingerprint(part=one)


class MyPrior(mpiabc.Prior):
    def logpdf(self, theta):
        return super().logpdf(theta)


class MyDistribution(stats.rv_continuous):
    def _logpdf(self, x):
        return -x


def test_what_users_derive_of_others_is_code_of_theirs():
    name = __name__
    assert f"function {name}.MyPrior.logpdf" in fingerprint(prior=MyPrior(a=stats.norm(0, 1))).code
    prior = mpiabc.Prior(a=MyDistribution(name="mine")(loc=1))
    found = fingerprint(prior=prior)
    assert f"function {name}.MyDistribution._logpdf" in found.code
    assert found == fingerprint(prior=mpiabc.Prior(a=MyDistribution(name="mine")(loc=1)))


def test_a_fingerprint_survives_json():
    found = fingerprint(simulate=Model(k="ä\ud800", a=float("nan")), distance=make(1.0))
    assert Fingerprint.from_json(found.to_json()) == found
    assert "\n" not in found.to_json()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "3", '{"code": {}}', '{"code": {"a": 1}, "values": {}}', '{"code": {}, "values": null}'],
)
def test_what_is_no_fingerprint_is_refused(text):
    with pytest.raises(ValueError, match=r"fingerprint|JSON|Expecting"):
        Fingerprint.from_json(text)


def test_bytecode_of_two_pythons_is_not_compared():
    one = Fingerprint({"function a": "1", "python": "cpython-311"}, {})
    other = Fingerprint({"function a": "2", "python": "cpython-312"}, {})
    assert code_differences(one, other) == ["python: cpython-311 there, cpython-312 here"]


def test_values_of_a_module_are_those_of_the_script_that_it_was():
    """A run that `python fit.py` has begun may be continued by what imports it."""
    text = "class M:\n    k = 1\n    def __call__(self, x, rng): return 1\ndef g(x, y): return 1"

    def of_module(name):
        module = types.ModuleType(name)
        exec(text, vars(module))
        return fingerprint(simulate=module.M(), distance=module.g)

    assert differences(of_module("__main__"), of_module("fit")) == []


@pytest.mark.parametrize("clock", [time.time, time.monotonic, time.time_ns, time.perf_counter])
def test_the_moment_at_which_a_script_began_is_no_difference(clock):
    def at(moment):
        return fingerprint(simulate=lambda theta, rng: moment)

    assert differences(at(clock()), at(clock())) == []
    assert differences(at(clock()), at(3.5)) != []


def test_constants_are_no_moments_on_a_machine_that_has_just_started(monkeypatch):
    monkeypatch.setattr(values, "_LOADED", 300.0)
    monkeypatch.setattr(values, "time", types.SimpleNamespace(time=time.time, monotonic=lambda: 420.0))
    for there, here in [(0.3, 0.4), (200.5, 200.75), (1 / 3, 2 / 3), (314.15926, 299.7), (160.0, 170.0)]:
        parts = [fingerprint(simulate=Model(k=k)) for k in (there, here)]
        assert differences(*parts) == [f"simulate.k: {there} there, {here} here"]


@pytest.fixture
def library():
    """A library of cffi: it says that it is a module, and is none."""
    try:
        from cryptography.hazmat.bindings._rust import _openssl
    except ImportError as error:
        missing(str(error))
    assert isinstance(_openssl.lib, types.ModuleType)
    assert not issubclass(type(_openssl.lib), types.ModuleType)
    return _openssl.lib


def test_library_of_cffi_that_is_installed_is_no_code_of_the_users(library):
    found = fingerprint(simulate=lambda theta: library.ERR_get_error())
    assert not any(name.startswith("library ") for name in found.code)


def test_library_of_cffi_is_known_by_the_file_of_the_module_that_has_it(library, tmp_path, monkeypatch):
    def simulate(theta):
        return library.ERR_get_error()

    module = types.ModuleType("held")
    module.__file__, module.lib = str(tmp_path / "held.abi3.so"), library
    monkeypatch.setitem(sys.modules, "held", module)
    (tmp_path / "held.abi3.so").write_bytes(b"one")
    before = fingerprint(simulate=simulate).code
    (tmp_path / "held.abi3.so").write_bytes(b"another")
    after = fingerprint(simulate=simulate).code
    assert {name for name in before if before[name] != after[name]} == {"library held.abi3.so"}
