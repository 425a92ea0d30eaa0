"""The number of CPU cores that this process may use."""

import math
import os
from pathlib import Path

CPU_WORKERS_MAX = 4  # local workers on a CPU: each holds a network, its activations and images of its own

_CGROUPS = Path("/sys/fs/cgroup")


def n_cores(cgroups: Path = _CGROUPS) -> int:
    """Cores that this process may use, at least 1: those it is bound to, capped by its container's CPU quota.

    Args:
        cgroups: where Linux shows control groups, version 1 or 2; elsewhere there is no such folder.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(bound, _quota_cores(cgroups))))


def _quota_cores(cgroups: Path) -> float:
    """Seconds of CPU per second of wall clock; infinite without a quota."""
    files = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
    for names in files:
        try:
            quota, period = " ".join((cgroups / name).read_text(encoding="ascii") for name in names).split()
        except OSError:
            continue
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    return math.inf
