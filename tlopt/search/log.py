"""One JSONL file a trial: what was tried, each epoch, how it ended."""

import json
from pathlib import Path
from typing import Any, Protocol


class EpochLike(Protocol):
    """What the log needs of an epoch."""

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
    """Appends lines to `path`; a trial that is taken up again continues its file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path

    def start(self, **facts: Any) -> None:
        """The first line: what is tried, where."""
        self._write({"event": "start", **facts})

    def epoch(self, epoch: EpochLike) -> None:
        """One line for an epoch."""
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

    def note(self, text: str) -> None:
        """A line for a person who looks for a reason."""
        self._write({"event": "note", "text": text})

    def end(self, **facts: Any) -> None:
        """The last line: how it ended."""
        self._write({"event": "end", **facts})

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
