"""Parts of a user's own: what a kernel, a threshold, a distance of rows take from outside."""

import numpy as np


class Student:
    """A kernel with heavy tails, of a covariance that goes by way of BLAS."""

    def fit(self, population):
        return StudentMixture(population.theta, population.weights)


class StudentMixture:
    def __init__(self, centres, weights):
        self.centres, self.weights = centres, weights
        self.factor = np.linalg.cholesky(np.atleast_2d(np.cov(centres.T)))

    def sample(self, n, rng):
        parents = rng.choice(len(self.weights), n, p=self.weights)
        return self.centres[parents] + rng.standard_t(5, (n, len(self.factor))) @ self.factor.T

    def logpdf(self, theta):
        z = (theta[:, None] - self.centres) @ np.linalg.inv(self.factor).T
        return np.log(np.exp(-3 * np.log1p(z**2 / 5).sum(axis=2)) @ self.weights)


class Sharper:
    """A threshold: the median of the last distances."""

    def epsilon(self, generation, previous):
        return np.inf if previous is None else float(np.median(previous.distances))


class Mahalanobis:
    """A distance of rows, by way of BLAS as well."""

    def rows(self, simulated, observed):
        factor = np.eye(simulated.shape[1]) + 0.5
        return np.sqrt(np.square((simulated - observed) @ factor).sum(axis=1))


class LeastSquares:
    """theta as a linear function of the statistics."""

    def fit(self, theta, summaries):
        ones = np.ones((len(summaries), 1))
        self.coefficients = np.linalg.lstsq(np.hstack([ones, summaries]), theta, rcond=None)[0]

    def predict(self, summaries):
        return self.coefficients[0] + summaries @ self.coefficients[1:]
