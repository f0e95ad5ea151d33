"""Which epidemic was it? Two models of the influenza in an English boarding school, 1978.

    mpirun -n 2 python examples/model_selection.py

The data are those of examples/influenza.py: how many of 763 boys were in bed on each of 14 days. In SIR a boy
is infectious as long as he is in bed. In SIBC he is infectious first, up and about, for 1 / gamma days, and
then put to bed, where he meets nobody, until after another 1 / delta days he is convalescent. A day is ten
steps of a binomial chain. The simulators take 256 parameters at once.
"""

import argparse
import logging

import numpy as np

import mpiabc

BOYS = 763
IN_BED = np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4])
STEPS = 10  # a day


def leaving(rate):
    """The probability of leaving within one step."""
    return -np.expm1(-rate / STEPS)


def sir(theta, rng):
    """Boys in bed on each day, (n, 14): those who are infectious."""
    infectious = np.minimum(BOYS, 1 + rng.poisson(theta["seeds"]))
    susceptible = BOYS - infectious
    days = []
    for _ in IN_BED:
        for _ in range(STEPS):
            infected = rng.binomial(susceptible, leaving(theta["beta"] * infectious / BOYS))
            recovered = rng.binomial(infectious, leaving(theta["gamma"]))
            susceptible = susceptible - infected
            infectious = infectious + infected - recovered
        days.append(infectious)
    return np.stack(days, axis=1)


def sibc(theta, rng):
    """Boys in bed on each day, (n, 14), none of whom infects others any more."""
    infectious = np.minimum(BOYS, 1 + rng.poisson(theta["seeds"]))
    susceptible, in_bed = BOYS - infectious, 0 * infectious
    days = []
    for _ in IN_BED:
        for _ in range(STEPS):
            infected = rng.binomial(susceptible, leaving(theta["beta"] * infectious / BOYS))
            put_to_bed = rng.binomial(infectious, leaving(theta["gamma"]))
            convalescent = rng.binomial(in_bed, leaving(theta["delta"]))
            susceptible = susceptible - infected
            infectious = infectious + infected - put_to_bed
            in_bed = in_bed + put_to_bed - convalescent
        days.append(in_bed)
    return np.stack(days, axis=1)


RATES = {"beta": mpiabc.LogUniform(0.2, 10), "gamma": mpiabc.LogUniform(0.05, 5)}
SEEDS = {"seeds": mpiabc.Uniform(0, 10)}


def problem(simulate, **prior):
    """One of the models. Days on which simulations differ much count less: their scale is fitted anew."""
    distance = mpiabc.PNorm(scale="pcmad")
    return mpiabc.Problem(mpiabc.Prior(**prior), simulate, IN_BED, distance=distance, vectorized=True)


problems = [
    problem(sir, **RATES, **SEEDS),
    problem(sibc, **RATES, delta=mpiabc.LogUniform(0.05, 5), **SEEDS),
]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--population", type=int, default=1000)
    arguments.add_argument("--acceptance-rate", type=float, default=0.02, help="stop below this")
    arguments.add_argument("--scheduler", default="auto")
    arguments.add_argument("--store", default="model_selection.db")
    options = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    abc = mpiabc.ABCSMC(problems, options.population, model_prior=[0.5, 0.5], seed=1978)
    history = abc.run(
        options.store,
        acceptance_rate=options.acceptance_rate,
        models=1,
        scheduler=options.scheduler,
        overwrite=True,
    )
    if history is not None:
        report(history)


def report(history):
    """Print how probable the models were from generation to generation, and what is left of them."""
    print(f"\n{'epsilon':>8}{'P(SIR)':>9}{'P(SIBC)':>9}   log10 Bayes factor, SIBC to SIR")
    for population in history:
        shares = population.model_probabilities()
        log, error = np.divide(population.bayes_factor("sibc", "sir"), np.log(10))
        print(f"{population.epsilon:8.2f}{shares[0]:9.3f}{shares[1]:9.3f}   {log:.2f} +- {error:.2f}")
    last = history[-1]
    for model in problems:
        if last.model_probabilities()[problems.index(model)]:
            part = last.of(model)
            low, middle, high = part.quantile([0.025, 0.5, 0.975])
            print(f"\n{model.name}, {len(part)} particles: median, and 95 % credible interval")
            for i, name in enumerate(part.names):
                print(f"{name:>8}{middle[i]:8.2f}   {low[i]:.2f} to {high[i]:.2f}")
    print(f"\nreason {history.reason}, digest {last.digest()}")


if __name__ == "__main__":
    main()
