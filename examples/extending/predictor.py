"""A predictor of one's own: a quadratic regression of the parameters on the statistics.

A predictor has `fit(theta, summaries)`, rows (n, d) and (n, k), and `predict(summaries)`, which gives (n, d):
what `Predicted` compares in the place of statistics. It is fitted after each generation to its first
simulations, accepted or not; what it learns must depend on nothing else.
"""

import numpy as np

import mpiabc


class Quadratic:
    """Least squares on statistics and their squares."""

    def fit(self, theta, summaries):
        self.coefficients, *_ = np.linalg.lstsq(self._features(summaries), theta, rcond=None)

    def predict(self, summaries):
        return self._features(summaries) @ self.coefficients

    def _features(self, summaries):
        return np.column_stack([np.ones(len(summaries)), summaries, summaries**2])


def simulate(theta, rng):
    sample = rng.normal(theta["mean"], theta["sd"], 30)
    return {"mean": sample.mean(), "sd": sample.std(), "noise": rng.standard_normal(5)}


problem = mpiabc.Problem(
    mpiabc.Prior(mean=mpiabc.Uniform(-3, 3), sd=mpiabc.Uniform(0.1, 3)),
    simulate,
    {"mean": 1.0, "sd": 0.7, "noise": np.zeros(5)},
    distance=mpiabc.Predicted(Quadratic(), mpiabc.PNorm(scale="mad")),
)
abc = mpiabc.ABCSMC(problem, 200, seed=1)

if __name__ == "__main__":
    history = abc.run("predictor.db", generations=4)
    if history is not None:
        print(history[-1].mean(), history[-1].std())
