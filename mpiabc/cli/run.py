"""`mpiabc run`: start a run, or continue it."""

import argparse
import logging
from typing import Any

from mpiabc.cli.command import COMMANDS, InYamlError, add_command
from mpiabc.cli.files import load_problem, store_of, texts_of
from mpiabc.cli.settings import OF_SAMPLER, SETTINGS, read_settings
from mpiabc.cli.words import UnsaidError, pairs, say, table
from mpiabc.errors import ProblemError
from mpiabc.population import Population, short
from mpiabc.schedulers import MPI, Processes, resolve
from mpiabc.schedulers.base import count
from mpiabc.smc import ABCSMC
from mpiabc.store import History

_log = logging.getLogger(__name__)


def add(commands: Any) -> None:
    """Add the command to the parser."""
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
    parser = add_command(commands, "run", _run, COMMANDS["run"], example)
    parser.add_argument(
        "file",
        metavar="FILE[:problem]",
        help="a Python file that defines a Problem, or a list of them, models of the same data, with its "
        "name if there are several; or a YAML file",
    )
    for name, (_, metavar, help) in SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        if metavar:
            parser.add_argument(option, metavar=metavar, help=help)
        else:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, help=help)


def _run(options: argparse.Namespace) -> int:
    """Start or continue a run; the rank that leads prints what came out."""
    given = {name: getattr(options, name) for name in SETTINGS}
    texts = texts_of(options.file)
    target = texts.pop("problem")
    try:
        settings = read_settings({name: text for name, text in texts.items() if given[name] is None})
    except ProblemError as error:
        raise InYamlError(str(error)) from None
    settings |= read_settings(given)
    problem = load_problem(target)
    if "population_size" not in settings:
        raise ProblemError("the population size is missing: give --population-size N")
    sampler = {name: settings.pop(name) for name in OF_SAMPLER if name in settings}
    store = settings.pop("store", store_of(options.file))
    if "renew" in settings:
        settings["scheduler"] = _renewing(settings.get("scheduler", "auto"), settings.pop("renew"))
    if "team" in settings:
        settings["scheduler"] = _teamed(settings.get("scheduler", "auto"), settings.pop("team"))
    history = ABCSMC(problem, **sampler).run(store, **settings)
    if history is not None:
        try:
            say(_outcome(history))
        except UnsaidError as error:  # no failure of the run
            _log.warning("%s: the run is done, but %s", history.path, error)
    return 0


def _renewing(scheduler: str, renew: int) -> Processes:
    """The scheduler of this name, which replaces its processes. Raises an Error if it cannot."""
    place = resolve(scheduler)
    if not isinstance(place, Processes):
        raise ProblemError(
            f"--renew {renew} with {place}, which simulates in processes that are not its own to replace: "
            "give --scheduler processes, or, for Redis workers, mpiabc worker --renew"
        )
    place.renew = count(renew, f"--renew {renew}")
    return place


def _teamed(scheduler: Any, size: int) -> MPI:
    """The scheduler of this name with teams of ranks. Raises an Error if it has no ranks."""
    place = resolve(scheduler)
    if not isinstance(place, MPI):
        raise ProblemError(f"--team {size} with {place}: only ranks make up teams, give --scheduler mpi")
    place.team = count(size, f"--team {size}")
    return place


def _outcome(history: History) -> str:
    """The last population and how the run ended, in words."""
    if not len(history):
        return f"no generation was completed; reason: {history.reason}"
    last = history[-1]
    ending = ({"models": last.named_models} if last.models else {}) | {
        "generations": str(len(history)),
        "epsilon": short(last.epsilon),
        "ess": f"{last.ess:.1f}",
        "reason": str(history.reason),
        "digest": last.digest(),
    }
    parts = {last.models[m].name: part for m, part in enumerate(last.each()) if part is not None}
    tables = "\n\n".join(table(_parameters(part, name)) for name, part in (parts or {"": last}).items())
    return f"{tables}\n\n{pairs(ending)}"


def _parameters(population: Population, model: str) -> list[list[str]]:
    """A row for each parameter: mean, std and quantiles; `model`: whose they are, if there are several."""
    columns = [population.mean(), population.std(), *population.quantile([0.025, 0.5, 0.975])]
    heads = [f"parameter of {model}" if model else "parameter", "mean", "std", "2.5%", "50%", "97.5%"]
    return [heads] + [
        [name, *(f"{column[i]:.6g}" for column in columns)] for i, name in enumerate(population.names)
    ]
