"""History of a finished run: metrics by epoch and the last confusion matrix, as JSON next to its weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tlopt.system.atomic import write_atomically
from tlopt.training.loop import Epoch


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """Metrics by epoch of a finished run; without validation `val` is empty and `confusion` None."""

    train_loss: tuple[float, ...]
    val: tuple[dict[str, float], ...]
    confusion: NDArray[np.int64] | None  # counts, true classes in rows

    @classmethod
    def of(cls, epochs: Sequence[Epoch]) -> Self:
        """The history of a run with at least one epoch."""
        return cls(
            train_loss=tuple(epoch.train_loss for epoch in epochs),
            val=tuple(epoch.val.as_dict() for epoch in epochs if epoch.val is not None),
            confusion=epochs[-1].confusion,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a history written by `write`."""
        values = json.loads(path.read_text(encoding="utf-8"))
        counts = values["confusion"]
        return cls(
            train_loss=tuple(values["train_loss"]),
            val=tuple(values["val"]),
            confusion=counts if counts is None else np.array(counts, dtype=np.int64),
        )

    def write(self, path: Path) -> None:
        """Write to `path` atomically."""
        counts = None if self.confusion is None else self.confusion.tolist()
        values = {"train_loss": self.train_loss, "val": self.val, "confusion": counts}
        write_atomically(path, json.dumps(values))

    def curves(self) -> dict[str, list[float]]:
        """Values by epoch of each validation metric."""
        return {name: [row[name] for row in self.val] for name in (self.val[0] if self.val else ())}


def history_file(weights_file: Path) -> Path:
    """Path of the history of the run whose weights are in `weights_file`."""
    return weights_file.with_suffix(".json")
