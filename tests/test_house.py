"""The house: floors, light imports, idle ranks, formatting and types."""

import ast
import re
import subprocess
import sys
from functools import cache

import pytest

import mpiabc
from mpiabc import environment as environment_of_ours
from tests.conftest import ROOT, environment, quick

FLOORS = [
    {"arguments", "errors", "streams", "structure", "particles", "records", "population", "version", "voice"}
    | {"signals", "batch", "guard", "fingerprint", "conversion", "labels", "protection"}
    | {"threads", "densities", "machine", "programs", "text", "waste", "whereabouts", "mapped", "team"}
    | {"raised", "defended", "kept", "layout"}
    | {
        "named",
        "moved",
        "html",
        "simulations",
        "masked",
        "environment",
        "mapping",
        "durations",
        "calls",
        "copied",
    },
    {"stopping", "acceptors", "recycling", "command", "noise"}
    | {"kernels", "priors", "distances", "thresholds"},
    {"problem", "sizes", "temperatures", "amis", "promises"},
    {"models", "order"},
    {"outcome", "ledger", "checks", "adaptive"},
    {"simulate", "actions", "line"},
    {"evaluate"},
    {"planner", "settled"},
    {"pooling", "closed"},
    {"inspection"},
    {"run"},
    {"driver", "schedulers", "store", "progress", "cluster", "sameness"} | {"analysis", "pool", "onlooker"},
    {"sampler"},
    {"smc", "abcamis"},
    {"cli", "adapters", "testing", "__init__"},
    {"__main__"},
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
WIDE = (0, FLOOR["driver"])  # floors whose rooms lead into each other
MODULES = sorted((ROOT / "mpiabc").rglob("*.py"))


def room(path):
    """The part of the package that a file belongs to."""
    return path.relative_to(ROOT / "mpiabc").with_suffix("").parts[0]


@cache
def nodes(path):
    """All that stands in a file, read once for all tests."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imported(path):
    """(room, module) of each import from the package, (None, module) of the others."""
    return tuple(_imported(path))


def _imported(path):
    for node in nodes(path):
        names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = getattr(node, "module", None) if isinstance(node, ast.ImportFrom) else None
        for name in names:
            full = f"{module}.{name}" if module else name
            parts = full.split(".")
            if parts[0] == "mpiabc":
                yield (parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"), full
            else:
                yield None, full


def test_every_module_has_its_floor():
    assert {room(path) for path in MODULES} <= FLOOR.keys()


def goes_down(mine, other):
    """Whether a room may import from another one."""
    is_low = mine == "schedulers" and FLOOR[other] == 1
    is_beside = FLOOR[other] == FLOOR[mine] in WIDE
    return mine == other or (not is_low and (FLOOR[other] < FLOOR[mine] or is_beside))


def test_imports_go_down_only():
    ours = [(path, other, full) for path in MODULES for other, full in imported(path) if other is not None]
    assert not [f"{p.name} imports {full}" for p, other, full in ours if not goes_down(room(p), other)]


def test_what_and_which_do_not_know_each_other():
    for one, other in [("evaluate", "ledger"), ("ledger", "evaluate")]:
        rooms = {found for found, _ in imported(ROOT / "mpiabc" / f"{one}.py")}
        assert other not in rooms


def test_schedulers_know_jobs_and_nothing_of_problems():
    statistics = {
        "problem",
        "order",
        "outcome",
        "simulate",
        "evaluate",
        "kernels",
        "thresholds",
        "population",
    }
    for path in (ROOT / "mpiabc" / "schedulers").rglob("*.py"):
        assert not statistics & {found for found, _ in imported(path)}, path


@pytest.mark.parametrize("name", ["run", "planner", "actions", "ledger", "closed"])
def test_what_comes_next_is_decided_without_clocks_workers_and_files(name):
    found = {room or module.split(".")[0] for room, module in imported(ROOT / "mpiabc" / f"{name}.py")}
    assert not found & {"time", "datetime", "schedulers", "driver", "store", "signals", "sqlite3", "socket"}


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("mpi4py", ["schedulers/foreign.py", "schedulers/mpi/launch.py"]),  # its types, and what it is
        ("sqlite3", ["store/database.py", "store/files.py", "store/schema.py"]),
        ("distributed", ["schedulers/dask.py"]),
        ("redis", ["schedulers/redis/wire.py"]),
        ("pyabc", ["adapters/pyabc.py"]),
        # Commands of batch systems; what `doctor` asks; simulators; children; a server.
        (
            "subprocess",
            [
                "batch/commands.py",
                "cli/doctor/asking.py",
                "command.py",
                "schedulers/reaper.py",
                "schedulers/redis/program.py",
                "schedulers/shared/starting.py",
            ],
        ),
        ("cryptography", ["schedulers/redis/certificate.py"]),
    ],
)
def test_each_foreign_engine_has_its_place(library, homes):
    users = [
        path
        for path in MODULES
        if any(full.split(".")[0] == library for other, full in imported(path) if other is None)
    ]
    assert users == [ROOT / "mpiabc" / home for home in homes]


def test_schedulers_know_the_type_of_all_that_is_ours():
    """`Any` stands for objects of foreign libraries that tell no types, in one file, which names them."""
    schedulers = ROOT / "mpiabc" / "schedulers"
    having = {path for path in schedulers.rglob("*.py") for node in nodes(path) if is_any(node)}
    assert having == {schedulers / "foreign.py"}
    aliases = [node for node in nodes(schedulers / "foreign.py") if isinstance(node, ast.AnnAssign)]
    names = [node.target.id for node in aliases if is_any(node.value)]
    assert all(name.startswith(("Dask", "Redis")) for name in names), names
    assert sum(map(is_any, nodes(schedulers / "foreign.py"))) == len(names)


def is_any(node):
    """Whether it is typing's Any, by its name or as an attribute."""
    return "Any" in (getattr(node, "id", ""), getattr(node, "attr", ""))


METHODS, ATTRIBUTES = 15, 12  # that a class may have; fields of data are what it carries
LARGE = {  # outside of schedulers, where the docstring says why: "Large, as ..."
    "_Addresses": "what all ledgers do, in one table of statuses",
    "Call": "a map over jobs of a batch system, each of which has its own ways to fail",
    "Cluster": "an engine, its workers and what may go wrong with them",
    "Driver": "the one loop that knows time",
    "Evaluator": "all that an order comes to in a worker, computed once",
    "History": "what users read",
    "KeptSimulations": "the store's view of a table, read row by row",
    "Ledger": "the rules of the house",
    "Line": "the same for ids that go on",
    "Mixture": "what users see of a proposal",
    "Outcome": "what a level has come to, each part computed once",
    "Models": "a problem, as those of one model are",
    "Planner": "the one place that fits",
    "Pool": "what users call",
    "Population": "what users read",
    "PoolingPlanner": "the same for batches",
    "Problem": "what users say",
    "Run": "the one place that decides",
    "Simulator": "the one impure step",
    "Store": "the one place that writes",
    "Structure": "every shape of data there and back",
    "Texts": "one way for each kind of value",
    "Walk": "one way for each kind of code",
}


def weight(node):
    """Methods of a class, and attributes that these assign."""
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    named = (part for method in methods for part in ast.walk(method) if isinstance(part, ast.Attribute))
    stored = (part for part in named if isinstance(part.ctx, ast.Store))
    return len(methods), len({part.attr for part in stored if getattr(part.value, "id", "") == "self"})


def test_no_class_is_large_without_a_reason():
    classes = [node for path in MODULES for node in nodes(path) if isinstance(node, ast.ClassDef)]
    for node in classes:
        methods, attributes = weight(node)
        is_reasoned = "Large, as" in " ".join((ast.get_docstring(node) or "").split()) or node.name in LARGE
        message = f"{node.name} has {methods} methods and {attributes} attributes: split it, or say why not"
        assert is_reasoned or (methods <= METHODS and attributes <= ATTRIBUTES), message


LONGEST = 40  # lines of a function, without its docstring
TABLES = {"_add_options"}  # longer ones that are lists of what there is, one after another


def length(function):
    """Lines of its body."""
    body = function.body[1:] if ast.get_docstring(function) and function.body[1:] else function.body
    return body[-1].end_lineno - body[0].lineno + 1


def test_no_function_is_long():
    functions = [node for path in MODULES for node in nodes(path) if isinstance(node, ast.FunctionDef)]
    assert not {f.name: length(f) for f in functions if length(f) > LONGEST and f.name not in TABLES}


def test_databases_are_closed():
    """`with connect(...)` ends a transaction alone; from Python 3.13 on what stays open is warned of."""
    files = [*ROOT.glob("mpiabc/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("examples/**/*.py")]
    open_ones = re.compile(r"^ +with sqlite3\.connect\(", re.MULTILINE)
    assert not [path for path in files if open_ones.search(path.read_text())]


HEAVY = {"scipy", "scipy.stats", "pandas", "matplotlib", "mpi4py", "mpi4py.MPI", "redis", "distributed"}
HEAVY |= {"pyabc", "asyncio", "ssl", "sqlite3", "csv", "html"}
HEAVY |= {
    f"mpiabc.{name}" for name in ("cluster", "analysis", "testing", "store", "driver", "onlooker", "cli")
}


def printed(program):
    """The words that a new interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize(
    ("module", "more"),
    [
        ("mpiabc", {"numpy", "subprocess", "multiprocessing", "json", "logging"}),
        ("mpiabc.schedulers.mpi.rank", set()),  # what a worker adds to what the user's script has
        ("mpiabc.schedulers.shared.child", set()),
    ],
    ids=["the package", "a rank", "a child"],
)
def test_import_is_light(module, more):
    """Nothing large, nothing that few need, and above all no MPI, which must only start in ranks."""
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = printed(program)
    assert not (HEAVY | more) & set(loaded)


def test_scipy_says_its_version_without_being_imported():
    """Nor are metadata of packages read, which takes as long: every rank says it when it starts."""
    program = "import sys; from mpiabc.version import versions; known = versions()['SciPy']\n"
    program += "print(*sys.modules); import scipy; assert known == scipy.__version__, known"
    loaded = printed(program)
    assert not {"scipy", "importlib.metadata"} & set(loaded)


def test_workers_that_have_a_problem_of_tests_load_no_scipy():
    """Which takes each of the thousands of processes of the tests longer than all else that it does."""
    program = "import sys, tests.programs.digests, mpiabc.testing as testing\n"
    program += "testing.gaussian(), testing.edge(), testing.coin(); print(*sys.modules)"
    loaded = printed(program)
    assert "mpiabc.testing" in loaded
    assert "scipy" not in loaded


def test_public_names_are_those_promised():
    promised = {
        "ABCSMC",
        "Constant",
        "Gaussian",
        "Interrupted",
        "Listed",
        "PNorm",
        "Prior",
        "Problem",
        "Quantile",
    }
    assert promised | {"open", "schedulers", "Error", "History", "Population"} <= set(mpiabc.__all__)
    assert all(hasattr(mpiabc, name) for name in mpiabc.__all__)
    assert {"Serial", "Processes", "MPI", "MPIStatic"} <= set(mpiabc.schedulers.__all__)


@pytest.mark.long
def test_worker_rank_is_light_and_a_waiting_rank_idle(mpi, tmp_path):
    """Under 120 MB at N = 10 000, d = 10; under 5 % of a core while it waits (10 % allows for noise)."""
    job = mpi.run(2, "-m", "tests.programs.light", tmp_path / "run.db")
    assert job.returncode == 0, job.stdout
    (line,) = [line for line in job.stdout.splitlines() if line.startswith("WORKER")]
    _, megabytes, share = line.split()
    assert float(megabytes) < 120
    assert float(share) < 0.10


@pytest.mark.parametrize(
    "tool", quick(["ruff check", "ruff format --check", "mypy"], "ruff check", "ruff format --check")
)
def test_tools_have_nothing_to_say(tool):
    done = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_variables_of_the_environment_are_named_once():
    """Elsewhere they are named by docstrings and messages alone: never asked for by text of one's own."""
    for path in MODULES:
        if path.name != "environment.py":
            texts = [node.value for node in nodes(path) if isinstance(node, ast.Constant)]
            named = {text for text in texts if isinstance(text, str) and text in environment_of_ours.MEANINGS}
            assert not named, f"{path.name}: {named} stand in mpiabc/environment.py"
