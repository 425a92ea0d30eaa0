"""Measures from the scatter of features within and between classes: H-score, TransRate, GBC, PARC."""

import math

import numpy as np

from tlopt.insight.labelled_features import Floats, Labels, centred_and_scaled, left_singular_vectors

TRANSRATE_EPS = 1e-4  # squared distortion; value of the authors' code
GBC_COMPONENTS, GBC_VARIANCE_MIN = 64, 1e-4
PARC_COMPONENTS, PARC_IMAGES_MAX = 32, 500


def regularised_h_score(features: Floats, labels: Labels) -> float:
    """Variance between classes relative to the total variance, 0 to C - 1; higher is better.

    The covariance is Ledoit and Wolf's shrunk estimate: without shrinkage, pure noise scores C - 1 once there
    are as many features as images. Invariant to shift and unit.

    Source: Ibrahim et al. 2021, https://arxiv.org/abs/2110.06893, after Bao et al. 2019 (ICIP).
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    scaled = centred_and_scaled(features)
    n, d = scaled.shape
    u, s = left_singular_vectors(scaled)
    shrinkage = float(ledoit_wolf_shrinkage(scaled, assume_centered=True))
    total = (1 - shrinkage) * s**2 / n + shrinkage * float((s**2).sum()) / n / d
    between = _class_mean_squares(u * s, labels)
    return float((1 - shrinkage) * (between[s > 0] / total[s > 0]).sum())


def _class_mean_squares(features: Floats, labels: Labels) -> Floats:
    """Variance (D,) of the class means in each column, with classes weighted by their number of images."""
    means = [(float((labels == c).mean()), features[labels == c].mean(axis=0)) for c in np.unique(labels)]
    return np.asarray(sum(share * mean**2 for share, mean in means))


def transrate(features: Floats, labels: Labels) -> float:
    """Coding rate of all features minus that within classes, in nats, 0 or more; higher is better.

    Classes are weighted by their number of images, as in the paper; features are centred and scaled, because
    the allowed distortion has a unit.

    Source: Huang et al. 2022, https://arxiv.org/abs/2106.09362.
    """
    scaled = centred_and_scaled(features)
    within = (float((labels == c).mean()) * coding_rate(scaled[labels == c]) for c in np.unique(labels))
    return coding_rate(scaled) - sum(within)


def coding_rate(features: Floats, eps: float = TRANSRATE_EPS) -> float:
    """1/2 log det(I + Z'Z / (n eps)) for features Z (n, D)."""
    n, d = features.shape
    gram = features.T @ features if d < n else features @ features.T
    return 0.5 * float(np.linalg.slogdet(np.eye(len(gram)) + gram / (n * eps))[1])


def gbc(features: Floats, labels: Labels) -> float:
    """Negative sum of Bhattacharyya coefficients over ordered pairs of classes, -C (C - 1) to 0.

    Classes are modelled as Gaussians with diagonal covariance in the 64 largest principal components.

    Source: Pandy et al. 2022, https://arxiv.org/abs/2111.12780, with variances of at least 1e-4.
    """
    u, s = left_singular_vectors(centred_and_scaled(features))
    reduced = (u * s)[:, :GBC_COMPONENTS]
    means = np.array([reduced[labels == c].mean(axis=0) for c in np.unique(labels)])
    variances = np.array([reduced[labels == c].var(axis=0) for c in np.unique(labels)])
    return -overlap_of_gaussians(means, np.maximum(variances, GBC_VARIANCE_MIN))


def overlap_of_gaussians(means: Floats, variances: Floats) -> float:
    """Sum over ordered pairs of exp(-Bhattacharyya distance); `means` and `variances` are (C, D)."""
    logs = np.log(variances).sum(axis=1)
    total = 0.0
    for mean, variance, log in zip(means, variances, logs, strict=True):  # all at once: GBs for 1,000 classes
        shared = (variances + variance) / 2
        apart = ((means - mean) ** 2 / shared).sum(axis=1) / 8
        wider = (np.log(shared).sum(axis=1) - (logs + log) / 2) / 2
        total += float(np.exp(-(apart + wider)).sum())
    return total - len(means)


def parc(features: Floats, labels: Labels) -> float:
    """Rank correlation, -100 to 100, between distances of features and distances of labels.

    A distance is 1 minus the correlation of two images' standardised features, or of their one-hot labels.
    More than 32 features are reduced to 32 principal components. Of more than 500 images, 500 are used,
    spread evenly over the classes. NaN if fewer than two features vary, or no two images are of one class:
    nothing can be correlated.

    Source: Bolya et al. 2021, https://arxiv.org/abs/2111.06977.
    """
    from scipy.stats import spearmanr

    kept = parc_images(labels)
    reduced = features[kept]
    if features.shape[1] > PARC_COMPONENTS:
        reduced = _principal_components(reduced, PARC_COMPONENTS)
    spread = reduced.std(axis=0)
    varies = spread > 1e-9 * np.abs(reduced).max()
    if varies.sum() < 2 or len(np.unique(labels[kept])) == len(kept):
        return math.nan
    reduced = ((reduced - reduced.mean(axis=0)) / np.where(varies, spread, np.inf))[:, varies]
    hot = (labels[kept][:, None] == np.unique(labels)).astype(np.float64)
    upper = np.triu_indices(len(kept), 1)
    # rounded, so that equal distances stay equal
    near, same = (np.corrcoef(rows)[upper].round(12) for rows in (reduced, hot))
    return 100 * float(spearmanr(near, same).statistic)


def parc_images(labels: Labels) -> Labels:
    """Indices of the images that PARC uses, sorted by class."""
    kept = np.argsort(labels, kind="stable")
    if len(kept) > PARC_IMAGES_MAX:
        kept = kept[np.linspace(0, len(kept) - 1, PARC_IMAGES_MAX).round().astype(int)]
    return kept


def _principal_components(features: Floats, n_components: int) -> Floats:
    """Scores (N, k) of at most `n_components` principal components that vary.

    Signs are scikit-learn's, which the authors use: the largest weight of each component is positive. A
    correlation over components depends on their signs.
    """
    scaled = centred_and_scaled(features)
    u, s = left_singular_vectors(scaled)
    k = min(n_components, int((s > 0).sum()))
    weights = scaled.T @ u[:, :k]
    signs = np.sign(weights[np.abs(weights).argmax(axis=0), np.arange(k)])
    return np.asarray(u[:, :k] * s[:k] * signs)
