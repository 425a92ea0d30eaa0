"""Confidence intervals of small samples, and the smallest significant difference in images.

Student's t is computed in closed form for whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and
26.7.4), so that no command needs SciPy for it.
"""

import math

CONFIDENCE = 0.95

# Smallest number of images, all in favour of one side, that is significant at 5 % in a two-sided sign test:
# 2 * 0.5**6 = 0.031, 2 * 0.5**5 = 0.063. Fewer differing images prove nothing, however many seeds agree.
IMAGES_MIN = 6


def t_within(t: float, df: int) -> float:
    """Probability that Student's t with `df` degrees of freedom lies in [-t, t]."""
    theta = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = df % 2
    term, total = (cosine, 0.0) if odd else (1.0, 1.0)
    if odd and df > 1:
        total = term
    for k in range(3 if odd else 2, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (theta + sine * total) if odd else sine * total


def t_quantile(df: int, confidence: float = CONFIDENCE) -> float:
    """The t at which `t_within(t, df)` is `confidence`: 4.303 at two degrees of freedom and 95 %."""
    low, high = 0.0, 1.0
    while t_within(high, df) < confidence:
        high *= 2
    for _ in range(60):  # bisection to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, df) < confidence else (low, middle)
    return (low + high) / 2


def half_width(std: float, n: int) -> float:
    """Half the width of the 95 % t interval of a mean; NaN for a single value.

    Args:
        std: sample standard deviation.
        n: sample size.
    """
    return math.nan if n < 2 else t_quantile(n - 1) * std / math.sqrt(n)


def images_of(difference: float, n_images: int) -> float:
    """The difference of two fractions expressed in images, out of `n_images`."""
    return abs(difference) * n_images
