"""Similarity of two networks' features of the same images."""

import numpy as np

from tlopt.insight.labelled_features import Floats

N_NEIGHBOURS = 10
IMAGES_MIN = 4  # the debiased estimate is not defined for fewer


def debiased_cka(one: Floats, other: Floats) -> float:
    """Linear centred kernel alignment of features (N, D) and (N, E): 1 if equal up to rotation and unit.

    About 0, sometimes slightly below, for independent features of any number; the usual estimate is near 1
    for noise once there are more features than images. N must be at least 4; NaN if features are constant.

    Source: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414, with the estimate of Song et al. 2012,
    https://jmlr.org/papers/v13/song12a.html.
    """
    k, m = _gram(one), _gram(other)
    size = _hsic(k, k) * _hsic(m, m)
    return _hsic(k, m) / float(np.sqrt(size)) if size > 0 else float("nan")


def _gram(features: Floats) -> Floats:
    """Inner products of centred features, (N, N), with a zero diagonal."""
    centred = features - features.mean(axis=0)
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0.0)
    return np.asarray(gram)


def _hsic(k: Floats, m: Floats) -> float:
    n = len(k)
    cross = float(k.sum(axis=0) @ m.sum(axis=0))
    product = float(k.sum() * m.sum()) / ((n - 1) * (n - 2))
    return (float((k * m).sum()) + product - 2 * cross / (n - 2)) / (n * (n - 3))


def neighbourhood_overlap(one: Floats, other: Floats, k: int = N_NEIGHBOURS) -> float:
    """Share, 0 to 1, of an image's `k` nearest neighbours that are the same in both.

    About k / N for independent features. If there are too few images, k is N - 1.

    Source: Doimo et al. 2020, https://arxiv.org/abs/2007.03506.
    """
    k = min(k, len(one) - 1)
    near, also = (np.argsort(_squared_distances(x), axis=1, kind="stable")[:, :k] for x in (one, other))
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(near, also, strict=True)])) / k


def information_imbalance(one: Floats, other: Floats) -> float:
    """Information imbalance from `one` to `other`: 2 / N if nearest neighbours agree, about 1 if unrelated.

    It is 2 / N times the mean rank in `other` of the nearest neighbour in `one`, and not symmetric.

    Source: Glielmo et al. 2022, https://arxiv.org/abs/2104.15079.
    """
    nearest = np.argmin(_squared_distances(one), axis=1)
    distances = _squared_distances(other)
    reached = distances[np.arange(len(one)), nearest]
    ranks = 1 + (distances < reached[:, None]).sum(axis=1)
    return 2 * float(ranks.mean()) / len(one)


def _squared_distances(features: Floats) -> Floats:
    """Squared distances, (N, N), with an infinite diagonal."""
    centred = features - features.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * centred @ centred.T, 0.0)
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances)
