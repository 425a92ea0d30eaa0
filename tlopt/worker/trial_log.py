"""A JSONL file per trial: its point, its epochs and how it ended."""

import errno
import functools
import json
import logging
import os
from pathlib import Path
from typing import Any, Protocol

from tlopt.worker.observers import NO_OBSERVERS, Observers

_logger = logging.getLogger(__name__)


class LoggedEpoch(Protocol):
    """The part of an epoch that the log records."""

    @property
    def index(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def train_accuracy(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def val(self) -> Any: ...


class TrialLog:
    """A trial's log at `path`; a trial that is resumed appends to it.

    A line that cannot be written is left out whole, with one warning: no log is worth a trial. The study's
    loggers observe what it records.
    """

    def __init__(self, path: Path, observers: Observers = NO_OBSERVERS) -> None:
        self._path, self._observers = path, observers

    def start(self, **facts: Any) -> None:
        """Write the first line: the point and the worker."""
        self._write({"event": "start", **facts})
        self._observers.start(facts.get("point", {}))

    def epoch(self, epoch: LoggedEpoch) -> None:
        """Write the line of an epoch."""
        self._write(
            {
                "event": "epoch",
                "epoch": epoch.index,
                "train_loss": epoch.train_loss,
                "train_accuracy": epoch.train_accuracy,
                "val": None if epoch.val is None else epoch.val.as_dict(),
                "seconds": round(epoch.seconds, 3),
            }
        )
        train = {"train/loss": epoch.train_loss, "train/accuracy": epoch.train_accuracy}
        val = {} if epoch.val is None else epoch.val.as_dict()
        self._observers.epoch(epoch.index + 1, train | {f"val/{name}": value for name, value in val.items()})

    def note(self, text: str) -> None:
        """Write a sentence on what befell the trial."""
        self._write({"event": "note", "text": text})

    def end(self, **facts: Any) -> None:
        """Write the last line: how the trial ended."""
        self._write({"event": "end", **facts})
        numbers = {name: facts.get(name) for name in ("value", "best_value")}
        known = {name: value for name, value in numbers.items() if value is not None}
        self._observers.end(str(facts.get("outcome", "")), known)

    def close(self) -> None:
        """Close the study's loggers where the trial has not ended; writes no line."""
        self._observers.end("requeued", {})

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                end, text = file.tell(), (json.dumps(line) + "\n").encode()
                if file.write(text) != len(text):
                    file.truncate(end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            _warn_once(self._path.parent, error.strerror or str(error))


@functools.cache
def _warn_once(folder: Path, why: str) -> None:
    _logger.warning(
        "%s takes no more lines (%s): trials go on without; make room there, or choose another folder with"
        " --runs", folder, why
    )  # fmt: skip
