"""Draws of whole groups of images, each class represented as nearly as wanted as groups allow.

A group (a patient, a scene, an object) may hold images of several classes. Groups are taken in the order of
sha256(unit + salt) as long as each brings the classes' numbers nearer to the wanted ones; then single groups
are put in or taken out, the best step first, until none helps.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlopt.data.dataset import Image
from tlopt.errors import DataError
from tlopt.system.words import counted

_STEPS_MAX = 500
_BARRED = 1e6  # cost of a class that one side lacks: above any deviation of numbers


def draw_groups(
    images: Sequence[Image],
    wanted: dict[int, int],
    *,
    salt: str,
    leave: int,
    part: str,
    class_names: Sequence[str],
) -> set[str]:
    """Units of the images that are taken: about `wanted` images of each class.

    Args:
        wanted: number of images by label.
        leave: groups of each class that are left at least.
        part: of the data, for the message.

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
    taken = _search(cost, len(units))
    for j in cost.lacking(taken):
        n = int((counts[:, j] > 0).sum())
        raise DataError(
            f'the class "{class_names[labels[j]]}" lies in'
            f" {counted(n, 'group, which does', 'groups, which do')} not suffice to"
            f" draw {part} images and leave {leave}: join or rename groups, add images, or remove the class"
        )
    return {units[i] for i in np.flatnonzero(taken)}


class _Cost:
    """How far a choice of groups is from the wanted numbers."""

    def __init__(self, counts: NDArray[np.float64], wanted: NDArray[np.float64], leave: int) -> None:
        self.counts = counts
        self._holds = (counts > 0).astype(np.float64)
        self._wanted, self._leave = wanted, leave
        self._scale = 1 / np.maximum(wanted, 1)

    def of(self, n_taken: NDArray[np.float64], n_groups: NDArray[np.float64]) -> NDArray[np.float64]:
        """The cost of each row of numbers of images and of groups taken, by class."""
        short = np.maximum(self._leave - (self._holds.sum(axis=0) - n_groups), 0) + (n_groups == 0)
        return np.asarray((((n_taken - self._wanted) * self._scale) ** 2 + _BARRED * short).sum(axis=-1))

    def with_one_changed(self, taken: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The cost after each group alone has been put in or taken out."""
        signs = np.where(taken, -1.0, 1.0)[:, None]
        return self.of(
            self.counts[taken].sum(axis=0) + signs * self.counts,
            self._holds[taken].sum(axis=0) + signs * self._holds,
        )

    def at(self, taken: NDArray[np.bool_]) -> float:
        """The cost of a choice."""
        return float(self.of(self.counts[taken].sum(axis=0), self._holds[taken].sum(axis=0)))

    def lacking(self, taken: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Classes that the choice lacks, or leaves too few groups of."""
        n_groups = self._holds[taken].sum(axis=0)
        left = self._holds.sum(axis=0) - n_groups
        return np.flatnonzero((n_groups == 0) | (left < self._leave))


def _search(cost: _Cost, n: int) -> NDArray[np.bool_]:
    taken = np.zeros(n, dtype=bool)
    n_images, n_groups = np.zeros(cost.counts.shape[1]), np.zeros(cost.counts.shape[1])
    now = cost.at(taken)
    for i, row in enumerate(cost.counts):
        after = float(cost.of(n_images + row, n_groups + (row > 0)))
        if after < now:
            taken[i], now = True, after
            n_images, n_groups = n_images + row, n_groups + (row > 0)
    for _ in range(_STEPS_MAX):
        costs = cost.with_one_changed(taken)
        best = int(costs.argmin())
        if not costs[best] < now - 1e-12:
            break
        taken[best], now = not taken[best], float(costs[best])
    return taken


def _rank(unit: str, salt: str) -> str:
    return hashlib.sha256(f"{unit}/{salt}".encode()).hexdigest()
