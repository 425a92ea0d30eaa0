"""Classification metrics computed from logits."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one network on one set of images; all but `log_loss` are in [0, 1]."""

    accuracy: float
    balanced_accuracy: float  # mean recall over the classes that occur
    macro_f1: float  # mean F1 over the classes that occur or are predicted
    log_loss: float  # mean negative log-likelihood, nats

    def as_dict(self) -> dict[str, float]:
        """Values by name."""
        return asdict(self)


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """Counts (n_classes, n_classes): true class by row, predicted class by column."""
    pairs = labels * n_classes + predicted
    counts: NDArray[np.int64] = np.bincount(pairs, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def log_probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-softmax of each row of `logits` (N, classes)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normaliser: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    logarithms: NDArray[np.float64] = shifted - normaliser
    return logarithms


def compute_metrics(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> Metrics:
    """Metrics of `logits` (N, classes) for `labels` (N,); the log-loss is NaN if a logit is not finite."""
    wide = logits.astype(np.float64)
    n_classes = logits.shape[1]
    counts = confusion_matrix(labels, wide.argmax(axis=1), n_classes).astype(np.float64)
    hits, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    seen = true > 0
    present = (true + predicted) > 0
    with np.errstate(invalid="ignore"):
        log_likelihood = log_probabilities(wide)[np.arange(len(labels)), labels]
    return Metrics(
        accuracy=float(hits.sum() / counts.sum()),
        balanced_accuracy=float((hits[seen] / true[seen]).mean()),
        macro_f1=float((2 * hits[present] / (true + predicted)[present]).mean()),
        log_loss=float(-log_likelihood.mean()),
    )


def mean(rows: list[Metrics]) -> Metrics:
    """Mean of each metric over `rows`."""
    names = rows[0].as_dict()
    return Metrics(**{name: float(np.mean([row.as_dict()[name] for row in rows])) for name in names})
