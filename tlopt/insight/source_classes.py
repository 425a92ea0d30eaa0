"""Measures from the classes that a network was pretrained on: LEEP, NCE, earth mover's distance."""

import math

import numpy as np
from scipy.stats import wasserstein_distance_nd

from tlopt.insight.labelled_features import Floats, Labels, SourceMeans, class_means
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


def emd_similarity(features: Floats, labels: Labels, source: SourceMeans) -> float:
    """exp(-d) for the earth mover's distance d between class means and those of the source, from 0 to 1.

    Classes weigh as many as they have images. d is in units of the source's spread, so that neither the unit
    nor the number of features matters, and for one source and network it ranks sets as the published
    exp(-0.01 d) of plain features does. NaN if all images of the source have the same features.

    Args:
        features: (N, D), not scaled.

    Source: Cui et al. 2018, https://arxiv.org/abs/1806.06193.
    """
    if source.spread == 0:
        return math.nan
    means, counts = class_means(features, labels)
    # scaled before: the solver's tolerances are absolute
    ours, theirs = ((each - source.centre) / source.spread for each in (means, source.means))
    return math.exp(-max(float(wasserstein_distance_nd(ours, theirs, counts, source.counts)), 0.0))


def highest_similarity(n_per_class: float, n_per_source_class: float) -> float:
    """The similarity that two samples of the same images would have, about, by the errors of class means.

    It is exact for one class of each set in many equal directions. With features of the last block, two
    halves of each of six image sets differed from it by -0.01 to 0.06; see benchmarks/insight/README.md.

    Args:
        n_per_class: images of a class, mean over classes.
    """
    return math.exp(-math.sqrt(1 / n_per_class + 1 / n_per_source_class))


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
