"""What foreign libraries hand out, by its name here: in schedulers `Any` stands in this file alone.

No library is imported for it. mpi4py tells its types. The others do not: an answer of redis-py's is one of a
client that awaits, or of one that does not, and methods of Dask's have no types. A library itself is a
`ModuleType`.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Request
    from mpi4py.MPI import Exception as MPIError
else:
    Comm = MPIError = Request = object

__all__ = [
    "Comm",
    "DaskClient",
    "DaskFuture",
    "MPIError",
    "RedisClient",
    "RedisConnection",
    "RedisPipeline",
    "Request",
]

RedisClient: TypeAlias = Any
RedisConnection: TypeAlias = Any
RedisPipeline: TypeAlias = Any
DaskClient: TypeAlias = Any
DaskFuture: TypeAlias = Any
