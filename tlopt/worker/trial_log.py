"""A JSONL log per trial with its point, epochs, notes and outcome."""

import errno
import functools
import json
import logging
import os
from pathlib import Path
from typing import Any, Protocol

from tlopt.spec.objectives import measured
from tlopt.worker.observers import NO_OBSERVERS, Observers

_logger = logging.getLogger(__name__)


class LoggedEpoch(Protocol):
    """The attributes of an epoch that are logged."""

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
    """The log of one trial at `path`, to which a resumed trial appends, and its loggers.

    A line that cannot be written completely is left out, with one warning; the trial continues.
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
        """Write a note on the trial's course."""
        self._write({"event": "note", "text": text})

    def end(self, **facts: Any) -> None:
        """Write the last line: the result."""
        self._write({"event": "end", **facts})
        numbers = {name: facts.get(name) for name in ("value", "best_value")}
        known = {name: value for name, value in numbers.items() if value is not None}
        self._observers.end(str(facts.get("outcome", "")), known)

    def close(self) -> None:
        """Close the loggers as requeued unless the trial has ended; write no line."""
        self._observers.end("requeued", {})

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                end, text = file.tell(), (json.dumps(measured(line)) + "\n").encode()
                if file.write(text) != len(text):
                    file.truncate(end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            _warn_once(self._path.parent, error.strerror or str(error))


@functools.cache
def _warn_once(folder: Path, why: str) -> None:
    _logger.warning(
        "no logs can be written to %s (%s), trials continue without them: free disk space there, or choose"
        " another folder with --runs", folder, why
    )  # fmt: skip
