"""For Spack: `spack repo create REPOSITORY`, this file as packages/py-mpiabc/package.py in it, and
`spack install py-mpiabc ^openmpi` builds it against the MPI of the machine.

Names and bounds are those of pyproject.toml, which tests/test_packaging.py compares.
"""

from spack.package import *


class PyMpiabc(PythonPackage):
    """MPI-native approximate Bayesian computation: the same posterior on any number of ranks, bit for bit."""

    pypi = "mpiabc/mpiabc-0.1.0.tar.gz"

    license("MIT")

    version("0.1.0", sha256="0" * 64)  # filled in at a release

    variant("redis", default=False, description="Workers that come and go, through Redis")
    variant("dask", default=False, description="Dask clusters")
    variant("plot", default=False, description="Pictures")

    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-hatchling", type="build")
    depends_on("py-numpy@1.26:", type=("build", "run"))
    depends_on("py-scipy@1.11:", type=("build", "run"))
    depends_on("py-cloudpickle@3.0:", type=("build", "run"))
    depends_on("py-mpi4py@4.1:", type=("build", "run"))
    depends_on("py-threadpoolctl@3.1:", type=("build", "run"))
    depends_on("py-redis@5.0:", type="run", when="+redis")
    depends_on("py-distributed@2024.1:", type="run", when="+dask")
    depends_on("py-dask-mpi@2022.4:", type="run", when="+dask")
    depends_on("py-matplotlib@3.8:", type="run", when="+plot")
