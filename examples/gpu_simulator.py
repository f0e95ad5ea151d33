"""An epidemic on a GPU, 8192 at once: a stochastic SIR model of 100 steps in JAX, or NumPy where JAX is not.

python examples/gpu_simulator.py                    one process, one GPU (or none)
mpirun -n 4 python examples/gpu_simulator.py mpi    one rank a GPU

Every call has the same number of rows, so that JAX compiles once. Each worker chooses its GPU before JAX is
imported, which therefore happens in the first simulation, and nowhere else.
"""

import os
import sys

import numpy as np

import mpiabc

PEOPLE, STEPS, DT = 10_000, 100, 0.5  # days
BATCH = 8192


def step(state, noise, beta, gamma, xp):
    """Susceptible and infectious people half a day later, by the diffusion limit of the epidemic."""
    susceptible, infectious = state
    infections = beta * susceptible * infectious / PEOPLE * DT
    recoveries = gamma * infectious * DT
    infections = xp.clip(infections + xp.sqrt(infections) * noise[0], 0, susceptible)
    recoveries = xp.clip(recoveries + xp.sqrt(recoveries) * noise[1], 0, infectious)
    return susceptible - infections, infectious + infections - recoveries


def choose_gpu():
    """One GPU for each worker of a node, if there is a choice and nobody has made it."""
    local_rank = mpiabc.worker().local_rank
    if local_rank is not None:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(local_rank))


def jax_here():
    """JAX, on the GPU of this worker; None where it is not installed."""
    if "jax" in sys.modules:
        return sys.modules["jax"]
    choose_gpu()
    state = np.random.get_state()
    try:
        import jax
    except ImportError:
        return None
    np.random.set_state(state)  # from which its import has drawn
    return jax


def with_jax(beta, gamma, key):
    """Infectious people every ten steps, (n, 10)."""
    import jax

    def advance(state, noise):
        state = step(state, noise, beta, gamma, jax.numpy)
        return state, state[1]

    start = jax.numpy.full(beta.shape, PEOPLE - 10.0), jax.numpy.full(beta.shape, 10.0)
    _, infectious = jax.lax.scan(advance, start, jax.random.normal(key, (STEPS, 2, *beta.shape)))
    return infectious[9::10].T


def with_numpy(beta, gamma, rng):
    """The same in NumPy."""
    state, days = (np.full(beta.shape, PEOPLE - 10.0), np.full(beta.shape, 10.0)), []
    for _ in range(STEPS):
        state = step(state, rng.standard_normal((2, *beta.shape)), beta, gamma, np)
        days.append(state[1])
    return np.stack(days[9::10], axis=1)


def simulate(theta, rng):
    """Many epidemics at once: theta["beta"] is an array of 8192 numbers, what is returned (8192, 10)."""
    jax = jax_here()
    if jax is None:
        return with_numpy(theta["beta"], theta["gamma"], rng)
    key = jax.random.key(rng.integers(2**32))
    return jax.jit(with_jax)(theta["beta"], theta["gamma"], key)  # compiled in the first call


def summarize(infectious):
    """The spread of a count grows with its mean, that of its root does not."""
    return np.sqrt(infectious)


OBSERVED = with_numpy(np.array([0.6]), np.array([0.2]), np.random.default_rng(1))[0]

problem = mpiabc.Problem(
    prior=mpiabc.Prior(beta=mpiabc.Uniform(0.1, 2), gamma=mpiabc.Uniform(0.05, 1)),
    simulate=simulate,
    summarize=summarize,
    observed=np.sqrt(OBSERVED),
    vectorized=True,
    batch=BATCH,
    name="epidemics",
)


def main(scheduler="serial", store="gpu_simulator.db"):
    abc = mpiabc.ABCSMC(problem, population_size=2000, threshold=mpiabc.Quantile(0.3), seed=1)
    history = abc.run(store, generations=6, scheduler=scheduler, overwrite=True)
    if history is None:  # a rank that has served, and is done
        return
    mean, std = history[-1].mean(), history[-1].std()
    for name, true in [("beta", 0.6), ("gamma", 0.2)]:
        print(f"{name}: {mean[name]:.3f} +- {std[name]:.3f}, true {true}")


if __name__ == "__main__":
    main(*sys.argv[1:])
