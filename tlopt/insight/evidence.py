"""LogME: the evidence for a Bayesian linear model of the labels, given features."""

import math

import numpy as np

from tlopt.insight.labelled_features import Floats, Labels, centred_and_scaled, left_singular_vectors

_LOG_RATIOS = np.linspace(-25.0, 25.0, 101)  # log of prior to noise precision; brackets the maximum


def logme(features: Floats, labels: Labels) -> float:
    """Mean log evidence per image, in nats, over one-hot columns of the labels; higher is better.

    Features are centred and scaled, and a constant is added, so that shift and unit do not matter. Only
    values for the same images are comparable: pure noise scores higher with more classes.

    Source: You et al. 2021, https://arxiv.org/abs/2102.11005. The authors' code omits a part of the
    log-determinant if there are more features than images; here it is complete.
    """
    n = len(labels)
    scaled = centred_and_scaled(features)
    u, s = left_singular_vectors(np.hstack([scaled, np.ones((n, 1))]))
    columns = (labels[:, None] == np.unique(labels)).astype(np.float64)
    return float(np.mean([max_log_evidence(u, s**2, column) for column in columns.T])) / n


def max_log_evidence(u: Floats, eigenvalues: Floats, y: Floats) -> float:
    """The maximum over alpha and beta of the log density of `y` (N,) under N(0, I / beta + F F' / alpha).

    For a given t = alpha / beta the best beta is N / q with q = y' (I + F F' / t)^-1 y, so that only t has to
    be searched.

    Args:
        u: (N, k), left singular vectors of F.
        eigenvalues: (k,), eigenvalues of F F'.
    """
    from scipy.optimize import minimize_scalar

    n = len(y)
    z = (u.T @ y) ** 2
    rest = max(float(y @ y - z.sum()), 0.0)

    def cost(log_t: float) -> float:
        t = math.exp(log_t)
        q = rest + float((z * t / (eigenvalues + t)).sum())
        return 0.5 * (float(np.log1p(eigenvalues / t).sum()) + n * math.log(max(q, 1e-300) / n))

    best = float(_LOG_RATIOS[np.argmin([cost(log_t) for log_t in _LOG_RATIOS])])
    step = float(_LOG_RATIOS[1] - _LOG_RATIOS[0])
    found = minimize_scalar(cost, bounds=(best - step, best + step), method="bounded")
    return -min(float(found.fun), cost(best)) - 0.5 * n * (1 + math.log(2 * math.pi))
