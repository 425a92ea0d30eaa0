"""Cross-validated accuracies of simple classifiers on frozen features."""

from typing import Any

import numpy as np

from tlopt.insight.labelled_features import Floats, Labels
from tlopt.model.folds import Fold

N_NEIGHBOURS = 5
INVERSE_STRENGTH = 10.0  # C of the logistic regression, for features of length about 1
# largest entry of the mean loss's gradient at which fitting ends, times the number of classes: a weight is
# moved by its own class's share of the images, so that one limit for all would end the fit of 100 classes
# before its first step; at this one, accuracies are within 0.5 points of those at convergence
GRADIENT_MAX = 1e-4


def linear_probe_accuracy(features: Floats, labels: Labels, folds: tuple[Fold, ...]) -> float:
    """Cross-validated accuracy, 0 to 1, of logistic regression on standardised features.

    Features are divided by the square root of their number, so that one penalty suits every width.
    """
    from sklearn.linear_model import LogisticRegression

    tolerance = GRADIENT_MAX / len(np.unique(labels))
    model = LogisticRegression(C=INVERSE_STRENGTH, max_iter=1000, tol=tolerance)
    return _accuracy(model, features, labels, folds)


def knn_accuracy(features: Floats, labels: Labels, folds: tuple[Fold, ...]) -> float:
    """Cross-validated accuracy, 0 to 1, of 5 nearest neighbours on standardised features."""
    from sklearn.neighbors import KNeighborsClassifier

    nearest = min(N_NEIGHBOURS, *(len(fit) for fit, _ in folds))
    return _accuracy(KNeighborsClassifier(nearest, algorithm="brute"), features, labels, folds)


def _accuracy(model: Any, features: Floats, labels: Labels, folds: tuple[Fold, ...]) -> float:
    n_right = 0
    for fit, other in folds:
        known, unknown = _standardised(features[fit], features[other])
        if len(np.unique(labels[fit])) == 1:
            predicted = np.full(len(other), labels[fit[0]])
        else:
            predicted = model.fit(known, labels[fit]).predict(unknown)
        n_right += int((predicted == labels[other]).sum())
    return n_right / sum(len(other) for _, other in folds)


def _standardised(known: Floats, unknown: Floats) -> tuple[Floats, Floats]:
    """Both standardised by column with `known`, then divided by the square root of the number of columns."""
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    least = 1e-9 * (np.abs(mean) + deviation.max())  # relative, so that the features' unit does not matter
    scale = np.where(deviation > least, deviation, np.inf) * np.sqrt(known.shape[1])
    return (known - mean) / scale, (unknown - mean) / scale
