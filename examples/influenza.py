"""Influenza in an English boarding school, 1978: a stochastic SIR model fitted to the boys in bed.

    mpirun -n 2 python examples/influenza.py

763 boys; one came back ill from the holidays (British Medical Journal, 4 March 1978, p. 587). Unknown
are the transmission rate beta, the recovery rate gamma, both per day, and how many were infectious on
the day before the first count. A day is ten steps of a binomial chain: in each, every susceptible boy
is infected with probability 1 - exp(-beta I / N dt), every infectious one recovers with 1 - exp(-gamma dt).
"""

import argparse
import logging
import math

import numpy as np

import mpiabc

BOYS = 763
IN_BED = np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4])
STEPS = 10  # a day


def epidemic(theta, rng):
    """Boys in bed on each day, (14,)."""
    infectious = min(BOYS, 1 + rng.poisson(theta["seeds"]))
    susceptible = BOYS - infectious
    force = theta["beta"] / BOYS / STEPS
    recovery = -math.expm1(-theta["gamma"] / STEPS)
    in_bed = np.empty(len(IN_BED))
    for day in range(len(IN_BED)):
        for _ in range(STEPS):
            infected = rng.binomial(susceptible, -math.expm1(-force * infectious))
            recovered = rng.binomial(infectious, recovery)
            susceptible -= infected
            infectious += infected - recovered
            if not infectious:
                in_bed[day:] = 0
                return in_bed
        in_bed[day] = infectious
    return in_bed


problem = mpiabc.Problem(
    prior=mpiabc.Prior(
        beta=mpiabc.LogUniform(0.2, 10), gamma=mpiabc.LogUniform(0.05, 5), seeds=mpiabc.Uniform(0, 10)
    ),
    simulate=epidemic,
    summarize=np.sqrt,  # the spread of a count grows with its mean, that of its root does not
    observed=np.sqrt(IN_BED),
    name="influenza",
)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--population", type=int, default=1000)
    arguments.add_argument("--acceptance-rate", type=float, default=0.02, help="stop below this")
    arguments.add_argument("--scheduler", default="auto")
    arguments.add_argument("--store", default="influenza.db")
    arguments.add_argument("--picture", default="influenza.png")
    options = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    abc = mpiabc.ABCSMC(problem, options.population, threshold=mpiabc.Quantile(0.5), seed=1978)
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
    posterior = history[-1]
    rng = np.random.default_rng(1978)
    draws = posterior.resample(1000, rng)
    r0 = draws[:, 0] / draws[:, 1]
    lines = {"R0 = beta / gamma": r0, "days infectious, 1 / gamma": 1 / draws[:, 1]}
    lines |= {name: draws[:, i] for i, name in enumerate(posterior.names)}
    print(f"\n{len(history)} generations, {sum(p.simulations for p in history)} simulations; {posterior!r}\n")
    print(f"{'posterior':<28}{'median':>8}   95 % credible interval")
    for name, values in lines.items():
        low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
        print(f"{name:<28}{middle:8.2f}   {low:.2f} to {high:.2f}")

    simulated = [epidemic(dict(zip(posterior.names, theta, strict=True)), rng) for theta in draws]
    low, middle, high = np.quantile(simulated, [0.025, 0.5, 0.975], axis=0)
    print(f"\n{'day':>3}{'in bed':>8}{'predicted':>11}   95 % of predictions")
    for day, row in enumerate(zip(IN_BED, middle, low, high, strict=True), 1):
        print("{:3}{:8}{:11.0f}   {:.0f} to {:.0f}".format(day, *row))
    print(f"\ndigest {posterior.digest()}")
    draw(picture, low, middle, high)


def draw(picture, low, middle, high):
    """Data against the posterior predictive, as a PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: install `mpiabc[plot]` for one")
        return
    days = np.arange(1, len(IN_BED) + 1)
    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    axes.fill_between(days, low, high, color="tab:blue", alpha=0.25, label="95 % of predictions")
    axes.plot(days, middle, color="tab:blue", label="median prediction")
    axes.plot(days, IN_BED, "ko", label="boys in bed, 1978")
    axes.set(xlabel="day", ylabel="boys in bed", title="Influenza in a boarding school")
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=150)
    print(f"picture in {picture}")


if __name__ == "__main__":
    main()
