"""How runs end: exit statuses as a shell sees them, what a user reads, and what the file keeps."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

import mpiabc
from mpiabc import cli, schedulers
from mpiabc.signals import GRACE, Signals, relay
from tests import jobs, problems
from tests.cluster import Simulated, random_time
from tests.conftest import HANGS, ROOT, environment, jobs_of

PROGRAM = ROOT / "tests" / "programs" / "ending.py"
TO_CONTINUE = "; run the same command again to continue"


@dataclass(frozen=True)
class Ending:
    """What became of a command."""

    status: str
    output: str
    store: Path

    @property
    def reason(self):
        return str(mpiabc.open(self.store).reason)


def ended(command, folder, ending, *signals):
    """Run a command in a shell, and send it these signals once its run has a generation."""
    store = folder / f"{ending}-{'-'.join(number.name for number in signals)}.db"
    shell = ["sh", "-c", '"$@"; echo STATUS $?', "sh", *map(str, command)]
    job = subprocess.Popen(
        [part.replace("STORE", str(store)) for part in shell],
        env=environment(ENDING=ending, STORE=str(store)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while signals and not problems.committed(store) and job.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2 if signals else 0.0)
    for number in signals if job.poll() is None else ():
        (child,) = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(int(child), number)
        time.sleep(0.3)
    output, _ = job.communicate(timeout=HANGS)
    output, _, status = output.rpartition("STATUS ")
    return Ending(status.strip(), output, store)


def script():
    return [sys.executable, PROGRAM]


def cases_of(mpi):
    """Ending and signals, then the status that a shell sees.

    Open MPI's mpirun ends the job by itself, with status 1, when it gets SIGINT or SIGTERM: it kills the
    ranks a fifth of a second later, which may be before the reason is written. MPICH's does so at the
    second SIGINT, with 255, or with 0 if its ranks are quicker: None stands for that.
    """
    is_open_mpi, is_mpi = mpi is not None and mpi.name == "openmpi", mpi is not None
    return {
        ("done",): "0",
        ("fails",): "1",
        ("walltime",): "75",
        ("endless", signal.SIGUSR1): "75",
        ("endless", signal.SIGTERM): "1" if is_open_mpi else "75",
        ("endless", signal.SIGINT): "1" if is_open_mpi else "75",
        ("hangs", signal.SIGINT, signal.SIGINT): "1" if is_open_mpi else None if is_mpi else "75",
        ("hangs", signal.SIGUSR1): "75",
    }


REASONS = {
    "done": "generations",
    "fails": "failed: evaluation 1:",
    "walltime": "interrupted: walltime reached in generation ",
}


def check(mpi, command, folder, cases):
    """All cases at the same time: status, what is said once, and what the file keeps."""
    with ThreadPoolExecutor(4) as threads:
        endings = dict(
            zip(cases, threads.map(lambda case: ended(command, folder, *case), cases), strict=True)
        )
    found = {case: cases[case] and ending.status for case, ending in endings.items()}
    assert found == cases, {case: endings[case].output for case in cases if found[case] != cases[case]}
    for case, ending in endings.items():
        if cases[case] == "75":
            assert ending.output.count(TO_CONTINUE) == 1, ending.output
            assert "Traceback" not in ending.output
        if case[0] == "fails":
            assert ending.output.count("RuntimeError: the pump broke") == 1, ending.output
        if case[0] in REASONS:
            assert ending.reason.startswith(REASONS[case[0]])
        elif case[0] == "endless" and (cases[case] == "75" or ending.reason != "None"):
            assert ending.reason.startswith("interrupted: stopped by SIG")


@pytest.mark.long
def test_script_ends_with_the_promised_status(tmp_path):
    check(None, script(), tmp_path, cases_of(None))


@pytest.mark.long
def test_ranks_end_with_the_promised_status(mpi, tmp_path):
    check(mpi, mpi.command(2, PROGRAM), tmp_path, cases_of(mpi))


@jobs_of(["mpi"], [], ["mpich"])
def test_command_line_on_ranks_ends_with_the_promised_status(mpi, tmp_path):
    """The settings of the command are those of an endless run; with its own walltime it ends too."""
    options = ["--population-size", 30, "--threshold", "constant:1.5", "--seed", 1, "--store", "STORE"]
    command = mpi.command(2, "-m", "mpiabc", "run", PROGRAM, *options, "--generations", 10_000)
    cases = {case: status for case, status in cases_of(mpi).items() if case[0] in ("fails", "endless")}
    check(mpi, command, tmp_path, cases)
    (tmp_path / "short").mkdir()
    check(mpi, [*command, "--walltime", "1s"], tmp_path / "short", {("walltime",): "75"})
    check(mpi, [*command[:-1], "3"], tmp_path, {("done",): "0"})
    assert ended([*command, "--nonsense"], tmp_path, "done").status == "2"


@pytest.mark.long
def test_rank_that_is_idle_when_a_signal_comes_waits_for_what_rank_0_says(mpi, tmp_path):
    """However long that takes: here rank 0 is held for longer than the grace."""
    store = tmp_path / "run.db"
    with closing(jobs.Job(mpi.command(2, PROGRAM), tmp_path, ENDING="endless", STORE=str(store))) as job:
        assert job.until(lambda: problems.committed(store), 0.05)
        leader, other = job.victims("leader"), job.victims("another")
        jobs.send(leader, signal.SIGSTOP)
        time.sleep(1.0)
        jobs.send(other, signal.SIGUSR1)
        time.sleep(2 * GRACE)
        jobs.send(leader, signal.SIGCONT)
        assert job.leader.wait(HANGS) == 75
        said, _ = job.said()
        assert said.count(TO_CONTINUE) == 1, said
        assert "Traceback" not in said


@jobs_of(
    ("mpi", "n", "how"),
    [],
    ("mpich", 2, "orphan"),
    ("openmpi", 2, "orphan"),
    ("openmpi", 4, "program"),
    ("mpich", 8, "c"),
)
def test_ranks_in_long_simulations_leave_with_the_status_of_the_run(n, how, mpi, tmp_path):
    """Nothing that they have started stays: MPICH's launcher would wait for it."""
    store, begun = tmp_path / "run.db", tmp_path / "begun"
    begun.mkdir()
    command = mpi.command(n, "-m", "tests.programs.lengthy", store, "mpi", begun, how)
    with closing(jobs.Job(command, tmp_path)) as job:
        assert job.until(lambda: len(list(begun.iterdir())) == n, 0.05), job.said()
        jobs.send(job.victims("leader"), signal.SIGUSR1)
        assert job.leader.wait(HANGS) == 75, job.said()
        assert job.leftovers() == []


@pytest.mark.long
@pytest.mark.parametrize("how", ["program", "orphan"])
@pytest.mark.parametrize("scheduler", ["serial", "processes"])
def test_programs_end_with_the_evaluation_that_a_signal_interrupts(scheduler, how, tmp_path):
    command = [sys.executable, "-m", "tests.programs.lengthy", tmp_path / "run.db", scheduler, tmp_path, how]
    with closing(jobs.Job(command, tmp_path)) as job:
        assert job.until(lambda: any(path.name.isdecimal() for path in tmp_path.iterdir()), 0.05), job.said()
        jobs.send([job.leader.pid], signal.SIGUSR1)
        assert job.leader.wait(HANGS) == 75, job.said()
        assert job.leftovers() == []


@pytest.mark.parametrize("how", ["program", "orphan"])
def test_programs_of_child_processes_end_when_the_leader_is_killed(how, tmp_path):
    store, begun = tmp_path / "run.db", tmp_path / "begun"
    begun.mkdir()
    program = [sys.executable, "-m", "tests.programs.lengthy", store, "processes", begun, how]
    with closing(jobs.Job(program, tmp_path)) as job:
        assert job.until(lambda: any(begun.iterdir()), 0.05), job.said()
        jobs.send([job.leader.pid], signal.SIGKILL)
        job.leader.wait(HANGS)
        assert job.leftovers() == []


@jobs_of(["mpi"], [], ["openmpi"])
def test_run_that_is_stopped_before_all_ranks_have_come_ends_the_job(mpi, tmp_path):
    store = tmp_path / "run.db"
    with closing(jobs.Job(mpi.command(2, PROGRAM), tmp_path, ENDING="late", STORE=str(store))) as job:
        assert job.until((tmp_path / "run.db.late").exists, 0.05)
        time.sleep(1.0)
        jobs.send(job.victims("leader"), signal.SIGUSR1)
        assert job.leader.wait(HANGS) == 75
        assert f"stopped by SIGUSR1 before all ranks had come{TO_CONTINUE}" in job.said()[0]


def test_run_that_is_stopped_before_it_has_begun_is_reported(tmp_path, caplog):
    class Far(Simulated):
        def open(self, problem):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    with pytest.raises(mpiabc.Interrupted) as caught:
        problems.sampler().run(tmp_path / "run.db", scheduler=Far(1, random_time))
    assert caught.value.code == 75
    assert caplog.messages == [f"stopped by SIGTERM before the run began{TO_CONTINUE}"]
    assert not (tmp_path / "run.db").exists()


def test_show_lists_the_failure_that_ended_a_run_until_it_is_mended(tmp_path, capsys):
    def broken(theta, rng, *, id):
        return 1 / 0 if id == (1, 150) else problems.gaussian(theta, rng)

    def mended(theta, rng, *, id):
        return problems.gaussian(theta, rng)

    mended.__qualname__ = broken.__qualname__
    store = tmp_path / "run.db"
    for _ in range(2):
        with pytest.raises(mpiabc.SimulatorError) as caught:
            problems.sampler(simulate=broken, name="x").run(store, scheduler="serial")
        assert caught.value.failure.index == 150
        history = mpiabc.open(store)
        (failure,) = history.failures
        assert (failure.generation, failure.index) == (1, 150)
        assert history.reason == str(caught.value).splitlines()[0].join(["failed: ", ""])
        assert cli.main(["show", str(store), "--failures"]) == 0
        shown = capsys.readouterr().out
        assert "reason: failed: evaluation 1:150 failed on " in shown
        assert f"1:150  exception  mu={failure.theta['mu']!r}  ZeroDivisionError: division by zero" in shown
        assert "return 1 / 0" in shown
    history = problems.sampler(simulate=mended, name="x").run(store, scheduler="serial", accept_changes=True)
    assert history.reason == "threshold"
    assert history.failures == []
    assert sum(population.failures for population in history) == 0


@pytest.mark.long
def test_evaluation_that_failed_without_a_record_fails_again_when_the_run_goes_on(tmp_path):
    """It must not turn into a rejection because the journal says that it failed."""

    def simulate(theta, rng, *, id):
        if id == (0, 3):
            time.sleep(60)
        return problems.gaussian(theta, rng)

    for _ in range(2):
        with pytest.raises(mpiabc.SimulatorError, match="0:3 failed"):
            problems.sampler(simulate=simulate, timeout=0.2).run(
                tmp_path / "run.db", scheduler=schedulers.Processes(1)
            )


def test_signal_that_a_launcher_passes_on_as_well_is_no_second_signal():
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.seen == "SIGTERM"


def test_signal_to_another_rank_as_well_is_no_second_signal(monkeypatch):
    monkeypatch.setattr("mpiabc.signals._SAME", 0.0)
    for is_first in (True, False):
        with Signals() as signals:
            if is_first:
                relay("a signal to rank 1", 0.0)
            os.kill(os.getpid(), signal.SIGUSR1)
            if not is_first:
                relay("a signal to rank 1", 0.0)
            assert signals.seen == "SIGUSR1"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)  # what saves the run is not interrupted


@pytest.mark.parametrize("name", ["SIGHUP", "SIGXCPU", "SIGUSR2"])
def test_run_is_stopped_by_each_signal_that_asks_for_it(name, monkeypatch):
    if name == "SIGUSR2":
        monkeypatch.setenv("MPIABC_SIGNALS", "term, SIGUSR2")
    with Signals() as signals:
        signal.raise_signal(getattr(signal, name))
        assert signals.seen == name


@pytest.mark.parametrize("names", ["SIGNAL", "KILL", "15"])
def test_names_that_are_no_signals_are_refused(names, monkeypatch, tmp_path):
    monkeypatch.setenv("MPIABC_SIGNALS", names)
    with pytest.raises(mpiabc.ProblemError, match=f"MPIABC_SIGNALS='{names}': '{names}' is no signal"):
        problems.sampler().run(tmp_path / "run.db", scheduler="serial")
    assert not (tmp_path / "run.db").exists()


@pytest.fixture
def handled():
    """Sets handlers of a script's own, which go with the test."""
    before = {}

    def handle(number, handler):
        before[number] = signal.signal(number, handler)

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signal_that_the_script_ignores_stays_ignored(handled):
    handled(signal.SIGHUP, signal.SIG_IGN)
    with Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
        assert signals.seen is None


def test_handler_of_the_script_is_called_when_the_run_is_saved(handled, tmp_path):
    """As those of submitit and Lightning are, which give the job to the queue again."""
    store, reasons = tmp_path / "run.db", []
    handled(signal.SIGUSR1, lambda number, frame: reasons.append((number, mpiabc.open(store).reason)))

    def simulate(theta, rng, *, id):
        if id == (1, 5):
            signal.raise_signal(signal.SIGUSR1)
        return problems.gaussian(theta, rng)

    with pytest.raises(mpiabc.Interrupted):
        problems.sampler(simulate=simulate).run(store, scheduler="serial")
    ((number, reason),) = reasons
    assert number == signal.SIGUSR1
    assert reason.startswith("interrupted: stopped by SIGUSR1")
    signal.raise_signal(signal.SIGUSR1)
    assert len(reasons) == 2


POOLING = ["-m", "tests.programs.pooling"]


@pytest.mark.long
@pytest.mark.parametrize("scheduler", ["serial", "processes", "executors"])
def test_pool_of_a_simulator_ends(scheduler):
    command = [sys.executable, *POOLING, scheduler]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    assert "DIGEST" in done.stdout


@pytest.mark.long
def test_pool_of_a_simulator_ends_on_ranks(mpi):
    done = mpi.run(2, *POOLING, "mpi")
    assert done.returncode == 0, done.stdout
    assert "DIGEST" in done.stdout
