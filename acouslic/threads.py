"""How many threads compute: as many as this process may use cores; and they wait without spinning.

To be called before torch is imported: its OpenMP library reads the environment once, when it is
loaded. Nothing that takes time is imported here.
"""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def use_threads(count: int | None) -> None:
    """Set how many threads the libraries compute with, for this process and those it starts.

    Threads of OpenMP that wait for one another spin by default: beside another process that
    computes, each step then takes as long as the system leaves one of them without a core.

    Args:
        count: so many; None takes `OMP_NUM_THREADS` from the environment, or else all cores that
            the process may use.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def usable_cores() -> int:
    """The cores that this process may use, by its affinity and by its container's quota."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota() -> float | None:
    """The CPU time a second that the container gives, in seconds; None where it has no limit."""
    quotas = [_v2_quota(folder / "cpu.max") for folder in _own_folders("")]
    quotas += [_v1_quota(folder) for folder in _own_folders("cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def _own_folders(controller: str) -> list[Path]:
    """The control group of this process and those around it.

    Args:
        controller: of the first version's hierarchy; empty for the second version's.
    """
    try:
        lines = [line.split(":", 2) for line in OWN_CGROUP.read_text().splitlines()]
    except OSError:
        return []
    own = [Path(path) for _, names, path in lines if controller in names.split(",")]
    root = CGROUPS / controller
    return [root / str(group)[1:] for path in own for group in (path, *path.parents)]


def _v2_quota(file: Path) -> float | None:
    try:
        limit, period = file.read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _v1_quota(folder: Path) -> float | None:
    try:
        limit = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return None if limit < 0 else limit / period
