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
DATABASE_SECONDS = 30  # a host may have several addresses, each with a timeout
TORCH_SECONDS = 120  # time to import it from a slow disk
HUNG = "check the database server or the disk of its file, or choose another database with --storage"


def examine(
    target: str | None = None,
    *,
    storage_url: str | None = None,
    runs: str | Path = "runs",
    checkpoints: str | None = None,
    progress: bool = False,
) -> Iterator[Finding]:
    """Findings on this machine, its database and, if given, a study.

    Nothing is downloaded, and only the cache folder is written to, since images are read as in `tlopt check`.
    Never raises: whatever fails or hangs is a finding.

    Args:
        target: a study file, or the name of a study in the database.
        storage_url: like the option --storage.
        runs: like the option --runs.
        checkpoints: like the option --checkpoints.
        progress: whether to show a progress bar on stderr while images are read.
    """
    yield from guarded("python", machine.python())
    yield from guarded(
        "torch", machine.torch_and_devices(), seconds=TORCH_SECONDS, late="check whether nvidia-smi responds"
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


# Imported in the check, so that an incompatible Optuna is a finding.


def _database(storage_url: str | None) -> "Generator[Finding, None, BaseStorage | None]":
    from tlopt.doctor.database import database

    return (yield from database(storage_url))


def _study(target: str, store: "BaseStorage | None", *, progress: bool) -> Findings:
    from tlopt.doctor.study import study

    return (yield from study(target, store, progress=progress))
