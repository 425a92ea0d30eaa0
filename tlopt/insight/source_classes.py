"""Measures from the classes that a network was pretrained on: LEEP and NCE."""

import numpy as np

from tlopt.insight.labelled_features import Floats, Labels
from tlopt.model.folds import Fold


def leep(source_probabilities: Floats, labels: Labels, folds: tuple[Fold, ...] = ()) -> float:
    """Mean log-likelihood of the labels given the source classes, in nats, 0 or less.

    Without folds it is the published score, which is far too high for few images. With folds, likelihoods of
    held-out images are estimated from the others, with one image spread over the source classes as a prior.

    Args:
        source_probabilities: (N, source classes), rows that sum to 1.

    Source: Nguyen et al. 2020, https://arxiv.org/abs/2002.12462.
    """
    prior_images = 1 / source_probabilities.shape[1]
    return _mean_log_likelihood(source_probabilities, labels, folds, prior_images)


def nce(source_labels: Labels, labels: Labels, folds: tuple[Fold, ...] = ()) -> float:
    """Negative conditional entropy of the labels given the source labels, in nats, 0 or less.

    Without folds it is the published score. With folds it is the mean log-likelihood of held-out images,
    estimated from the others, with one image in each source class as a prior.

    Args:
        source_labels: (N,), most probable source class of each image.

    Source: Tran et al. 2019, https://arxiv.org/abs/1908.08142.
    """
    hot = (source_labels[:, None] == np.unique(source_labels)).astype(np.float64)
    return _mean_log_likelihood(hot, labels, folds, 1.0)


def _mean_log_likelihood(
    weights: Floats, labels: Labels, folds: tuple[Fold, ...], prior_images: float
) -> float:
    everything = np.arange(len(labels))
    hot = (labels[:, None] == np.unique(labels)).astype(np.float64)
    total = 0.0
    for fit, other in folds or ((everything, everything),):
        given = _class_given_source(weights[fit], hot[fit], prior_images if folds else 0.0)
        total += float(np.log(np.maximum((weights[other] @ given * hot[other]).sum(axis=1), 1e-300)).sum())
    return total / sum(len(other) for _, other in folds or ((everything, everything),))


def _class_given_source(weights: Floats, hot: Floats, prior_images: float) -> Floats:
    """Probabilities of the classes given each source class, (source classes, classes)."""
    shares = (hot.sum(axis=0) + 1) / (len(hot) + hot.shape[1])  # + 1: no class is impossible
    counts = weights.T @ hot + prior_images * shares
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0))
