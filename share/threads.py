"""How many threads a command may use."""

from __future__ import annotations

import os

from sartor.share.errors import UsageError


def default_threads() -> int:
    """Return SLURM_CPUS_PER_TASK, or else the cores of the affinity mask; raises UsageError when it is no number."""
    allotted = os.environ.get("SLURM_CPUS_PER_TASK")
    if allotted is None:
        return len(os.sched_getaffinity(0))
    if not (allotted.isascii() and allotted.isdecimal()) or int(allotted) == 0:
        remedy = "Unset it or give the threads with -@"
        raise UsageError("not a number of threads", subject=f"SLURM_CPUS_PER_TASK={allotted}", remedy=remedy)
    return int(allotted)
