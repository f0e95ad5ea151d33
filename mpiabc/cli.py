"""The command line: `mpiabc run`, `mpiabc show`, `mpiabc replay`. The one place that prints.

    mpiabc run influenza.py --population-size 1000 --generations 8
    mpiabc show influenza.db
    mpiabc replay influenza.db 3:17 --problem influenza.py

Exit status: 0 done, 1 an error, 2 a wrong command line, 75 stopped early and resumable.
"""

import argparse
import ast
import logging
import math
import os
import pdb
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from mpiabc.errors import RESUMABLE, Error, Interrupted, ProblemError
from mpiabc.generation import Evaluator, Generation, exits_caught
from mpiabc.kernel import Gaussian, Kernel, LocalGaussian
from mpiabc.population import Population
from mpiabc.problem import EvaluationId, Problem, accepted_extras, differing_parts
from mpiabc.records import Failure, Records, Status
from mpiabc.schedulers.mpi import end_job
from mpiabc.smc import ABCSMC
from mpiabc.store import History
from mpiabc.streams import BLOCK, Purpose, Stream, stream_key
from mpiabc.structure import Structure
from mpiabc.threshold import Constant, Listed, Quantile, Threshold
from mpiabc.version import __version__

_MODULE = "mpiabc_problem_file"  # the name under which a problem's file is loaded
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
_MOST_FAILURES = 20  # told in full by --failures only


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, of `sys.argv` by default; returns its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mpiabc").setLevel(logging.INFO)
    try:
        return options.command(options)
    except Error as error:
        if not _leads():
            time.sleep(1.0)  # the same on all ranks, most likely: the job ends when rank 0 has said it
        print(f"mpiabc: {error}", file=sys.stderr, flush=True)
        end_job()
        return 1
    except Interrupted as stopped:
        if _leads():
            print(f"mpiabc: {stopped}", file=sys.stderr)
        return RESUMABLE


def _leads() -> bool:
    """Whether a launcher, if there is one, calls this rank 0; MPI itself may not be up yet."""
    told = (os.environ.get(name, "") for name in _RANK_VARIABLES)
    return next((int(rank) == 0 for rank in told if rank.isdigit()), True)


def _say(text: str) -> None:
    """Print; a reader that has left, as in `mpiabc show run.db | head`, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# The commands and their options.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mpiabc",
        description="Approximate Bayesian computation on every core you have.",
        epilog="example:\n  mpiabc run influenza.py --population-size 1000 --generations 8\n"
        "  mpiabc show influenza.db",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mpiabc {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_run, _add_show, _add_replay):
        add(commands)
    return parser


def _add_command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int], help: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=function)
    return parser


def _add_run(commands: Any) -> None:
    example = """\
  mpiabc run fit.py --population-size 1000 --generations 8
  mpirun -n 4 mpiabc run fit.py:problem --population-size 1000 --epsilon 0.1 --store fit.db
  mpiabc run fit.yaml --scheduler mpi

fit.yaml:
  problem: fit.py
  population_size: 1000
  generations: 8
  threshold: quantile:0.5
  output: fit.db

The same command continues a run that was stopped."""
    parser = _add_command(commands, "run", _run, "start a run, or continue it", example)
    parser.add_argument(
        "file",
        metavar="FILE[:problem]",
        help="a Python file that defines a Problem, with its name if there are several; or a YAML file",
    )
    for name, (_, metavar, help) in _SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        if metavar:
            parser.add_argument(option, metavar=metavar, help=help)
        else:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, help=help)


def _add_show(commands: Any) -> None:
    example = "  mpiabc show fit.db\n  mpiabc show fit.db --failures"
    parser = _add_command(commands, "show", _show, "show a run, also while it is going on", example)
    parser.add_argument("store", metavar="RUN.db", help="the run's file")
    parser.add_argument("--failures", action="store_true", help="all failures, with their tracebacks")


def _add_replay(commands: Any) -> None:
    example = """\
  mpiabc replay fit.db 3:17 --problem fit.py
  mpiabc replay fit.db 3:17 --problem fit.py --pdb"""
    parser = _add_command(commands, "replay", _replay, "compute one evaluation again, here", example)
    parser.add_argument("store", metavar="RUN.db", help="the run's file")
    parser.add_argument("address", metavar="T:I", help="evaluation I of generation T")
    parser.add_argument("--problem", metavar="FILE[:problem]", help="the file given to `mpiabc run`")
    parser.add_argument("--pdb", action="store_true", help="open the debugger where the simulator fails")


# Settings: text from the command line or from a YAML file.


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = _number(name, text, "a whole number")
    if not number.is_integer():
        raise ProblemError(f"{name}={text!r}: give a whole number")
    return int(number)  # 1e6


def _number(name: str, text: str, expected: str = "a number") -> float:
    try:
        return float(text)
    except ValueError:
        raise ProblemError(f"{name}={text!r}: give {expected}") from None


def _text(name: str, text: str) -> str:
    return text


def _switch(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ProblemError(f"{name}={text!r}: give true or false")
    return text.lower() == "true"


def _threshold(name: str, text: str) -> Threshold:
    kind, _, rest = text.partition(":")
    numbers = [_number(name, part) for part in rest.split(",") if part.strip()]
    if kind == "listed":
        return Listed(numbers)
    if kind == "quantile" and len(numbers) <= 1:
        return Quantile(*numbers)
    if kind == "constant" and len(numbers) == 1:
        return Constant(*numbers)
    raise ProblemError(f"{name}={text!r}: give quantile:0.5, listed:4,2,1 or constant:3")


def _kernel(name: str, text: str) -> Kernel:
    kernels = {"gaussian": Gaussian, "local": LocalGaussian}
    if text not in kernels:
        raise ProblemError(f"{name}={text!r}: give {' or '.join(kernels)}")
    return kernels[text]()


class _Setting(NamedTuple):
    """How a setting's text is read, and how it is shown in the help."""

    read: Callable[[str, str], Any]
    metavar: str  # empty for a switch
    help: str


_SETTINGS = {
    "population_size": _Setting(_whole, "N", "particles in each generation"),
    "generations": _Setting(_whole, "G", "stop after so many generations"),
    "epsilon": _Setting(_number, "E", "stop when the threshold is at most this"),
    "simulations": _Setting(_whole, "S", "stop after so many simulations"),
    "acceptance_rate": _Setting(_number, "R", "stop when a generation cannot reach this"),
    "walltime": _Setting(_text, "W", "stop, to be continued, after seconds, or 30m, 2h, 1:30:00"),
    "threshold": _Setting(_threshold, "RULE", "quantile:0.5 (the default), listed:4,2,1 or constant:3"),
    "kernel": _Setting(_kernel, "KERNEL", "gaussian (the default) or local"),
    "seed": _Setting(_whole, "SEED", "a non-negative whole number; drawn and kept if not given"),
    "scheduler": _Setting(_text, "NAME", "auto (the default), serial, processes, mpi, mpi-static"),
    "store": _Setting(_text, "RUN.db", "the run's file, by default FILE with the ending .db, in this folder"),
    "overwrite": _Setting(_switch, "", "begin anew if the store holds a run"),
    "progress": _Setting(_switch, "", "a live line; by default on a terminal"),
}
_OF_SAMPLER = ("population_size", "kernel", "threshold", "seed")


def _settings(texts: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are given, read. Raises ProblemError for what cannot be read."""
    return {
        name: _SETTINGS[name].read(name, str(value)) for name, value in texts.items() if value is not None
    }


def _yaml_texts(path: Path) -> dict[str, Any]:
    """The keys of a YAML file: settings and `problem`, whose path is made one from here."""
    try:
        import yaml
    except ImportError:
        raise Error(f"{path} is a YAML file, and PyYAML is not installed: install `mpiabc[yaml]`") from None
    try:
        content = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise ProblemError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ProblemError(f"{path} holds no keys: give at least `problem: FILE.py` and `population_size: N`")
    known = ("problem", *_SETTINGS, "output")
    unknown = [str(key) for key in content if key not in known]
    if unknown:
        raise ProblemError(f"{path} has the unknown key {', '.join(unknown)}; known are {', '.join(known)}")
    if "output" in content:
        if "store" in content:
            raise ProblemError(f"{path} has both `store` and `output`, which are the same: give one")
        content["store"] = content.pop("output")
    if not content.get("problem"):
        raise ProblemError(f"{path} names no problem: give `problem: FILE.py`, relative to this file")
    return content | {"problem": str(path.parent / str(content["problem"]))}


# The problem's file.


def _is_yaml(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


def _split(target: str) -> tuple[Path, str | None]:
    """The path and, after a colon, the problem's name."""
    file, _, name = target.rpartition(":")
    if file and name.isidentifier() and not Path(target).is_file():
        return Path(file), name
    return Path(target), None


def _texts(target: str) -> dict[str, Any]:
    """What FILE[:problem] says: `problem`, and settings if it is a YAML file."""
    path, name = _split(target)
    if not _is_yaml(path):
        return {"problem": target}
    if name is not None:
        raise ProblemError(f"{target}: the problem's name goes into {path}, as `problem: FILE.py:{name}`")
    return _yaml_texts(path)


def _load_problem(target: str) -> Problem:
    """The Problem of FILE[:problem]; raises ProblemError if there is none, or no single one."""
    path, name = _split(target)
    namespace = vars(_load_module(path))
    found = {key: value for key, value in namespace.items() if isinstance(value, Problem)}
    if not found:
        raise ProblemError(f"{path} defines no mpiabc.Problem at its top level")
    if name is not None:
        if name not in found:
            raise ProblemError(f"{path} defines no Problem named {name!r}: it has {', '.join(found)}")
        return found[name]
    if len({id(problem) for problem in found.values()}) > 1:
        raise ProblemError(
            f"{path} defines several problems, {', '.join(found)}: choose one, as in "
            f"{path}:{next(iter(found))}"
        )
    return next(iter(found.values()))


def _load_module(path: Path) -> ModuleType:
    """The executed file, as a module whose functions travel to other processes by value.

    Nothing is cached on disk: many ranks load the same file at once.
    """
    source = _read(path)
    module = ModuleType(_MODULE)
    module.__file__ = str(path)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(path.parent.absolute()))
    cloudpickle.register_pickle_by_value(module)
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except (Error, Interrupted):
        raise
    except (Exception, SystemExit) as error:
        raise ProblemError(f"{path} cannot be loaded:\n{_told(error)}") from error
    return module


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProblemError(
            f"cannot read {path} ({error.strerror}): give a Python file that defines an mpiabc.Problem, or "
            "a YAML file"
        ) from None


def _users_part(error: BaseException) -> TracebackType | None:
    """The error's traceback below this module."""
    inner = error.__traceback__
    while inner and inner.tb_frame.f_code.co_filename == __file__:
        inner = inner.tb_next
    return inner


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _users_part(error))).rstrip()


# mpiabc run


def _run(options: argparse.Namespace) -> int:
    """Start or continue a run; the rank that leads prints what came out."""
    given = {name: getattr(options, name) for name in _SETTINGS}
    texts = _texts(options.file) | {name: value for name, value in given.items() if value is not None}
    target = texts.pop("problem")
    settings = _settings(texts)
    problem = _load_problem(target)
    if "population_size" not in settings:
        raise ProblemError("the population size is missing: give --population-size N")
    sampler = {name: settings.pop(name) for name in _OF_SAMPLER if name in settings}
    store = settings.pop("store", f"{_split(options.file)[0].stem}.db")
    history = ABCSMC(problem, **sampler).run(store, **settings)
    if history is not None:
        _say(_outcome(history))
    return 0


def _outcome(history: History) -> str:
    """The last population and how the run ended, in words."""
    if not len(history):
        return f"no generation was completed; reason: {history.reason}"
    last = history[-1]
    ending = {
        "generations": str(len(history)),
        "epsilon": f"{last.epsilon:.6g}",
        "ess": f"{last.ess:.1f}",
        "reason": str(history.reason),
        "digest": last.digest(),
    }
    return f"{_table(_parameters(last))}\n\n{_pairs(ending)}"


def _parameters(population: Population) -> list[list[str]]:
    """A row for each parameter: mean, std and quantiles."""
    columns = [population.mean(), population.std(), *population.quantile([0.025, 0.5, 0.975])]
    heads = ["parameter", "mean", "std", "2.5%", "50%", "97.5%"]
    return [heads] + [
        [name, *(f"{column[i]:.6g}" for column in columns)] for i, name in enumerate(population.names)
    ]


def _table(rows: list[list[str]]) -> str:
    """Rows of text in columns: the first to the left, the others to the right."""
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = (
        "  ".join([row[0].ljust(first), *(text.rjust(w) for text, w in zip(row[1:], widths, strict=True))])
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _pairs(values: Mapping[str, str]) -> str:
    """A line for each name and its text."""
    width = max(map(len, values))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in values.items())


# mpiabc show


def _show(options: argparse.Namespace) -> int:
    """Print what a run's file holds."""
    history = History(options.store)
    settings = {name: str(value) for name, value in history.settings.items() if name != "names"}
    _say(_pairs({"problem": history.problem_name, **settings}))
    _say(f"\n{_table(_generations(history))}\n")
    _say(f"reason: {history.reason}" if history.reason else "not finished")
    failures = history.failures
    if failures:
        _say(f"\n{_failures(failures, options.failures)}")
    return 0


def _generations(history: History) -> list[list[str]]:
    """A row for each committed generation."""
    numbers = ["N", "evaluations", "simulations", "acceptance rate", "ess", "seconds"]
    return [["generation", "epsilon", *numbers, "digest"]] + [
        [
            str(p.generation),
            f"{p.epsilon:.6g}",
            str(len(p)),
            str(p.evaluations),
            str(p.simulations),
            f"{p.acceptance_rate:.3g}",
            f"{p.ess:.1f}",
            f"{p.seconds:.3g}",
            p.digest()[:12],
        ]
        for p in history
    ]


def _failures(failures: list[Failure], is_all: bool) -> str:
    told = [_failure(failure, is_all) for failure in (failures if is_all else failures[:_MOST_FAILURES])]
    left = len(failures) - len(told)
    if not is_all:
        more = f"{left} more; " if left else ""
        told.append(f"{more}--failures shows all, with their tracebacks")
    return "\n".join([f"failed evaluations: {len(failures)}", *told])


def _failure(failure: Failure, is_full: bool) -> str:
    """One line, and its traceback if wanted."""
    theta = ", ".join(f"{name}={value!r}" for name, value in failure.theta.items())
    error = (failure.error.splitlines() or [""])[0]
    line = f"  {failure.generation}:{failure.index}  {failure.kind}  {theta}  {error}"
    if not (is_full and failure.traceback):
        return line
    lines = failure.traceback.rstrip().splitlines()
    return "\n".join([line, *(f"    {text}" for text in lines)])


# mpiabc replay


def _replay(options: argparse.Namespace) -> int:
    """Compute one evaluation again and print it; status 1 if it fails."""
    history = History(options.store)
    t, index = _address(options.address)
    target = options.problem or history.settings.get("problem_file")
    if not target:
        raise ProblemError(
            f"{options.store} does not hold its problem: give --problem FILE[:problem], the file that "
            "`mpiabc run` was given"
        )
    problem = _load_problem(_texts(target)["problem"])
    _check_same(problem, history)
    evaluation = _Evaluation(problem, _generation(history, problem, t), index)
    stored = history[t] if t < len(history) else None
    _say(evaluation.told(stored))
    if evaluation.failure is None:
        return 0
    _say(f"\n{evaluation.failure.traceback.rstrip() or evaluation.failure.error}")
    if options.pdb:
        evaluation.debug()
    return 1


def _address(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise ProblemError(f"{text!r} is no evaluation: give T:I, generation and index, such as 3:17")
    return int(match[1]), int(match[2])


def _check_same(problem: Problem, history: History) -> None:
    """Raise ProblemError, with what differs, if the run was one of another problem."""
    parts, settings = problem.parts(), history.settings
    differing = differing_parts(parts, settings)
    if differing:
        told = "; ".join(f"{name}: {settings.get(name)!r} there, {parts[name]!r} here" for name in differing)
        raise ProblemError(f"{history.path} is the run of another problem ({told}): give --problem its file")


def _generation(history: History, problem: Problem, t: int) -> Generation:
    """Generation t as the run had it; t may be the one that is open.

    Under static scheduling too, id I is what it is by its address, whichever slot tried it.
    """
    if t > len(history):
        raise ProblemError(f"generation {t} has not begun: {history.path} holds {len(history)} generations")
    settings = history.settings
    before = history[t - 1] if t else None
    epsilon = history[t].epsilon if t < len(history) else _open_epsilon(settings, t, before)
    proposal = problem.prior if before is None else _rebuilt("kernel", settings).fit(before)
    return Generation(t, stream_key(settings["seed"]), epsilon, proposal, settings["population_size"])


def _open_epsilon(settings: dict[str, Any], t: int, before: Population | None) -> float:
    epsilon = _rebuilt("threshold", settings).epsilon(t, before)
    if epsilon is None:
        raise ProblemError(f"there is no generation {t}: {settings['threshold']} has no threshold for it")
    return epsilon


_PARTS: dict[str, Callable[..., Any]] = {
    part.__name__: part for part in (Gaussian, LocalGaussian, Quantile, Listed, Constant)
}


def _rebuilt(role: str, settings: dict[str, Any]) -> Any:
    """The kernel or threshold of its text in the settings, such as "Gaussian(scale=None)".

    Reads calls of mpiabc's own names with literal keywords, nothing else. Raises ProblemError.
    """
    text = settings[role]
    try:
        call = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args:
            keywords = {str(keyword.arg): _literal(keyword.value) for keyword in call.keywords}
            return _PARTS[call.func.id](**keywords)
    except (SyntaxError, ValueError, KeyError, TypeError):
        pass
    raise ProblemError(
        f"the run's {role} is {text}, none of mpiabc's own, so it cannot be replayed from here"
    )


def _literal(node: ast.expr) -> Any:
    """A number, None, or a tuple of them; also inf, and numpy's scalars as they print themselves."""
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, ast.Call) and re.fullmatch(r"np\.(float|int)\d+", ast.unparse(node.func)):
        return _literal(node.args[0])
    return ast.literal_eval(node)


class _Evaluation:
    """One evaluation, computed with its distance and summaries whether accepted or not."""

    def __init__(self, problem: Problem, generation: Generation, index: int) -> None:
        self.problem = replace(problem, on_error="reject")
        self.generation = generation
        self.index = index
        # The simulator is bound with the true epsilon; then all that has a distance is let through,
        # because records keep the distances of accepted evaluations only.
        self._evaluator = Evaluator(self.problem, generation, "this process")
        self._evaluator.generation = replace(generation, epsilon=math.inf)
        self._block = self._evaluator.proposed(index // BLOCK)  # not in the seconds below
        self.records: Records = self._evaluator(index, index + 1)

    @property
    def failure(self) -> Failure | None:
        """Why it failed, if it did."""
        return next((f for f in self.records.failures if f.index == self.index), None)

    @property
    def theta(self) -> np.ndarray:
        """The proposal, (d,)."""
        return self._block.theta[self.index % BLOCK]

    def status(self) -> str:
        """What became of it."""
        status = self.records.status[0]
        if status == Status.FAILED:
            return "failed"
        if status == Status.OUTSIDE:
            return "outside the prior's support: rejected without a simulation"
        if status == Status.REJECTED:
            return "rejected early: the simulator returned None"
        return "accepted" if self.records.distances[0] <= self.generation.epsilon else "rejected"

    def told(self, stored: Population | None) -> str:
        """All about it, floats to the last bit; with a comparison if it is in a stored population."""
        names = self.problem.prior.names
        theta = ", ".join(f"{name}={x!r}" for name, x in zip(names, self.theta.tolist(), strict=True))
        values = {
            "evaluation": f"{self.generation.index}:{self.index}",
            "epsilon": repr(float(self.generation.epsilon)),
            "theta": theta,
            "status": self.status(),
        }
        is_measured = len(self.records.distances) > 0
        if is_measured:
            values["distance"] = repr(float(self.records.distances[0]))
        if self.records.status[0] != Status.OUTSIDE:
            values["seconds"] = f"{self.records.seconds:.3g}"
        if stored is not None and self.index in stored.ids:
            values["stored"] = "equal, bit for bit" if self._equals(stored) else "another result"
        return _pairs(values) + (f"\n\n{_table(self._summaries(stored))}" if is_measured else "")

    def _equals(self, stored: Population) -> bool:
        row = np.flatnonzero(stored.ids == self.index)
        return all(
            np.array_equal(getattr(self.records, name), getattr(stored, name)[row])
            for name in ("theta", "distances", "summaries")
        )

    def _summaries(self, stored: Population | None) -> list[list[str]]:
        """Simulated and observed summaries by label, and those stored if they are there."""
        structure = Structure(self.problem.observed)
        columns = {"simulated": self.records.summaries[0], "observed": structure.row(self.problem.observed)}
        if stored is not None and self.index in stored.ids:
            columns["stored"] = stored.summaries[stored.ids == self.index][0]
        cells = ([repr(value) for value in column.tolist()] for column in columns.values())
        rows = zip(structure.labels(), *cells, strict=True)
        return [["summary", *columns], *map(list, rows)]

    def debug(self) -> None:
        """Simulate and measure once more, with the debugger where that raises."""
        try:
            with exits_caught():
                self._simulate()
        except (Exception, SystemExit) as error:
            pdb.post_mortem(_users_part(error) or error.__traceback__)
        else:
            _say("nothing is raised: write breakpoint() into the simulator, and replay it again")

    def _simulate(self) -> None:
        """The user's functions as the evaluator calls them, without it."""
        problem, generation, block = self.problem, self.generation, self._block
        values: Any = self.theta.tolist()
        ids: Any = self.index
        at = self.index
        if problem.vectorized:  # the whole block inside the support, from the stream of the block
            rows = np.flatnonzero(block.log_prior > -np.inf)
            values, ids, at = block.theta[rows].T.copy(), block.number * BLOCK + rows, block.number
        known = {"epsilon": generation.epsilon, "id": EvaluationId(generation.index, ids)}
        extras = {name: known[name] for name in accepted_extras(problem.simulate)}
        theta = dict(zip(problem.prior.names, values, strict=True))
        rng = Stream(generation.key, Purpose.SIMULATION).at(generation.index, at)
        data = problem.simulate(theta, rng, **extras)
        if data is not None and problem.summarize is not None:
            data = problem.summarize(data)
        if data is not None and not problem.vectorized and problem.distance is not None:
            problem.distance(data, problem.observed)
