"""The digests that every engine must have, computed once in a process of the tests."""

from functools import cache

from tests.cluster import Simulated, random_time
from tests.programs import digests as program


@cache
def serial():
    """Of all variants, in one process."""
    return {variant: program.digests("serial", variant) for variant in program.VARIANTS}


@cache
def static():
    """With static scheduling, on a simulated cluster."""
    cluster = Simulated(2, random_time, is_static=True)
    return {variant: program.digests(cluster, variant) for variant in program.STATIC}
