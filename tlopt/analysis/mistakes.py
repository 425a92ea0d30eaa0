"""Statistics of a network's mistakes: rates by class, confused pairs, confident mistakes, calibration."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlopt.confirmation.predictions import Predictions, surest_mistakes
from tlopt.plots.confused import Counts, most_confused

BINS = 10  # of the reliability diagram, of equal width

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ClassRates:
    """Counts of the images of one class."""

    name: str
    n: int  # images of the class
    n_right: int  # those predicted correctly
    n_predicted: int  # images predicted as the class

    @property
    def recall(self) -> float | None:
        """Share of the class's images that are predicted correctly; None without images."""
        return self.n_right / self.n if self.n else None

    @property
    def precision(self) -> float | None:
        """Share of the predictions of the class that are correct; None without such a prediction."""
        return self.n_right / self.n_predicted if self.n_predicted else None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Images of one class that are predicted as another class."""

    true: str
    predicted: str
    n: int
    share: float  # of the true class


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One misclassified image."""

    file: str
    true: str
    predicted: str
    probability: float  # of the predicted class
    true_probability: float  # of the true class
    thumbnail: NDArray[np.uint8] | None  # (S, S, 3)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Images whose predicted class has a probability in one interval."""

    low: float
    high: float
    n: int
    confidence: float  # mean probability of the predicted class; NaN without images
    accuracy: float  # share of correct predictions; NaN without images


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How well probabilities match accuracy: of images predicted at 80 %, 80 % should be correct."""

    bins: tuple[Bin, ...]
    ece: float  # expected calibration error: mean gap between confidence and accuracy, weighted by images
    confidence: float  # mean probability of the predicted class
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class BinaryCurves:
    """Rates of a two-class network at every threshold of the probability of its second class."""

    positive: str  # name of the second class
    thresholds: Array  # (T,), falling
    true_positive: Array  # (T + 1,): recall, from 0 at "nothing is positive" to 1
    false_positive: Array  # (T + 1,)
    precision: Array  # (T,)
    auc: float  # area under the ROC curve
    average_precision: float  # precision summed over steps of recall


def confusion(predictions: Predictions) -> Counts:
    """Counts (classes, classes): true class by row, predicted class by column."""
    n = len(predictions.class_names)
    counts = np.bincount(predictions.labels * n + predictions.predicted, minlength=n * n)
    return counts.astype(np.int64).reshape(n, n)


def class_rates(predictions: Predictions) -> tuple[ClassRates, ...]:
    """The counts of every class, in the order of the logits."""
    counts = confusion(predictions)
    return tuple(
        ClassRates(
            name=name,
            n=int(counts[index].sum()),
            n_right=int(counts[index, index]),
            n_predicted=int(counts[:, index].sum()),
        )
        for index, name in enumerate(predictions.class_names)
    )


def confused_pairs(predictions: Predictions, n_max: int) -> tuple[Pair, ...]:
    """Up to `n_max` pairs of classes that are confused, most images first, then largest share."""
    names = predictions.class_names
    return tuple(
        Pair(true=names[pair.true], predicted=names[pair.predicted], n=pair.n, share=pair.share)
        for pair in most_confused(confusion(predictions), n_max)
    )


def mistakes(predictions: Predictions, n_max: int) -> Iterator[Mistake]:
    """Up to `n_max` misclassified images, the most confidently predicted first."""
    names = predictions.class_names
    pictures = dict(zip(predictions.thumbnail_of.tolist(), predictions.thumbnails, strict=True))
    found = surest_mistakes(predictions.labels, predictions.predicted, predictions.probability)
    for index in found[:n_max].tolist():
        yield Mistake(
            file=predictions.files[index],
            true=names[predictions.labels[index]],
            predicted=names[predictions.predicted[index]],
            probability=float(predictions.probability[index]),
            true_probability=float(predictions.true_probability[index]),
            thumbnail=pictures.get(index),
        )


def calibration(predictions: Predictions) -> Calibration:
    """Reliability over `BINS` intervals of equal width, and the expected calibration error.

    Guo et al. (2017), https://arxiv.org/abs/1706.04599, equations 2 and 3. For few images the error is
    biased upwards, because chance alone makes gaps.
    """
    probability = predictions.probability
    right = predictions.labels == predictions.predicted
    places = np.clip(
        np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1
    )  # (low, high], as Guo et al.
    bins = []
    for index in range(BINS):
        here = places == index
        n = int(here.sum())
        bins.append(
            Bin(
                low=index / BINS,
                high=(index + 1) / BINS,
                n=n,
                confidence=float(probability[here].mean()) if n else np.nan,
                accuracy=float(right[here].mean()) if n else np.nan,
            )
        )
    gaps = [each.n * abs(each.confidence - each.accuracy) for each in bins if each.n]
    return Calibration(
        bins=tuple(bins),
        ece=sum(gaps) / len(probability),
        confidence=float(probability.mean()),
        accuracy=float(right.mean()),
    )


def positive_probability(predictions: Predictions) -> Array:
    """The probability of the second of two classes, by image."""
    second = predictions.predicted == 1
    return np.where(second, predictions.probability, 1 - predictions.probability)


def binary_curves(predictions: Predictions) -> BinaryCurves | None:
    """ROC and precision over recall of the second of two classes; None unless both classes have images."""
    if len(predictions.class_names) != 2 or len(np.unique(predictions.labels)) != 2:
        return None
    scores = positive_probability(predictions)
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], predictions.labels[order] == 1
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # last of equal scores
    hits, taken = np.cumsum(positive)[ends], ends + 1
    recall, precision = hits / positive.sum(), hits / taken
    true_positive = np.concatenate([[0.0], recall])
    false_positive = np.concatenate([[0.0], (taken - hits) / (~positive).sum()])
    return BinaryCurves(
        positive=predictions.class_names[1],
        thresholds=scores[ends],
        true_positive=true_positive,
        false_positive=false_positive,
        precision=precision,
        auc=float(np.trapezoid(true_positive, false_positive)),
        average_precision=float(np.sum(np.diff(true_positive) * precision)),
    )


def best_threshold(curves: BinaryCurves) -> float:
    """The threshold with the best mean of both classes' recalls (Youden's J).

    The second class is predicted where its probability is at least this. Among thresholds that divide
    the images equally, it is the middle one, which still does so when rounded to few digits.
    """
    best = int(np.argmax((curves.true_positive - curves.false_positive)[1:]))
    return float(curves.thresholds[best : best + 2].mean())


def recalls_at(predictions: Predictions, threshold: float) -> tuple[float, float]:
    """The recalls of the first and the second class if the second is predicted from `threshold` on."""
    second = positive_probability(predictions) >= threshold
    labels = predictions.labels
    return float((~second)[labels == 0].mean()), float(second[labels == 1].mean())
