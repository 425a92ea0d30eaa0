"""Draws of whole groups of images, with numbers per class as close to the wanted ones as possible.

A group (a patient, a scene, an object) may contain images of several classes. In the order of
sha256(unit + salt), each group that brings the numbers closer to the wanted ones is drawn; then single groups
are added or removed, the best step first, until no step improves the draw.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlopt.data.dataset import Image
from tlopt.errors import DataError
from tlopt.system.words import counted

_STEPS_MAX = 500
_MISSING_CLASS_COST = 1e6  # cost of a class that is missing on one side: above any deviation in numbers


def draw_groups(
    images: Sequence[Image],
    wanted: dict[int, int],
    *,
    salt: str,
    leave: int,
    part: str,
    class_names: Sequence[str],
) -> set[str]:
    """Units of the drawn images: about `wanted` images of each class.

    Args:
        wanted: number of images by label.
        leave: least number of groups of each class that are not drawn.
        part: name of the part to draw, for messages.

    Raises:
        DataError: no draw leaves a class on both sides.
    """
    units = sorted({image.unit for image in images}, key=lambda unit: _rank(unit, salt))
    labels = sorted(wanted)
    at, column = {u: i for i, u in enumerate(units)}, {label: j for j, label in enumerate(labels)}
    counts = np.zeros((len(units), len(labels)))
    for image in images:
        counts[at[image.unit], column[image.label]] += 1
    cost = _Cost(counts, np.array([wanted[label] for label in labels], dtype=np.float64), leave)
    drawn = _search(cost, len(units))
    for j in cost.lacking(drawn):
        n = int((counts[:, j] > 0).sum())
        raise DataError(
            f'the class "{class_names[labels[j]]}" lies in'
            f" {counted(n, 'group, which does', 'groups, which do')} not suffice to"
            f" draw {part} images and leave {leave}: join or rename groups, add images, or remove the class"
        )
    return {units[i] for i in np.flatnonzero(drawn)}


class _Cost:
    """The deviation of a draw of groups from the wanted numbers."""

    def __init__(self, counts: NDArray[np.float64], wanted: NDArray[np.float64], leave: int) -> None:
        self.counts = counts
        self._has_class = (counts > 0).astype(np.float64)
        self._wanted, self._leave = wanted, leave
        self._scale = 1 / np.maximum(wanted, 1)

    def of(self, n_drawn: NDArray[np.float64], n_groups: NDArray[np.float64]) -> NDArray[np.float64]:
        """The cost of each row of numbers of drawn images and groups, by class."""
        short = np.maximum(self._leave - (self._has_class.sum(axis=0) - n_groups), 0) + (n_groups == 0)
        return np.asarray(
            (((n_drawn - self._wanted) * self._scale) ** 2 + _MISSING_CLASS_COST * short).sum(axis=-1)
        )

    def with_one_changed(self, drawn: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The costs after adding or removing each single group."""
        signs = np.where(drawn, -1.0, 1.0)[:, None]
        return self.of(
            self.counts[drawn].sum(axis=0) + signs * self.counts,
            self._has_class[drawn].sum(axis=0) + signs * self._has_class,
        )

    def at(self, drawn: NDArray[np.bool_]) -> float:
        """The cost of a draw."""
        return float(self.of(self.counts[drawn].sum(axis=0), self._has_class[drawn].sum(axis=0)))

    def lacking(self, drawn: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Classes that the draw lacks, or of which it leaves too few groups."""
        n_groups = self._has_class[drawn].sum(axis=0)
        left = self._has_class.sum(axis=0) - n_groups
        return np.flatnonzero((n_groups == 0) | (left < self._leave))


def _search(cost: _Cost, n: int) -> NDArray[np.bool_]:
    drawn = np.zeros(n, dtype=bool)
    n_images, n_groups = np.zeros(cost.counts.shape[1]), np.zeros(cost.counts.shape[1])
    now = cost.at(drawn)
    for i, row in enumerate(cost.counts):
        after = float(cost.of(n_images + row, n_groups + (row > 0)))
        if after < now:
            drawn[i], now = True, after
            n_images, n_groups = n_images + row, n_groups + (row > 0)
    for _ in range(_STEPS_MAX):
        costs = cost.with_one_changed(drawn)
        best = int(costs.argmin())
        if not costs[best] < now - 1e-12:
            break
        drawn[best], now = not drawn[best], float(costs[best])
    return drawn


def _rank(unit: str, salt: str) -> str:
    return hashlib.sha256(f"{unit}/{salt}".encode()).hexdigest()
