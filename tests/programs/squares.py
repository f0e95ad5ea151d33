"""A client of the Dask scheduler whose file is given: prints three squares that its workers compute."""

import sys

from distributed import Client

if __name__ == "__main__":
    with Client(scheduler_file=sys.argv[1]) as client:
        client.wait_for_workers(1, timeout=60)
        print(client.gather(client.map(lambda x: x * x, range(3))))
