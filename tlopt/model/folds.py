"""Folds for the cross-validation of classifiers on frozen features."""

import warnings

import numpy as np
from numpy.typing import NDArray

N_FOLDS = 5

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]  # indices of images to fit on, and of held-out ones


def fewest_units(labels: NDArray[np.int64], units: NDArray[np.int64]) -> int:
    """Number of units in the class that has the fewest; a class is split over no more folds than that."""
    return min(len(np.unique(units[labels == label])) for label in np.unique(labels))


def stratified_folds(
    labels: NDArray[np.int64], units: NDArray[np.int64], *, n_folds: int = N_FOLDS, seed: int = 0
) -> tuple[Fold, ...]:
    """Folds with about equal shares of each class, without a unit on both sides of one.

    There are fewer than `n_folds` if a class has fewer units, but at least two.

    Args:
        labels: (N,), class indices.
        units: (N,), equal for images that must stay together, such as copies and groups.
        seed: seed of the order in which units are distributed.

    Raises:
        ValueError: no class has two units.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    count = max(2, min(n_folds, fewest_units(labels, units)))
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes with fewer units than folds
        return tuple((fit, held_out) for fit, held_out in folds.split(labels, labels, units) if len(held_out))
