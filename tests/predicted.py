"""Planted predictions of a confirmed network."""

from collections.abc import Sequence

import numpy as np

from tlopt.confirmation.predictions import Predictions, Source, surest_mistakes
from tlopt.confirmation.verdict import SplitName
from tlopt.spec.point import Point


def make_predictions(
    rows: Sequence[tuple[int, int, float]],
    *,
    class_names: Sequence[str],
    split: SplitName = "val",
    point: Point | None = None,
    seed: int = 11,
    fingerprints: dict[str, str] | None = None,
) -> Predictions:
    """Predictions of images 0.png, 1.png and so on.

    Args:
        rows: true class, predicted class and its probability, by image.
    """
    labels, predicted, probability = (np.array(column) for column in zip(*rows, strict=True))
    shown = surest_mistakes(labels, predicted, probability)[:12]
    rest = (1 - probability) / max(1, len(class_names) - 1)
    return Predictions(
        source=Source(
            point=point.as_dict() if point is not None else {},
            seed=seed,
            fingerprints=fingerprints or {"data": "", "weights": ""},
        ),
        split=split,
        class_names=tuple(class_names),
        files=tuple(f"{index}.png" for index in range(len(rows))),
        labels=labels,
        predicted=predicted,
        probability=probability,
        true_probability=np.where(labels == predicted, probability, rest),
        thumbnails=np.full((len(shown), 8, 8, 3), 200, dtype=np.uint8),
        thumbnail_of=shown,
    )
