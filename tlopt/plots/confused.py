"""Pairs of classes that a network confuses, and shortened class names for figures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELL_TEXT_CLASSES_MAX = 15  # with more, the cells are too small for numbers

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """The images of one class that are predicted as another class, classes being indices."""

    true: int
    predicted: int
    n: int
    share: float  # of the true class


def most_confused(counts: Counts, n_max: int) -> tuple[ConfusedPair, ...]:
    """The `n_max` most confused pairs in `counts` (true class in rows), by images, then by share."""
    sizes = counts.sum(axis=1)
    rows, columns = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    pairs = [
        ConfusedPair(true=r, predicted=c, n=int(counts[r, c]), share=float(counts[r, c] / sizes[r]))
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.n, -pair.share))[:n_max])


def error_shares(counts: Counts) -> NDArray[np.float64]:
    """Mistakes as a share of their true class; 0 on the diagonal and for classes without images."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(shares * ~np.eye(len(counts), dtype=bool), dtype=np.float64)


def short_names(names: Sequence[str], n_max: int) -> tuple[str, ...]:
    """`names` with at most `n_max` characters, shortened in the middle.

    Names that would be equal get the number of their class, from 1, as a suffix.
    """
    shortened = [_shorten(name, n_max) for name in names]
    n_uses = Counter(shortened)
    return tuple(
        short if n_uses[short] == 1 else _numbered(name, index, n_max)
        for index, (name, short) in enumerate(zip(names, shortened, strict=True), 1)
    )


def _shorten(name: str, n_max: int) -> str:
    if len(name) <= n_max:
        return name
    tail = (n_max - 1) // 2
    return f"{name[: n_max - 1 - tail]}…{name[len(name) - tail :]}"


def _numbered(name: str, index: int, n_max: int) -> str:
    suffix = f" ({index})"
    return _shorten(name, n_max - len(suffix)) + suffix
