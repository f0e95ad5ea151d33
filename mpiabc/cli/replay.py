"""`mpiabc replay`: one evaluation of a run again, in this process."""

import argparse
import math
import pdb
import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from mpiabc import guard, models
from mpiabc.acceptors import Uniforms
from mpiabc.adaptive import measure_of
from mpiabc.cli.command import COMMANDS, add_command
from mpiabc.cli.files import load_problem, texts_of, users_part
from mpiabc.cli.words import pairs, say, table
from mpiabc.errors import ProblemError, StoreError
from mpiabc.evaluate import Evaluator
from mpiabc.fingerprint import differing_parts
from mpiabc.fingerprint.words import there_and_here
from mpiabc.kernels.gaussian import SCALE, as_before
from mpiabc.layout import layout_of
from mpiabc.models import AnyProblem
from mpiabc.order import Order
from mpiabc.planner import Decided, Planner, fitted
from mpiabc.pooling import with_scales
from mpiabc.population import Past, Population
from mpiabc.problem import Problem
from mpiabc.protection import protected
from mpiabc.records import Failure, Records, Status
from mpiabc.schedulers.alone import ALONE
from mpiabc.sizes import LEAST
from mpiabc.store import History
from mpiabc.streams import stream_key
from mpiabc.team import being


def add(commands: Any) -> None:
    """Add the command to the parser."""
    example = """\
  mpiabc replay fit.db 3:17 --trust --pdb
  mpiabc replay fit.db 3:17 --problem changed.py

With --trust this executes what RUN.db holds, whoever made it; without, only the problem that you give."""
    parser = add_command(commands, "replay", _replay, COMMANDS["replay"], example)
    parser.add_argument("store", metavar="RUN.db", help="the run's file")
    text = "evaluation I of generation T; of a run that recycles, pools simulations or looks ahead, I alone"
    parser.add_argument("address", metavar="T:I", help=text)
    parser.add_argument(
        "--problem", metavar="FILE[:problem]", help="a changed simulator instead of the run's own"
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="execute code that RUN.db holds: its simulator, a kernel of its own",
    )
    parser.add_argument("--pdb", action="store_true", help="open the debugger where the simulator fails")


def _replay(options: argparse.Namespace) -> int:
    """Compute one evaluation again and print it; status 1 if it fails."""
    history = History(options.store)
    t, index = _address(options.address, history)
    parts = _Parts(history, options.trust)
    problem = parts.problem if options.problem is None else _given(history, options.problem, parts)
    evaluation = _Evaluation(problem, _order(history, problem, parts, t), index)
    stored = history[t] if t < len(history) else None
    say(evaluation.described(stored))
    if evaluation.failure is None:
        return 0
    say(f"\n{evaluation.failure.traceback.rstrip() or evaluation.failure.error}")
    if options.pdb:
        evaluation.debug()
    return 1


def _address(text: str, history: History) -> tuple[int, int]:
    """Generation and index. Where ids go on from one to the next, by recycling or lookahead, I says all."""
    match = re.fullmatch(r"(?:(\d+):)?(\d+)", text)
    names = "recycle", "sampler", "lookahead"
    is_one_line = any(history.settings.get(name) is not None for name in names)
    if match is None or not (match[1] or is_one_line):
        raise ProblemError(f"{text!r} is no evaluation: give T:I, generation and index, such as 3:17")
    index = int(match[2])
    if not is_one_line and int(match[1]) > len(history):
        raise ProblemError(
            f"generation {match[1]} has not begun: {history.path} holds {len(history)} generations"
        )
    if not is_one_line:
        return int(match[1]), index
    ends = [population.first + population.evaluations for population in history]
    t = int(np.searchsorted(ends, index, side="right"))
    if t < len(history) and index < history[t].first:
        raise ProblemError(f"{index} is no evaluation: the last block of generation {t - 1} ends with it")
    if match[1] and int(match[1]) != t:
        raise ProblemError(f"{text} is no evaluation: {index} is one of generation {t}")
    return t, index


def _given(history: History, target: str, parts: "_Parts") -> AnyProblem:
    """The problem of FILE[:problem], which may differ from that of the run in its simulator only.

    A noise model is no part of it, and comes from the file.
    """
    shares = [share for _, _, share in history.settings.get("models") or ()]
    problem = models.of(load_problem(texts_of(target)["problem"]), shares or None)
    if history.settings.get("acceptor") is not None:
        problem = problem.measured_by(parts.problem.distance)
    if history.settings.get("sampler") is not None and isinstance(problem, Problem):
        problem = with_scales(problem)
    _check_same(problem, history)
    return problem


def _check_same(problem: AnyProblem, history: History) -> None:
    """Raise ProblemError, with what differs, if the run was one of another problem."""
    parts, settings = problem.parts(), history.settings
    differing = differing_parts(parts, settings)
    if differing:
        texts = {name: there_and_here(repr(settings.get(name)), repr(parts[name])) for name in differing}
        message = "; ".join(f"{name}: {text}" for name, text in texts.items())
        raise ProblemError(
            f"{history.path} is the run of another problem ({message}): give --problem its file"
        )


def _order(history: History, problem: AnyProblem, parts: "_Parts", t: int) -> Order:
    """Generation t as the run had it; t may be the one that is open.

    Under static scheduling too, id I is what it is by its address, whichever slot tried it.
    """
    settings = history.settings
    key, size = stream_key(settings["seed"]), LEAST  # it says nothing of a single id
    weights = settings.get("recycle")
    planner = Planner(problem.prior, parts, parts, key, size, False, weights, problem.step)
    looks_ahead = bool(settings.get("lookahead"))
    planner = replace(planner, measure=measure_of(problem), lookahead=looks_ahead)
    past, found = Past(history[t - 1] if t else None, sample=history.sample(t - 1)), history.order(t)
    if looks_ahead:  # proposals go from level to level
        past = replace(planner.past(islice(history, t), history.order), sample=past.sample)
    decided: Decided | None
    if found is not None:
        decided = planner.again(found, past)
    elif settings.get("acceptor") is not None:
        raise StoreError(f"{history.path} has lost what was decided for generation {t}, as it is damaged")
    elif t < len(history):  # the file is of an older mpiabc, or has lost it
        decided = planner.decided(past, history[t].epsilon)
    else:
        decided = planner.next(past)
    if decided is None:
        raise ProblemError(f"there is no generation {t}: {settings['threshold']} has no threshold for it")
    return replace(decided.order, is_static=False, earlier=None, keep="accepted")


@dataclass(frozen=True)
class _Parts:
    """What a file holds as code: executed if the user trusts it, and nothing else says what came of it."""

    history: History
    is_trusted: bool

    @property
    def problem(self) -> AnyProblem:
        """The run's own."""
        return self._part("problem")

    def fit(self, population: Population, prior: Any, *, epsilon: float) -> Any:
        """What the kernel gives."""
        kernel, settings = self._part("kernel"), self.history.settings
        kernel = kernel if SCALE in settings else as_before(kernel, len(settings["names"]))
        return fitted(kernel, population, prior, epsilon)

    def epsilon(self, generation: int, previous: Population | None) -> Any:
        """What the threshold gives."""
        return self._part("threshold").epsilon(generation, previous)

    def _part(self, name: str) -> Any:
        try:
            return self.history.part(name, trust=self.is_trusted)
        except StoreError as error:
            instead = "; --problem FILE takes another one" if name == "problem" else ""
            raise StoreError(str(error).replace("trust=True", "--trust") + instead) from error.__cause__


class _Evaluation:
    """One evaluation, computed with its distance and summaries whether accepted or not."""

    def __init__(self, problem: AnyProblem, order: Order, index: int) -> None:
        self.problem = replace(problem, on_error="reject")
        self.order = order
        self.index = index
        # The simulator is bound with the true epsilon; then all that has a distance is let through,
        # because records keep the distances of accepted evaluations only.
        self._evaluator = Evaluator(self.problem, order, "this process")
        self._evaluator.order = replace(order, epsilon=math.inf)
        self._block = self._evaluator.block_with(index)  # not in the seconds below
        with being(None, ALONE):
            self.records: Records = self._evaluator(index, index + 1)

    @property
    def failure(self) -> Failure | None:
        """Why it failed, if it did."""
        return next((f for f in self.records.failures if f.index == self.index), None)

    @property
    def theta(self) -> np.ndarray:
        """The proposal, (d,), and behind it, where models are several, its model."""
        return self._block.theta[self._row]

    @property
    def _row(self) -> int:
        return self.index - self._block.first

    def status(self) -> str:
        """What became of it."""
        status = self.records.status[0]
        if status == Status.FAILED:
            return "failed"
        if status == Status.OUTSIDE:
            return "outside the prior's support: rejected without a simulation"
        if status == Status.REJECTED:
            return "rejected early: the simulator returned None"
        accept, uniform = self.order.acceptor.accept, Uniforms(self.order.key)
        return "accepted" if accept(self.records.rows, self.order.epsilon, uniform)[0] else "rejected"

    def described(self, stored: Population | None) -> str:
        """All about it, floats to the last bit; with a comparison if it is in a stored population."""
        theta = ", ".join(f"{name}={x!r}" for name, x in self.problem.named(self.theta).items())
        values = {
            "evaluation": f"{self.order.level}:{self.index}",
            "epsilon": _exactly(self.order.epsilon),
            "theta": theta,
            "status": self.status(),
        }
        is_measured = len(self.records.rows) > 0
        is_kept = is_measured and self.records.rows.summaries.size > 0
        if is_measured:
            values["distance"] = _exactly(self.records.rows.distances[0])
        if self.records.status[0] != Status.OUTSIDE:
            values["seconds"] = f"{self.records.seconds:.3g}"
        if stored is not None and self.index >= stored.first + stored.evaluations:
            values["stored"] = f"no: the population was complete after {stored.evaluations} evaluations"
        if stored is not None and self.index in stored.ids:
            values["stored"] = "equal, bit for bit" if self._equals(stored) else "another result"
        return pairs(values) + (f"\n\n{table(self._summaries(stored))}" if is_kept else "")

    def _equals(self, stored: Population) -> bool:
        row = np.flatnonzero(stored.ids == self.index)
        distances = [] if self.order.is_batch else ["distances"]  # which are measured again after it
        names = ["model", "theta", *distances, *(["summaries"] if stored.summaries.size else [])]
        pairs = ((getattr(self.records.rows, n), getattr(stored, n)[row]) for n in names)
        return all(np.array_equal(mine, theirs, equal_nan=True) for mine, theirs in pairs)

    def _summaries(self, stored: Population | None) -> list[list[str]]:
        """Simulated and observed summaries by label, and those stored if they are there."""
        labels, observed = self.problem.structure.labels(), self.problem.observed_row
        columns = {"simulated": self.records.rows.summaries[0], "observed": observed}
        if stored is not None and stored.summaries.size and self.index in stored.ids:
            columns["stored"] = stored.summaries[stored.ids == self.index][0]
        cells = ([repr(value) for value in column.tolist()] for column in columns.values())
        rows = zip(labels, *cells, strict=True)
        return [["summary", *columns], *map(list, rows)]

    def debug(self) -> None:
        """Simulate and measure once more, with the debugger where that raises."""
        try:
            with guard.at_work(self._evaluator), being(None, ALONE):
                self._simulate()
        except (Exception, SystemExit) as error:
            pdb.post_mortem(users_part(error) or error.__traceback__)
        else:
            say("nothing is raised: write breakpoint() into the simulator, and replay it again")

    def _simulate(self) -> None:
        """The user's functions as the evaluator calls them."""
        problem = self.problem
        simulator = self._evaluator.simulator
        model = int(simulator.models_of(self._block, np.array([self._row]))[0])
        rows = simulator.rows_of_call(self._block, model) if problem.vectorized else self._row
        data, of = simulator.simulated(self._block, rows)
        summary = None if data is None else simulator.summarised(data, of)
        if data is not None and not problem.vectorized and callable(problem.distance):
            takes_theta = getattr(problem.distance, "takes_theta", False)  # where there is one model
            more = [layout_of(problem.prior).row(self.theta.tolist())] if takes_theta else []
            problem.distance(data if problem.is_raw else summary, protected(problem.observed)(), *more)


def _exactly(value: Any) -> str:
    """A number, or several, to the last bit."""
    return ", ".join(map(repr, np.ravel(np.asarray(value, np.float64)).tolist()))
