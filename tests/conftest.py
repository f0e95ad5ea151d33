"""Where the tests find their parts: both MPIs, each in an environment of its own."""

import atexit
import compileall
import fcntl
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest

from mpiabc.signals import that_ask_to_stop

ROOT = Path(__file__).parent.parent
HANGS = 400.0  # seconds after which what has not ended hangs, on a machine with other work, too
_KEEP_FROM_FORKING = {"jax", "torch", "tensorflow"} - sys.modules.keys()
LEFT = pytest.StashKey[int]()  # how many tests a process has left to --long
_quick: list[pytest.Config] = []  # the run, if it leaves tests to --long
_LONG = {"slurm", "sge", "tolerant"}  # fixtures: batch systems, and ranks that die
_LONGEST = (  # files, by the time that all of their tests took: a run is not to end with one of them alone
    *("pyabc", "conformance", "server_faults", "teams", "espei", "redis", "truth", "resume", "clusters"),
    *("recycling", "timeout", "stops", "together", "executors", "guard", "store", "foreign", "voice"),
    *("torn_down", "faults", "house", "crashes", "run", "worker", "faults_table", "chapters", "batches"),
    *("dask", "mapped", "schedulers"),
)
_SHARED = ("numpy", "scipy", "cloudpickle", "mpi4py", "threadpoolctl", "pytest", "pytest-mpi", "redis")


def pytest_addoption(parser):
    """The first run is the quick one: what is left says how it is asked for."""
    parser.addoption("--long", action="store_true", help="those tests too that take long by their nature")


def pytest_configure(config):
    """All that a session leaves goes with one folder, also where processes are killed."""
    config.addinivalue_line("markers", "long: takes long by its nature; run by --long, or by its own name")
    config.option.long |= any("::" in argument for argument in config.args)
    config.stash[LEFT] = 0
    if not config.option.long:
        _quick.append(config)
    if not hasattr(config, "workerinput"):  # those of xdist have it from the one that starts them
        config.pluginmanager.register(Printed(config), "printed")
        tempfile.tempdir = os.environ["TMPDIR"] = _scratch()
        for folder in ("mpiabc", "tests"):  # thousands of processes would, where none may write
            compileall.compile_dir(ROOT / folder, quiet=2)
    obey_signals()


def obey_signals():
    """As processes that we start do, too: a shell lets those ignore some that it starts in the background."""
    for number in that_ask_to_stop():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@cache
def _scratch():
    """A temporary folder that goes with this process."""
    folder = tempfile.mkdtemp(prefix="mpiabc-tests-")
    os.chmod(folder, 0o755)  # for tests that are another user meanwhile
    atexit.register(partial(shutil.rmtree, folder, ignore_errors=True))
    return folder


def missing(part):
    """A part of the outside world is not here: a failure in CI, a skip with its reason elsewhere."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(part)


def imported(module):
    """A library, without which a test fails in CI, and is skipped elsewhere."""
    return __import__(module) if os.environ.get("CI") == "true" else pytest.importorskip(module)


def present(*modules):
    """The same of libraries for a process of the test's own: some import others that keep from forking."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            missing(f"{module} is not installed")


@dataclass(frozen=True)
class Launcher:
    """An MPI with the Python that belongs to it."""

    name: str
    bin: Path
    python: Path  # the folder of its python
    options: tuple[str, ...] = ()  # of mpirun

    def command(self, n, *arguments):
        return [
            str(self.bin / "mpirun"),
            *self.options,
            "-n",
            str(n),
            str(self.python / "python"),
            *map(str, arguments),
        ]

    def start(self, n, *arguments, **options):
        """The running job; its output is in one pipe."""
        return subprocess.Popen(
            self.command(n, *arguments),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            **options,
        )

    def run(self, n, *arguments, timeout=HANGS):
        """The finished job."""
        job = self.start(n, *arguments)
        try:
            output, _ = job.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            job.kill()
            output, _ = job.communicate()
            pytest.fail(f"the job hangs; it said:\n{output}")
        return subprocess.CompletedProcess(job.args, job.returncode, output)


def environment(**extra):
    """The tests' environment for a child process: the checkout first, any MPI at any size, as anyone.

    Each has a temporary folder of its own: Open MPI's mpirun does not start ("listener thread failed")
    where a killed one that had the same process number has left its folder.
    """
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": tempfile.mkdtemp(dir=os.environ.get("TMPDIR") or _scratch()),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        **extra,
    }


def _installed(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


_ASK = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"


def interpreter(version):
    """The program of a Python of this version that can make environments, or None: the path's, or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    name = f"python{version}"
    found = (shutil.which(name), *sorted(pyenv.glob(f"*/bin/{name}")))
    return next((python for python in found if python and _answers(python, version)), None)


def _answers(python, version):
    try:
        asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True)
    except OSError:
        return False
    return asked.stdout.strip() == version


def environment_of(name):
    """The folder of executables of an environment with this MPI, made if there is none."""
    if _installed(name):
        return Path(sys.executable).parent
    return environment_with(name, *(f"{package}=={_installed(package)}" for package in _SHARED), name)


def launcher_of(name, *options):
    """The mpirun, with these options, and the Python of the environment of this MPI."""
    folder = environment_of(name)
    return Launcher(name, folder, folder, options)


def environment_with(name, *packages, python=sys.executable):
    """The folder of executables of an environment of this name, made by a Python if there is none.

    packages: words for `pip install`.
    """
    if _quick:
        pytest.fail("the quick run makes no environment, which takes minutes: mark this test as long")
    folder = ROOT / f".venv-{name}"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the tests may be at it
        _make_environment(name, folder, packages, python)
    return folder / "bin"


def _make_environment(name, folder, packages, python):
    mark = folder / "complete"
    if mark.exists() and mark.read_text() == " ".join(packages):
        return
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", *packages]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        missing(f"cannot install {name}: {done.stderr.strip().splitlines()[-1]}")
    mark.write_text(" ".join(packages))


def quick(cases, *chosen):
    """Cases for `parametrize`, all but the chosen ones of which are left to `--long`."""
    cases = list(cases)
    assert set(chosen) <= set(cases), chosen
    return [case if case in chosen else pytest.param(case, marks=pytest.mark.long) for case in cases]


def jobs_of(names, quick, *others):
    """A test is run in jobs of these MPIs, not once in each: in the first always, in others by `--long`.

    names: those of a case's values, as for `parametrize`; the first of them is mpi, its value an MPI's name.
    A law of ours above the transport needs each of its cases once, and each MPI in one of them.
    """
    long = [pytest.param(*case, marks=pytest.mark.long) for case in others]
    return pytest.mark.parametrize(names, [*quick, *long], indirect=["mpi"])


@pytest.fixture(scope="session", params=quick(["mpich", "openmpi"], "mpich"))
def mpi(request):
    """Each of the two MPIs in turn."""
    return launcher_of(request.param)


@pytest.fixture(scope="module")
def dask_client():
    """A client of a cluster on this machine, which gives a task up at the first death of its worker.

    Not for the session: runs in a process that has children take a second more (`programs.Programs`).
    """
    from mpiabc.schedulers.dask import KEPT

    try:
        import dask
        import distributed
    except ImportError as error:
        missing(str(error))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0} | KEPT),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="session")
def _finished(tmp_path_factory):
    """The file of a run of three generations."""
    from tests import problems

    path = tmp_path_factory.mktemp("finished") / "run.db"
    problems.sampler(n=20).run(path, scheduler="serial")
    return path


@pytest.fixture(name="run")
def copied(_finished, tmp_path):
    """A copy of it."""
    return shutil.copy(_finished, tmp_path / "run.db")


@pytest.fixture(scope="session")
def slurm():
    """A real Slurm."""
    from tests.clusters.real import started

    yield from started("slurm")


@pytest.fixture(scope="session")
def sge():
    """A real Grid Engine."""
    from tests.clusters.real import started

    yield from started("sge")


def pytest_collection_modifyitems(config, items):
    """Each file is a piece of work for a process: what takes longest begins first, and Dask comes last."""
    long = [item for item in items if takes_long(item)]
    with_dask = {item.path for item in items if _uses_dask(item)}
    turn = {ROOT / "tests" / f"test_{name}.py": i for i, name in enumerate(_LONGEST)}
    items.sort(
        key=lambda item: (
            item.path in with_dask,
            turn.get(item.path, len(turn)),
            item.path,
            _uses_dask(item),
        )
    )
    if not config.option.long:
        leave(config, items, long)


def _uses_dask(item):
    """In this process: that leaves threads, and with threads none is forked."""
    return "dask_client" in item.fixturenames


def takes_long(item):
    """By its mark, or by what it asks for."""
    return item.get_closest_marker("long") or not _LONG.isdisjoint(item.fixturenames)


def leave(config, items, left):
    """Those tests are for another time."""
    config.stash[LEFT] = len(left)
    config.hook.pytest_deselected(items=left)
    gone = set(left)
    items[:] = [item for item in items if item not in gone]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    """No test may decide how later ones of its process get their children: that would depend on the order."""
    if found := _KEEP_FROM_FORKING & sys.modules.keys():
        _KEEP_FROM_FORKING.difference_update(found)
        pytest.fail(f"{item.name} has imported {', '.join(found)} here: let it do so in a process of its own")


def pytest_sessionfinish(session):
    """A process of xdist's says how many tests it has left: all of them have left the same."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = session.config.stash[LEFT]


class Printed:
    """What the session that a user sees says of its tests."""

    def __init__(self, config):
        self._config = config

    def pytest_runtest_logreport(self, report):
        """The name of what fails is printed when it fails, not an hour later."""
        if report.failed and self._config.get_verbosity() <= 0:
            self._write(f"\nFAILED {report.nodeid} ({report.when})")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        """A process of xdist's has ended."""
        left = getattr(node, "workeroutput", {}).get("left", 0)
        self._config.stash[LEFT] = max(self._config.stash[LEFT], left)

    def pytest_terminal_summary(self):
        """What else there is."""
        if left := self._config.stash[LEFT]:
            self._write(f"{left} tests that take long by their nature are left to `pytest --long`")

    def _write(self, line):
        if reporter := self._config.pluginmanager.get_plugin("terminalreporter"):
            reporter.write_line(line)
