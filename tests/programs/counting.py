"""Counts what leaves rank 0, by kinds of messages, and prints it with the digest.

Arguments: store, N, bytes of an order to all ranks up to which nobody has to ask for it, and "here",
"elsewhere", where rank 0 is on a node of its own, or "nowhere", where nodes have no memory to share.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import mpiabc
from mpiabc.schedulers.mpi import load_mpi, nearby, sending
from mpiabc.schedulers.shared.messages import Kind
from mpiabc.schedulers.wire import _FRAME, Wire

put = nearby.Shelf.put
store, size, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sending._AT_ONCE = most
if sys.argv[4] == "elsewhere":
    nearby.Shelf.put = lambda *content: None if load_mpi().COMM_WORLD.rank == 0 else put(*content)
elif sys.argv[4] == "nowhere":
    nearby._memory = lambda: Path("/nowhere")
bytes_sent, messages = Counter(), Counter()
post = Wire.post


def counted(wire, rank, tag, framed):
    bytes_sent[Kind(tag).name] += len(framed) - _FRAME.size
    messages[Kind(tag).name] += 1
    post(wire, rank, tag, framed)


Wire.post = counted


def simulate(theta, rng):
    return np.array(list(theta.values())) + rng.standard_normal(8)


prior = mpiabc.Prior({f"p{i}": mpiabc.Uniform(-1, 1) for i in range(8)})
problem = mpiabc.Problem(prior, simulate, np.zeros(8), distance=mpiabc.PNorm(2, scale=None))
abc = mpiabc.ABCSMC(problem, size, threshold=mpiabc.Listed([8.0, 6.0, 5.0]), seed=1)
if __name__ == "__main__":
    history = abc.run(store)
    if history is not None:
        counted = {kind: [messages[kind], bytes_sent[kind]] for kind in messages}
        print(json.dumps({"digest": history[-1].digest(), "sent": counted}))
