"""Runs over Redis whose workers are killed at random: python -m tests.benchmarks.redis_chaos [RUNS]"""

import sys
import tempfile
from pathlib import Path

from tests import bridge, problems
from tests.test_redis import chaos


def main(runs):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quiet = problems.digests(problems.sampler().run(folder / "quiet.db", scheduler="serial"))
        server = bridge.RedisServer(folder)
        equal = kills = 0
        for seed in range(runs):
            found, killed = chaos(server, folder, seed)
            equal += found == quiet
            kills += killed
            print(
                f"{seed + 1} runs, {kills} workers killed, {equal} with the digest of a quiet run", flush=True
            )
        server.kill()
    return equal != runs


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
