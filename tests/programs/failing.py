"""A simulator that goes wrong in evaluation 0:137, in the way and under the policy given."""

import os
import sys
import time

import numpy as np

import mpiabc

HOW, SCHEDULER, ON_ERROR, STORE = sys.argv[1:5]


def simulate(theta, rng, *, id):
    time.sleep(0.001)
    if id.index == 137:
        if HOW == "exception":
            raise RuntimeError("the pump broke")
        if HOW == "SystemExit":
            sys.exit(0)
        if HOW == "os._exit":
            os._exit(0)
        if HOW == "nan":
            return {"y": float("nan")}
        if HOW == "shape":
            return {"y": np.zeros(3)}
        if HOW == "hang":
            time.sleep(1000)
    if HOW == "hang elsewhere" and id.index > 137:
        time.sleep(1000)
    if HOW == "hang elsewhere" and id.index == 130:
        raise RuntimeError("the pump broke")
    return {"y": theta["mu"] + rng.standard_normal()}


if __name__ == "__main__":
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Uniform(-10, 10)),
        simulate,
        {"y": 0.0},
        on_error=int(ON_ERROR) if ON_ERROR.isdigit() else ON_ERROR,
    )
    abc = mpiabc.ABCSMC(problem, 200, threshold=mpiabc.Listed([4, 2]), seed=1)
    history = abc.run(STORE, scheduler=SCHEDULER)
    if history is not None:
        print("DONE", history[-1].digest(), [f"{f.generation}:{f.index}" for f in history.failures])
