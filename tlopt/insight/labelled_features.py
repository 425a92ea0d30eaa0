"""Features of training images with their labels and folds, the input of all measures of fit."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tlopt.model.folds import Fold

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceMeans:
    """Mean features of the classes that a network was pretrained on, at one depth.

    Attributes:
        means: (source classes, D).
        counts: images of each class, (source classes,).
        centre: mean of all images, (D,).
        spread: root mean squared distance of the images from `centre`.
    """

    means: Floats
    counts: NDArray[np.int64]
    centre: Floats
    spread: float

    @classmethod
    def of(cls, features: Floats, labels: Labels) -> "SourceMeans":
        """The means of `features` (N, D) by class."""
        means, counts = class_means(features, labels)
        centre = features.mean(axis=0)
        spread = float(np.sqrt(((features - centre) ** 2).sum(axis=1).mean()))
        return cls(means=means, counts=counts, centre=centre, spread=spread)


def class_means(features: Floats, labels: Labels) -> tuple[Floats, NDArray[np.int64]]:
    """Mean features (classes, D) and number of images (classes,) of each class that occurs."""
    classes, counts = np.unique(labels, return_counts=True)
    hot = (labels == classes[:, None]).astype(np.float64)
    return hot @ features / counts[:, None], counts


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledFeatures:
    """Features of images at one depth of a network.

    Attributes:
        features: (N, D).
        labels: (N,), class indices.
        folds: for cross-validation; each image is held out in one of them.
        source_probabilities: (N, source classes) by the network's own classifier; None if it is not known.
        source_means: means of the source's classes at the same depth; None if its images are not given.
    """

    features: Floats
    labels: Labels
    folds: tuple[Fold, ...]
    source_probabilities: Floats | None = None
    source_means: SourceMeans | None = None

    @cached_property
    def scaled(self) -> Floats:
        """`features` with mean 0 in each column and a root mean square of 1 over all entries."""
        return centred_and_scaled(self.features)

    @cached_property
    def spectrum(self) -> tuple[Floats, Floats]:
        """U (N, k) and s (k,), k = min(N, D), of the singular value decomposition U s V' of `scaled`."""
        return left_singular_vectors(self.scaled)

    @property
    def n_images(self) -> int:
        """Number of images, N."""
        return len(self.labels)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Number of images in each class that occurs."""
        return np.unique(self.labels, return_counts=True)[1]

    @property
    def is_finite(self) -> bool:
        """Whether no feature is infinite or NaN."""
        return bool(np.isfinite(self.features).all())

    @property
    def is_constant(self) -> bool:
        """Whether all images have the same features."""
        return bool((self.features == self.features[:1]).all())


def centred_and_scaled(features: Floats) -> Floats:
    """`features` (N, D) with column means 0 and root mean square 1 over all entries; zeros if constant."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    size = float(np.sqrt(np.mean(centred**2)))
    return np.asarray(centred / size if size > 0 else centred)


def left_singular_vectors(features: Floats) -> tuple[Floats, Floats]:
    """U (N, k) and s (k,) in descending order, k = min(N, D), from the smaller of the two Gram matrices.

    Singular values below 1e-7 of the largest are set to 0: they are rounding errors, because a Gram matrix
    squares them.
    """
    n, d = features.shape
    if d < n:
        u, s, _ = np.linalg.svd(features, full_matrices=False)
    else:
        values, u = np.linalg.eigh(features @ features.T)
        u, s = u[:, ::-1], np.sqrt(np.maximum(values[::-1], 0.0))
    return u, np.where(s > 1e-7 * s[0], s, 0.0)
