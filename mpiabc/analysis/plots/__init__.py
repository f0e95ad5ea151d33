"""Pictures of a run, with matplotlib (`mpiabc[plot]`): each takes a History, most a Population, too.

    history = mpiabc.open("fit.db")
    mpiabc.plots.pairs(history, reference={"mu": 1.0}).savefig("pairs.png")

What is one picture of several axes takes `fig=`, and returns the Figure; the others take `ax=`, and return
the Axes. Without it a new figure of pyplot's is made.
"""

from mpiabc.analysis.plots.course import convergence, models, scales, workers
from mpiabc.analysis.plots.data import predictive
from mpiabc.analysis.plots.parameters import intervals, marginals, pairs

__all__ = ["convergence", "intervals", "marginals", "models", "pairs", "predictive", "scales", "workers"]
