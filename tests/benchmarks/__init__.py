"""Benchmarks print tables, and no line a generation between."""

import logging

logging.getLogger("mpiabc").setLevel(logging.WARNING)
