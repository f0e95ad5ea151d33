"""Batch systems. What one is stands in `systems.py`, in one table; other files have one thing to do by it.

commands (each is started there), timeleft (of the job that this process is of), arrays (submitted, listed,
cancelled), directives (of job scripts) with layout (how ranks lie on nodes), variables (of the environment).
`slurm`, `sge`, `pbs` and `lsf` read what the commands of one system print.
"""

from mpiabc.batch.commands import CommandError, command
from mpiabc.batch.timeleft import job, seconds_left

__all__ = ["CommandError", "command", "job", "seconds_left"]
