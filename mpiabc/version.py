"""The version, alone, so that packaging and every floor can read it."""

__version__ = "0.1.0"
