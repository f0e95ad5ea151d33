"""A script whose observed data are drawn without a seed: another problem on every rank."""

import sys

import numpy as np

import mpiabc
from tests import problems

if __name__ == "__main__":
    problem = problems.problem(observed=np.random.default_rng().standard_normal())
    mpiabc.ABCSMC(problem, 50, seed=1).run(sys.argv[1], generations=2)
