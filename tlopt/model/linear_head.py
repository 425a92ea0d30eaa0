"""A linear head fitted on frozen features: logistic regression or a linear SVM.

Features are standardised, and the standardisation is folded into weight and bias, so that the result is an
ordinary linear layer. C has the lowest log-loss in stratified cross-validation on training images only. The
margins of an SVM are not logits; they are divided by the temperature with the lowest log-loss on held-out
images.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlopt.model.folds import Fold, fewest_units, stratified_folds

LinearKind = Literal["logistic", "svm"]
Array = NDArray[np.float64]

GRIDS: dict[str, tuple[float, ...]] = {  # values of C in steps of half a decade
    "logistic": tuple(float(f"{10 ** (e / 2):.3g}") for e in range(-8, 4)),
    "svm": tuple(float(f"{10 ** (e / 2):.3g}") for e in range(-12, 1)),
}
FIXED_C: dict[str, float] = {"logistic": 0.1, "svm": 0.001}  # if nothing can be held out
_SPREAD_MIN = 1e-6  # of a feature relative to its size; less is rounding, which scaling would amplify
_ABSENT_LOGIT = -20.0  # logit of a class without training images
_LOG_TEMPERATURE = (-6.0, 6.0)


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """Details of the fit of a linear head."""

    kind: LinearKind
    c: float  # scikit-learn's C (inverse strength of the penalty) for standardised features
    cv_accuracy: float | None  # accuracy on held-out folds, in [0, 1]; None without cross-validation
    n_folds: int  # 0: C is fixed, because nothing could be held out
    temperature: float  # divisor of the margins; 1 for logistic regression

    @property
    def note(self) -> str:
        """The reason why there was no cross-validation, or ""."""
        if self.n_folds:
            return ""
        return (
            f"C = {self.c:g} is fixed: a class has a single training image or group, so none can be held out"
        )

    @property
    def words(self) -> str:
        """The fit as text, such as "C = 0.1, 84.2 % in 5-fold cross-validation"."""
        text = f"C = {self.c:.3g}"
        if self.cv_accuracy is None:
            return f"{text}, fixed"
        return f"{text}, {100 * self.cv_accuracy:.1f} % in {self.n_folds}-fold cross-validation"


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearHead:
    """A linear layer: logits are features @ weight.T + bias."""

    weight: Array  # (classes, width)
    bias: Array  # (classes,)
    fit: LinearFit

    def logits(self, features: Array) -> Array:
        """Logits (n, classes) for features (n, width)."""
        found: Array = features @ self.weight.T + self.bias
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Training features and labels.

    Attributes:
        features: (n, width), finite.
        labels: (n,), in [0, n_classes).
        units: (n,), equal for images that must stay in one fold.
        balanced: whether all classes have the same weight.
        seed: seed of the folds and of the SVM's order.
    """

    kind: LinearKind
    features: Array
    labels: NDArray[np.int64]
    units: NDArray[np.int64]
    n_classes: int
    balanced: bool
    seed: int


def fit_linear_head(task: Task) -> LinearHead:
    """Fit the head for `task`; bitwise repeatable with the same task, library versions and processor."""
    from threadpoolctl import threadpool_limits

    mean, scale = _standardisation(task.features)
    standardised = (task.features - mean) / scale
    # The penalty is invariant to rotation, so with fewer images than features their span suffices.
    rotation = _span(standardised)
    reduced = standardised if rotation is None else standardised @ rotation
    with threadpool_limits(limits=1):  # the number of threads changes the last bits
        fit = _chosen(task, reduced)
        weight, bias = _fitted(task, reduced, task.labels, fit.c)
    weight, bias = weight / fit.temperature, bias / fit.temperature
    if rotation is not None:
        weight = weight @ rotation.T
    weight = weight / scale
    bias = bias - weight @ mean
    absent = np.setdiff1d(np.arange(task.n_classes), task.labels)
    weight[absent], bias[absent] = 0.0, _ABSENT_LOGIT
    return LinearHead(weight=weight, bias=bias, fit=fit)


def _standardisation(features: Array) -> tuple[Array, Array]:
    mean, scale = features.mean(axis=0), features.std(axis=0)
    return mean, np.where(scale <= _SPREAD_MIN * np.maximum(1.0, np.abs(mean)), np.inf, scale)


def _span(standardised: Array) -> Array | None:
    """Orthonormal directions (width, n) that span all rows; None if that would save nothing."""
    n, width = standardised.shape
    if n >= width:
        return None
    rotation: Array = np.linalg.svd(standardised, full_matrices=False)[2].T
    return rotation


def _chosen(task: Task, features: Array) -> LinearFit:
    """C and temperature from cross-validation, or fixed values if the classes are too small."""
    folds = _folds(task)
    rows = [_scored(task, features, folds, c) for c in GRIDS[task.kind]] if folds else []
    known = [row for row in rows if row is not None]
    if not known:
        return LinearFit(
            kind=task.kind,
            c=FIXED_C[task.kind],
            cv_accuracy=None,
            n_folds=0,
            temperature=_DEFAULT_T[task.kind],
        )
    _, c, accuracy, temperature = min(known)
    return LinearFit(kind=task.kind, c=c, cv_accuracy=accuracy, n_folds=len(folds), temperature=temperature)


_DEFAULT_T: dict[str, float] = {"logistic": 1.0, "svm": 0.3}  # median over image sets


def _folds(task: Task) -> tuple[Fold, ...]:
    """None if a class has a single unit, so that holding it out would leave nothing to fit on."""
    if len(np.unique(task.labels)) < 2 or fewest_units(task.labels, task.units) < 2:
        return ()
    return stratified_folds(task.labels, task.units, seed=task.seed)


def _scored(
    task: Task, features: Array, folds: Sequence[Fold], c: float
) -> tuple[float, float, float, float] | None:
    """(log-loss, C, accuracy, temperature) on held-out images; None if no fold could be trained."""
    margins = np.full((len(features), task.n_classes), np.nan)
    for train, held in folds:
        labels = task.labels[train]
        if len(np.unique(labels)) < 2:
            continue
        weight, bias = _fitted(task, features[train], labels, c)
        margins[held] = features[held] @ weight.T + bias
        margins[np.ix_(held, np.setdiff1d(np.arange(task.n_classes), labels))] = -np.inf
    judged = np.flatnonzero(~np.isnan(margins).any(axis=1))
    # Classes missing from a fold's training images cannot be predicted: wrong, and without a log-loss.
    usable = judged[np.isfinite(margins[judged, task.labels[judged]])]
    if not len(usable):
        return None
    weights = _weights(task, usable)
    temperature = _temperature(margins[usable], task.labels[usable], weights) if task.kind == "svm" else 1.0
    loss = _log_loss(margins[usable] / temperature, task.labels[usable], weights)
    hits = margins[judged].argmax(axis=1) == task.labels[judged]
    return loss, c, float(np.average(hits, weights=_weights(task, judged))), temperature


def _weights(task: Task, rows: NDArray[np.int64]) -> Array:
    if not task.balanced:
        return np.ones(len(rows))
    counts = np.bincount(task.labels[rows], minlength=task.n_classes)
    return 1.0 / counts[task.labels[rows]]


def _temperature(margins: Array, labels: NDArray[np.int64], weights: Array) -> float:
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: _log_loss(margins / np.exp(log), labels, weights),
        bounds=_LOG_TEMPERATURE,
        method="bounded",
    )
    return float(np.exp(found.x))


def _log_loss(logits: Array, labels: NDArray[np.int64], weights: Array) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_likelihood = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))
    return float(-np.average(log_likelihood, weights=weights))


def _fitted(task: Task, features: Array, labels: NDArray[np.int64], c: float) -> tuple[Array, Array]:
    """Weight (classes, width) and bias (classes,) of scikit-learn's classifier; zeros for absent classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    weight, bias = np.zeros((task.n_classes, features.shape[1])), np.zeros(task.n_classes)
    present = np.unique(labels)
    if len(present) < 2:
        return weight, bias
    class_weight = "balanced" if task.balanced else None
    if task.kind == "logistic":
        model = LogisticRegression(C=c, max_iter=1000, class_weight=class_weight)
    else:
        model = LinearSVC(
            C=c, dual="auto", max_iter=5000, class_weight=class_weight, random_state=task.seed % 2**32
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separable images need not converge at a large C
        model.fit(features, labels)
    rows, intercepts = model.coef_, model.intercept_
    if len(present) == 2:  # one margin, of the second class; softmax depends on differences only
        rows, intercepts = np.concatenate([-rows, rows]) / 2, np.concatenate([-intercepts, intercepts]) / 2
    weight[present], bias[present] = rows, intercepts
    return weight, bias
