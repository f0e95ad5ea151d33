"""Influenza in an English boarding school, 1978: a stochastic epidemic fitted to two counts of 763 boys.

    mpirun -n 2 python examples/influenza.py

On 22 January 3 boys were in bed; two weeks later 512 had been ill (British Medical Journal, 4 March 1978,
p. 587). A plain SIR model, in which boys in bed are those who infect others, misses this outbreak (Avilov et
al. 2024, Journal of the Royal Society Interface 21). Here a boy is susceptible, then infectious and up and
about, then in bed, where he meets nobody, then convalescent, which was counted, too, and then well again.
None of these times is exponential: each is a chain of stages. A day is four steps of a binomial chain, which
begins at the first count. The simulator takes 256 parameters at once.
"""

import argparse
import logging

import numpy as np

import mpiabc

BOYS, ILL = 763, 512
COUNTS = {
    "in bed": np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4]),
    "convalescent": np.array([0, 0, 0, 0, 9, 17, 105, 162, 176, 166, 150, 85, 47, 20]),
}
LATER = {name: counts[1:] for name, counts in COUNTS.items()}  # the first day is where a simulation starts
DAYS = np.arange(2, 15)
STEPS = 4  # a day
TITLE = (
    "Influenza in an English boarding school, 1978: counts, what the fitted model predicts, its parameters"
)
STAGES = {"days infectious": 2, "days in bed": 6, "days convalescent": 3}
INFECTIOUS, IN_BED, CONVALESCENT = slice(1, 3), slice(3, 9), slice(9, 12)  # columns of `boys`; 0: susceptible


def outbreak(theta, rng):
    """Boys in bed, and convalescent, from the second day on (n, 13); and how many have been ill (n,)."""
    infects = theta["R0"] / theta["days infectious"] / theta["susceptible"]  # a day and susceptible boy
    leaves = [np.repeat(k / theta[name][:, None], k, axis=1) for name, k in STAGES.items()]
    leaves = -np.expm1(-np.concatenate(leaves, axis=1) / STEPS)  # (n, 11), probabilities of a step
    boys = np.zeros((len(infects), 13), dtype=int)
    boys[:, 0], boys[:, 1], boys[:, 3] = theta["susceptible"], theta["infectious at first"], 3
    days = []
    for _ in DAYS:
        for _ in range(STEPS):
            caught = -np.expm1(-infects * boys[:, INFECTIOUS].sum(axis=1) / STEPS)
            moved = rng.binomial(boys[:, :-1], np.column_stack([caught, leaves]))
            boys[:, :-1] -= moved
            boys[:, 1:] += moved
        days.append([boys[:, IN_BED].sum(axis=1), boys[:, CONVALESCENT].sum(axis=1)])
    in_bed, convalescent = np.stack(days, axis=2)
    return {"in bed": in_bed, "convalescent": convalescent, "ill": boys[:, 1:].sum(axis=1)}


def roots(data):
    """The spread of a count grows with its mean, that of its root does not."""
    return {name: np.sqrt(data[name]) for name in COUNTS}


problem = mpiabc.Problem(
    prior=mpiabc.Prior(
        {
            "R0": mpiabc.LogUniform(1, 20),
            "days infectious": mpiabc.LogUniform(0.2, 5),
            "days in bed": mpiabc.LogUniform(1, 6),
            "days convalescent": mpiabc.LogUniform(0.5, 5),
            "susceptible": mpiabc.Integer(400, 700),
            "infectious at first": mpiabc.Integer(1, 60),
        }
    ),
    simulate=outbreak,
    summarize=roots,
    observed=roots(LATER),
    vectorized=True,
    name="influenza",
)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--population", type=int, default=1000)
    arguments.add_argument("--acceptance-rate", type=float, default=0.01, help="stop below this")
    arguments.add_argument("--scheduler", default="auto")
    arguments.add_argument("--store", default="influenza.db")
    arguments.add_argument("--picture", default="influenza.png")
    options = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    abc = mpiabc.ABCSMC(problem, options.population, recycle=True, seed=1978)
    history = abc.run(
        options.store,
        acceptance_rate=options.acceptance_rate,
        scheduler=options.scheduler,
        overwrite=True,
    )
    if history is not None:
        report(history, options.picture)


def report(history, picture):
    """Print what was learnt, and draw it where matplotlib is installed."""
    population = history[-1]
    predicted = history.predict(
        1000, problem=problem, scheduler="serial", raw=True
    )  # counts, not their roots
    print(
        f"\n{len(history)} generations, {sum(p.simulations for p in history)} simulations; {population!r}\n"
    )
    print(f"{'posterior':<24}{'median':>8}   90 % credible interval")
    for name, (low, middle, high) in zip(
        population.names, population.quantile([0.05, 0.5, 0.95]).T, strict=True
    ):
        print(f"{name:<24}{middle:8.2f}   {low:.2f} to {high:.2f}")
    bands = {name: np.quantile(predicted[name], [0.05, 0.5, 0.95], axis=0) for name in predicted}
    for name, counts in LATER.items():
        print(f"\n{'day':>3}{name:>14}{'predicted':>11}   90 % of predictions")
        for day, count, (low, middle, high) in zip(DAYS, counts, bands[name].T, strict=True):
            print(f"{day:3}{count:14}{middle:11.0f}   {low:.0f} to {high:.0f}")
    low, middle, high = bands["ill"]
    print(f"\nill in all, which was not fitted: {ILL}; predicted {middle:.0f}, 90 % {low:.0f} to {high:.0f}")
    print(f"\ndigest {population.digest()}")
    draw(history, predicted, picture)


def draw(history, predicted, picture):
    """The data over what the model predicts, beside the parameters."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no picture: install `mpiabc[plot]` for one")
        return
    with plt.rc_context({"svg.hashsalt": "mpiabc", "svg.fonttype": "none"}):
        figure = plt.figure(figsize=(12, 7.4), layout="constrained")
        figure.suptitle(TITLE)
        left, right = figure.subfigures(1, 2, width_ratios=[1, 1.6])
        for name, part in zip(COUNTS, left.subfigures(2, 1), strict=True):
            mpiabc.plots.predictive(predicted, name, observed=LATER, x=DAYS, fig=part)
            part.axes[0].set(xlabel="day of the outbreak", ylabel=f"boys {name}", xticks=DAYS[::2])
        mpiabc.plots.pairs(history, history[-1].names[:5], fig=right)
        figure.savefig(picture, dpi=100, metadata={"Date": None} if str(picture).endswith(".svg") else None)
    print(f"picture in {picture}")


if __name__ == "__main__":
    main()
