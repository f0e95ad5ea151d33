"""A Dask cluster of processes forked from this one, which all start at once; from then on it is hurt.

    python -m tests.programs.dask_cluster FILE WORKERS [kill|without|older|tls]

kill: a second after all have worked one is killed, and another one joins. without: workers cannot import
mpiabc. older: workers speak as an older mpiabc did. tls: all speak TLS, with the certificates of Dask's
configuration. Ends with its standard input.
"""

import asyncio
import os
import random
import select
import signal
import sys

import distributed

import mpiabc.version

WORKED = os.pipe()  # a byte from each worker that has done a task
FILE, WORKERS, HOW = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""


class WithoutMpiabc:
    """Finds no mpiabc."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mpiabc":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def forked(make):
    """The process id of a child that runs a server until it ends."""
    pid = os.fork()
    if not pid:
        asyncio.run(serve(make))
        os._exit(0)
    return pid


async def serve(make):
    async with make() as server:
        if HOW == "kill" and isinstance(server, distributed.Worker):
            await server.plugin_add(FirstTask())
        await server.finished()


class FirstTask(distributed.WorkerPlugin):
    """Tells of the first task that its worker has done."""

    is_reported = False

    def transition(self, key, start, finish, **more):
        if finish == "memory" and not self.is_reported:
            self.is_reported = True
            os.write(WORKED[1], b".")


def scheduler():
    protocol = "tls" if HOW == "tls" else "tcp"
    return distributed.Scheduler(
        protocol=protocol, port=0, dashboard=False, dashboard_address=":0", scheduler_file=FILE
    )


def worker():
    if HOW == "without":
        for name in [name for name in sys.modules if name.partition(".")[0] == "mpiabc"]:
            del sys.modules[name]
        sys.meta_path.insert(0, WithoutMpiabc())
    if HOW == "older":
        mpiabc.version.PROTOCOL = 0
    return distributed.Worker(scheduler_file=FILE, nthreads=1, memory_limit=0, dashboard=False)


if __name__ == "__main__":
    alone, workers = forked(scheduler), [forked(worker) for _ in range(WORKERS)]
    rng, killed, missing = random.Random(1), 0, WORKERS
    while sys.stdin not in (news := select.select([sys.stdin, WORKED[0]], [], [], 1.0)[0]):
        if news:
            missing -= len(os.read(WORKED[0], 1))
        elif HOW == "kill" and not missing:
            os.kill(workers.pop(rng.randrange(len(workers))), signal.SIGKILL)
            workers.append(forked(worker))
            killed, missing = killed + 1, 1
    for pid in [alone, *workers]:
        os.kill(pid, signal.SIGKILL)
    print("KILLED", killed)
