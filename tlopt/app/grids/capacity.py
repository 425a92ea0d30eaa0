"""Capacity along a curve: trained parameters against labels, and where the training images are fitted."""

import math
from collections.abc import Iterator, Sequence

from tlopt.analysis.curves import EPOCH, FITS, STUDY, WIDTH, Curve, Curves, value_name
from tlopt.errors import MissingExtra, SpecError
from tlopt.spec.point import Point
from tlopt.system.words import joined

_FALLS_ALONG = ("freeze_depth", "train_images", "label_noise")  # fewer parameters, or more to fit
_RISES_ALONG = (WIDTH, EPOCH)
_PLACES_NAMED = 12


def threshold(found: Curves, curve: Curve) -> int | None:
    """The index of the interpolation threshold; None if no place is one, or the axis has no order.

    It is the last place, from that with the most capacity on, at which training accuracy reaches `FITS`;
    there is none if all places do.
    """
    fitting = [index for index, accuracy in enumerate(curve.train) if accuracy >= FITS]
    if not fitting or len(fitting) == len(curve.train):
        return None
    if found.over in _FALLS_ALONG:
        return fitting[-1]
    return fitting[0] if found.over in _RISES_ALONG else None


def n_trained_of(found: Curves, curve: Curve) -> tuple[int, ...]:
    """The number of trained parameters at each place; empty if a network cannot be built here."""
    from tlopt.model.build import n_trained

    counts: dict[Point, int] = {}
    points = [
        Point.from_dict({k: v for k, v in at.items() if k not in (STUDY, WIDTH)}) for at in curve.points
    ]
    n_classes = found.n_classes
    if not n_classes:
        return ()
    try:
        for point in points:
            counts[point] = counts.get(point) or n_trained(point, n_classes)
    except (MissingExtra, SpecError):  # a grid of another machine may be drawn without its library
        return ()
    return tuple(counts[point] for point in points)


def capacity_lines(found: Curves, curve: Curve, counts: Sequence[int]) -> Iterator[str]:
    """Sentences on over- and under-parameterisation and on interpolation, for curves of networks."""
    if counts and found.over == EPOCH:
        kind = "over" if counts[0] > curve.n_labels[0] else "under"
        yield (
            f"Effectively {kind}-parameterised: {counts[0]:,} trained parameters against"
            f" {curve.n_labels[0]:,} training images x classes."
        )
    elif counts:
        over = [i for i, n in enumerate(counts) if n > curve.n_labels[i]]
        under = [i for i in range(len(counts)) if i not in over]
        kinds = [f"{kind}-parameterised at {_where(found, curve, at)}" for kind, at in
                 (("over", over), ("under", under)) if at]  # fmt: skip
        yield f"Effectively {'; '.join(kinds)}: trained parameters against training images x classes."
    if not all(map(math.isnan, curve.train)):
        fitting = [i for i, accuracy in enumerate(curve.train) if accuracy >= FITS]
        where = f"at {_where(found, curve, fitting)}" if fitting else "nowhere"
        yield f"Fits its training labels ({100 * FITS:g} % and more) {where}."


def _where(found: Curves, curve: Curve, indices: Sequence[int]) -> str:
    """As in "2 frozen to 7 frozen", "0 frozen, 9 frozen" and "every place"."""
    if len(indices) == len(curve.places):
        return "every place"
    named = [value_name(found.over, curve.places[index]) for index in indices]
    if len(indices) > 2 and indices[-1] - indices[0] == len(indices) - 1:
        return f"{named[0]} to {named[-1]}"
    return joined(named, _PLACES_NAMED)
