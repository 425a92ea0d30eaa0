"""The images that a run trains on, and the labels that it trains with."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlopt.spec.point import Point, seed_for


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSet:
    """Indices (n,) of the images that a run trains on, ascending, and the labels (N,) of all images."""

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]


def training_set(
    train: NDArray[np.int64], labels: NDArray[np.int64], point: Point, *, seed: int, n_classes: int
) -> TrainingSet:
    """The images of a split's training part that a run of `point` with `seed` trains on.

    Args:
        train: ascending indices of the split's training images.
        labels: true labels (N,) of all images.
        seed: of the run.
    """
    indices = some_images(train, labels, point.train_images, seed=seed_for(seed, "train_images"))
    noisy = with_noise(
        labels, indices, point.label_noise, n_classes=n_classes, seed=seed_for(seed, "label_noise")
    )
    return TrainingSet(indices=indices, labels=noisy)


def some_images(
    train: NDArray[np.int64], labels: NDArray[np.int64], n: int, *, seed: int
) -> NDArray[np.int64]:
    """`n` of the images at `train`, ascending: one of each class first, then in proportion to the classes.

    With the same seed, fewer are always among more. All images if `n` is 0 or there are no more than `n`.
    """
    if not 0 < n < len(train):
        return train
    sizes = Counter(labels[train].tolist())
    ranks: Counter[int] = Counter()
    keys = []
    for index in np.random.default_rng(seed).permutation(train).tolist():
        label = int(labels[index])
        rank = ranks[label]
        ranks[label] += 1
        keys.append((rank > 0, (rank + 0.5) / sizes[label], label, index))
    return np.sort(np.array([index for *_, index in sorted(keys)[:n]], dtype=np.int64))


def with_noise(
    labels: NDArray[np.int64], train: NDArray[np.int64], share: float, *, n_classes: int, seed: int
) -> NDArray[np.int64]:
    """`labels` (N,) where a `share` of those at `train`, rounded, is another class, each equally likely.

    With the same seed, images with a false label at a smaller share have the same one at a larger share.
    """
    if not share or n_classes < 2:
        return labels
    rng = np.random.default_rng(seed)
    order, shift = rng.random(len(labels)), rng.integers(1, n_classes, len(labels))
    false = train[np.argsort(order[train], kind="stable")][: round(share * len(train))]
    noisy = labels.copy()
    noisy[false] = (labels[false] + shift[false]) % n_classes
    return noisy
