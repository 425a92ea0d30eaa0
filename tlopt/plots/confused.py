"""Pairs of classes that a network confuses, and names of classes short enough to stand in a figure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELL_TEXT_CLASSES_MAX = 15  # with more, a matrix has no room for numbers, and pairs are listed

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Images of one class that are predicted as one other; classes by index."""

    true: int
    predicted: int
    n: int
    share: float  # of the true class


def confused(counts: Counts, n_max: int) -> tuple[Confused, ...]:
    """Up to `n_max` confused pairs of `counts`, true class in rows; most images first, then largest share."""
    sizes = counts.sum(axis=1)
    rows, columns = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    pairs = [
        Confused(true=r, predicted=c, n=int(counts[r, c]), share=float(counts[r, c] / sizes[r]))
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.n, -pair.share))[:n_max])


def error_shares(counts: Counts) -> NDArray[np.float64]:
    """Mistakes as shares of their true class; 0 on the diagonal and for classes without images."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(shares * ~np.eye(len(counts), dtype=bool), dtype=np.float64)


def short_names(names: Sequence[str], n_max: int) -> tuple[str, ...]:
    """`names` of at most `n_max` characters: cut in the middle, and numbered where two would be the same.

    The number is the place of the class, from 1.
    """
    cut = [_cut(name, n_max) for name in names]
    often = Counter(cut)
    return tuple(
        short if often[short] == 1 else _numbered(name, index, n_max)
        for index, (name, short) in enumerate(zip(names, cut, strict=True), 1)
    )


def _cut(name: str, n_max: int) -> str:
    if len(name) <= n_max:
        return name
    tail = (n_max - 1) // 2
    return f"{name[: n_max - 1 - tail]}…{name[len(name) - tail :]}"


def _numbered(name: str, index: int, n_max: int) -> str:
    suffix = f" ({index})"
    return _cut(name, n_max - len(suffix)) + suffix
