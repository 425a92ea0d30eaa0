"""All checks of `tlopt doctor`, in order."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tlopt.doctor import disks, machine
from tlopt.doctor.finding import Finding, Findings, guarded

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

DISK_SECONDS = 10
DATABASE_SECONDS = 30  # a host may have several addresses, each with its own timeout
TORCH_SECONDS = 120  # its import from a slow disk
HUNG = "see whether the database's machine, or the disk below its file, hangs; --storage names another"


def examine(
    target: str | None = None,
    *,
    storage_url: str | None = None,
    runs: str | Path = "runs",
    checkpoints: str | None = None,
    progress: bool = False,
) -> Iterator[Finding]:
    """Findings on this machine, its database and, if one is named, a study.

    Nothing is downloaded, and nothing is written but entries of the cache folder, since images are checked by
    reading them, as `tlopt check` does. Nothing is raised: whatever fails or hangs is a finding.

    Args:
        target: a study file, or a study's name in the database.
        storage_url: as the option --storage.
        runs: as the option --runs.
        checkpoints: as the option --checkpoints.
        progress: a bar on stderr while images are read.
    """
    yield from guarded("python", machine.python())
    yield from guarded(
        "torch", machine.torch_and_devices(), seconds=TORCH_SECONDS, late="see whether nvidia-smi answers"
    )
    yield from guarded("cpu", machine.cores())
    yield from guarded("environment", machine.environment())
    for title, check in _disks(Path(runs), checkpoints).items():
        yield from guarded(title, check, seconds=DISK_SECONDS, late=disks.HUNG)
    store = yield from guarded("database", _database(storage_url), seconds=DATABASE_SECONDS, late=HUNG)
    if target is not None:
        yield from guarded("study", _study(target, store, progress=progress))


def _disks(runs: Path, checkpoints: str | None) -> dict[str, Findings]:
    where = checkpoints or os.environ.get("TLOPT_CHECKPOINTS") or str(runs / "checkpoints")
    return {"cache": disks.cache(), "runs": disks.runs(runs), "checkpoints": disks.checkpoints(where)}


# Imported in the check: an Optuna that does not fit is a finding.


def _database(storage_url: str | None) -> "Generator[Finding, None, BaseStorage | None]":
    from tlopt.doctor.database import database

    return (yield from database(storage_url))


def _study(target: str, store: "BaseStorage | None", *, progress: bool) -> Findings:
    from tlopt.doctor.study import study

    return (yield from study(target, store, progress=progress))
