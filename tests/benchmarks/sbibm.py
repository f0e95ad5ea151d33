"""Posteriors beside references: the tasks of sbibm (Lueckmann et al. 2021), at equal budgets of simulations.

    pip download --no-deps sbibm          # observations and reference posteriors; it is not installed
    python -m tests.benchmarks.sbibm --sbibm sbibm-1.1.0-py2.py3-none-any.whl
        [--tasks two_moons,sir] [--budgets 10000,100000] [--observations 1,2,3 | --all] [--seeds 1]
        [--methods population,posterior,all,amis] [--population N] [--folds 5] [--results FILE] [--table]

SBIBM in the environment names the wheel, or the folder where it is unpacked, too. The table shows C2ST as
published (.5 perfect, 1 useless): 10 000 draws against 10 000 of the reference, z-scored by it, five folds,
two layers of 10 d units, to convergence. It is made of the results file (csv), to which each cell is added
once; what is there is not computed again, `--table` computes nothing. A cell of two parameters takes a
minute of a core, of ten some minutes: `--folds 1` is for a look (4000 draws are distinguished: an error of
.008). The published columns are sbi-benchmark/results' main_paper.csv on the same observations (MIT licence),
of gaussian_mixture its rerun, as 1.1.0 has mended that task. There, as here, populations are smoothed by a
kernel of cross-validated width: draws that are many times the same particle are distinguished at once.
"""

import argparse
import bz2
import csv
import math
import os
import sys
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

import mpiabc
from tests.benchmarks.sbibm_tasks import TASKS

DRAWS = 10_000
SIZES = {10_000: 200, 100_000: 1000}  # particles of ABC-SMC; AMIS has its own default
OURS = {
    "population": "the last population alone, smoothed",
    "posterior": "history.posterior() of a plain run",
    "all": 'the same of a run with keep="all"',
    "amis": "history.posterior() of ABCAMIS, with fitted scales where units differ",
    "amis-plain": "the same with the Euclidean distance",
    "recycled": "history.posterior() of a run with recycle=True",
    "recycled-population": "its last population alone, smoothed",
    "pyabc": "pyABC 0.13, the same population size and thresholds",
}
PEERED = ("two_moons", "gaussian_linear")  # the tasks that pyABC does by default
PUBLISHED = ("SMC-ABC", "REJ-ABC", "SNPE")
BAR = {  # what is aimed at, each within .05
    ("two_moons", 10_000): 0.607,
    ("gaussian_mixture", 10_000): 0.559,
    ("sir", 10_000): 0.552,
    ("two_moons", 100_000): 0.501,
    ("gaussian_linear", 100_000): 0.515,
    ("gaussian_linear_uniform", 100_000): 0.57,  # below .62
}


@dataclass(frozen=True)
class Cell:
    """What is computed once."""

    task: str
    budget: int
    observation: int
    seed: int
    method: str


@dataclass(frozen=True)
class Result(Cell):
    """A cell, and what came of it."""

    c2st: float
    said: str = ""  # how the posterior was made, in its own words
    simulations: int = 0
    ess: float = math.nan
    seconds: float = math.nan
    folds: int = 5

    @property
    def cell(self) -> Cell:
        """What it is the result of."""
        return Cell(*(getattr(self, field.name) for field in fields(Cell)))


class Files:
    """What sbibm keeps of a task, in its wheel or in a folder."""

    def __init__(self, place):
        self.place = Path(place)
        if not self.place.exists():
            sys.exit(f"{place} is not there: `pip download --no-deps sbibm`, and name the wheel by --sbibm")

    def read(self, path) -> bytes:
        """One file."""
        if self.place.is_dir():
            return (self.place / path).read_bytes()
        with zipfile.ZipFile(self.place) as wheel:
            return wheel.read(path)

    def observed(self, task, number):
        """An observation, (k,)."""
        return table_of(self.read(f"{task.path}/num_observation_{number}/{task.observation}.csv"))[0]

    def reference(self, task, number):
        """Draws of its posterior, (10 000, d)."""
        path = f"{task.path}/num_observation_{number}/reference_posterior_samples.csv.bz2"
        return table_of(bz2.decompress(self.read(path)))


def table_of(text) -> np.ndarray:
    """The numbers below the first line, (n, columns)."""
    return np.loadtxt(text.decode().splitlines(), delimiter=",", skiprows=1, ndmin=2)


def c2st(reference, draws, folds=5, seed=1) -> float:
    """How often a classifier can tell them apart, as sbibm 1.1.0 computes it; by fewer of its five folds."""
    from sklearn.model_selection import KFold
    from sklearn.neural_network import MLPClassifier

    mean, sd = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    data = np.concatenate([(reference - mean) / sd, (draws - mean) / sd]).astype(np.float32)
    units = 10 * data.shape[1]
    classifier = MLPClassifier((units, units), max_iter=10_000, random_state=seed)
    labels = np.repeat([0.0, 1.0], [len(reference), len(draws)])
    splits = list(KFold(5, shuffle=True, random_state=seed).split(data))[:folds]
    return float(np.mean([classifier.fit(data[a], labels[a]).score(data[b], labels[b]) for a, b in splits]))


@dataclass(frozen=True)
class Setting:
    """What a method is given."""

    task: object
    observed: np.ndarray
    budget: int
    seed: int
    population: int | None
    folder: Path

    @property
    def n(self) -> int:
        """Particles of ABC-SMC."""
        return self.population or SIZES.get(self.budget, 200)

    def smc(self, **options):
        """The history of an ABC-SMC run that ends with the budget."""
        abc = mpiabc.ABCSMC(self.task.problem(self.observed), self.n, seed=self.seed, **options)
        return self.ran(abc, simulations=self.budget)

    def amis(self, **options):
        """The history of a run of ABCAMIS with the budget."""
        return self.ran(
            mpiabc.ABCAMIS(self.task.problem(self.observed, **options), self.budget, seed=self.seed)
        )

    def ran(self, abc, **stops):
        """The history of a run of the sampler, in this process."""
        return abc.run(self.folder / "run.db", scheduler="serial", progress=False, overwrite=True, **stops)


def histories(setting, method):
    """The history that a method looks at."""
    if method.startswith("recycled"):
        return setting.smc(recycle=True)
    if method == "amis-plain":
        return setting.amis(distance=mpiabc.PNorm(scale=np.ones(len(setting.observed))))
    if method == "amis":
        return setting.amis()
    return setting.smc(keep="all") if method == "all" else setting.smc()


def drawn(setting, method, rng):
    """10 000 draws, how the posterior was made, simulations, effective sample size."""
    if method == "pyabc":
        return peer(setting, rng)
    history = histories(setting, method)
    simulations = sum(population.simulations for population in history)
    last = history[-1]
    if method.endswith("population"):
        draws = smoothed(last.theta, last.weights, setting.task.prior(), rng)
        return draws, f"{len(history)} generations", simulations, last.ess
    posterior = history.posterior()
    return np.asarray(posterior.sample(DRAWS, rng)), str(posterior.method), simulations, last.ess


def smoothed(theta, weights, prior, rng):
    """Draws of a kernel estimate inside the support, of the width that held-out particles like best."""
    from scipy import stats

    fold = np.arange(len(theta)) % 5

    def score(width):
        total = 0.0
        for out in (fold == k for k in range(5)):
            kernel = stats.gaussian_kde(theta[~out].T, width, weights[~out])
            total += weights[out] @ np.maximum(kernel.logpdf(theta[out].T), -1e3)
        return total

    kernel = stats.gaussian_kde(theta.T, max(np.geomspace(0.02, 1, 15).tolist(), key=score), weights)
    draws = np.empty((0, theta.shape[1]))
    while len(draws) < DRAWS:
        more = kernel.resample(DRAWS, rng).T
        draws = np.concatenate([draws, more[np.isfinite(prior.logpdf(more))]])
    return draws[:DRAWS]


def peer(setting, rng):
    """The same of pyABC 0.13: its last population, smoothed."""
    import logging

    import pyabc

    logging.getLogger("ABC").setLevel("ERROR")
    np.random.seed(setting.seed)
    task, generator = setting.task, np.random.default_rng(setting.seed)
    prior = pyabc.Distribution(**{name: _marginal(task.marginal(i)) for i, name in enumerate(task.names)})

    def model(parameter):
        theta = np.array([[parameter[name] for name in task.names]])
        return {"y": task.simulator(theta, generator)[0]}

    abc = pyabc.ABCSMC(
        model,
        prior,
        pyabc.PNormDistance(p=2),
        population_size=setting.n,
        eps=pyabc.MedianEpsilon(),
        sampler=pyabc.SingleCoreSampler(),
    )
    abc.new(f"sqlite:///{setting.folder / 'pyabc.db'}", {"y": setting.observed})
    history = abc.run(max_total_nr_simulations=setting.budget)
    frame, weights = history.get_distribution()
    theta, weights = frame[list(task.names)].to_numpy(), weights / weights.sum()
    said = f"{history.max_t + 1} generations"
    draws = smoothed(theta, weights, task.prior(), rng)
    return draws, said, history.total_nr_simulations, 1 / np.square(weights).sum()


def _marginal(ours):
    """A marginal of ours as pyABC takes it."""
    import pyabc

    if isinstance(ours, mpiabc.Uniform):
        return pyabc.RV("uniform", ours.low, ours.high - ours.low)
    if isinstance(ours, mpiabc.LogNormal):
        return pyabc.RV("lognorm", ours.sd, 0, math.exp(ours.mean))
    return pyabc.RV("norm", ours.mean, ours.sd)


def computed(cell, files, options) -> Result:
    """The result of a cell."""
    task = TASKS[cell.task]
    observed, reference = files.observed(task, cell.observation), files.reference(task, cell.observation)
    rng = np.random.default_rng(cell.seed)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        setting = Setting(task, observed, cell.budget, cell.seed, options.population, Path(folder))
        draws, said, simulations, ess = drawn(setting, cell.method, rng)
        seconds = time.perf_counter() - began
    return Result(
        **asdict(cell),
        c2st=round(c2st(reference, draws, options.folds), 4),
        said=said,
        simulations=simulations,
        ess=round(float(ess), 1),
        seconds=round(seconds, 1),
        folds=options.folds,
    )


def remembered(path) -> dict[Cell, Result]:
    """The results in a file; none, if it is not there."""
    if not Path(path).exists():
        return {}
    kinds = {field.name: field.type for field in fields(Result)}
    with open(path, newline="") as file:
        rows = [{name: kinds[name](value) for name, value in row.items()} for row in csv.DictReader(file)]
    return {result.cell: result for result in (Result(**row) for row in rows)}


def remember(path, result):
    """Add a result to the file."""
    is_new = not Path(path).exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)])
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(result))


def published():
    """C2ST that was published, by (task, budget, algorithm, observation)."""
    with open(Path(__file__).with_name("sbibm_published.csv"), newline="") as file:
        return {
            (row["task"], int(row["budget"]), row["algorithm"], number): float(row[str(number)])
            for row in csv.DictReader(file)
            for number in range(1, 11)
        }


def cells(options):
    """The cells that are asked for, the quick ones first."""
    return [
        Cell(task, budget, observation, seed, method)
        for budget in options.budgets
        for observation in options.observations
        for seed in options.seeds
        for task in options.tasks
        for method in options.methods
        if method != "pyabc" or (task in options.pyabc and budget <= options.pyabc_most)
    ]


def show(asked, results):
    """Print the table of means over observations and seeds, of those that are there."""
    others, methods = published(), list(dict.fromkeys(cell.method for cell in asked))
    heads = "".join(f"{head:>{max(12, len(head) + 2)}}" for head in [*methods, *PUBLISHED, "aim"])
    print(f"\n{'C2ST':<26}{'budget':>8}{'obs.':>6}{heads}")
    for task, budget in dict.fromkeys((cell.task, cell.budget) for cell in asked):
        mine = [cell for cell in asked if (cell.task, cell.budget) == (task, budget)]
        done = sorted({cell.observation for cell in mine if cell in results})
        by = {m: [results[c].c2st for c in mine if c.method == m and c in results] for m in methods}
        by |= {name: [others[task, budget, name, o] for o in done if (task, budget, name, o) in others]
               for name in PUBLISHED}  # fmt: skip
        by["aim"] = [BAR[task, budget] + 0.05] if (task, budget) in BAR else []
        values = "".join(f"{_mean(v):>{max(12, len(name) + 2)}}" for name, v in by.items())
        print(f"{task:<26}{budget:>8}{','.join(map(str, done)):>6}{values}")


def _mean(values):
    return f"{np.mean(values):.3f}" + (f" ({len(values)})" if len(values) > 1 else "") if values else ""


def arguments():
    """What the command line asks for."""

    def listed(kind):
        return lambda text: [kind(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sbibm", default=os.environ.get("SBIBM"), help="the wheel, or where it is unpacked")
    parser.add_argument("--tasks", type=listed(str), default=list(TASKS))
    parser.add_argument("--budgets", type=listed(int), default=[10_000, 100_000])
    parser.add_argument("--observations", type=listed(int), default=[1, 2, 3])
    parser.add_argument("--all", action="store_true", help="all ten observations")
    parser.add_argument("--seeds", type=listed(int), default=[1])
    parser.add_argument("--methods", type=listed(str), default=list(OURS))
    parser.add_argument("--population", type=int, help="particles of ABC-SMC")
    parser.add_argument("--folds", type=int, default=5, help="of C2ST's five, how many are computed")
    parser.add_argument("--pyabc", type=listed(str), default=list(PEERED), help="the tasks that pyABC does")
    parser.add_argument("--pyabc-most", type=int, default=10_000, help="and its largest budget")
    parser.add_argument("--results", default="sbibm.csv")
    parser.add_argument("--table", action="store_true", help="compute nothing")
    options = parser.parse_args()
    options.observations = list(range(1, 11)) if options.all else options.observations
    for name, known in [("tasks", TASKS), ("methods", OURS)]:
        if unknown := set(getattr(options, name)) - known.keys():
            parser.error(f"--{name}: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if not (options.sbibm or options.table):
        parser.error("name sbibm's wheel by --sbibm or SBIBM: `pip download --no-deps sbibm`")
    return options


def main():
    """Compute what is missing, and print the table."""
    options = arguments()
    asked, results = cells(options), remembered(options.results)
    for cell in [] if options.table else [cell for cell in asked if cell not in results]:
        result = results[cell] = computed(cell, Files(options.sbibm), options)
        remember(options.results, result)
        print(*asdict(result).values(), flush=True)
    show(asked, results)


if __name__ == "__main__":
    main()
