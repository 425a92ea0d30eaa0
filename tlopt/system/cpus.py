"""The number of CPU cores that this process may use."""

import math
import os
from pathlib import Path

CPU_WORKERS_MAX = 4  # local workers on a CPU; each holds its own network, activations and images

_CGROUPS = Path("/sys/fs/cgroup")


def n_cores(cgroups: Path = _CGROUPS) -> int:
    """Cores that this process may use, at least 1: its CPU affinity, capped by the container's CPU quota.

    Args:
        cgroups: mount point of Linux control groups, version 1 or 2; missing on other systems.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(bound, _quota_cores(cgroups))))


def _quota_cores(cgroups: Path) -> float:
    """CPU quota in cores; infinite without one."""
    files = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
    for names in files:
        try:
            quota, period = " ".join((cgroups / name).read_text(encoding="ascii") for name in names).split()
        except OSError:
            continue
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    return math.inf
