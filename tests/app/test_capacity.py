"""Capacity along curves: trained parameters against labels, and the interpolation threshold."""

import math
from typing import Any

import finished
import numpy as np
import pytest

from tlopt import spec
from tlopt.analysis.curves import Curve, Curves
from tlopt.analysis.shape import shape_of
from tlopt.app.grids.capacity import capacity_lines, n_trained_of, threshold

FILE = """
name = "planted"
data = { source = "images" }
model = { backbone = "resnet18" }
budget = { trials = 1, epochs = 2 }
"""
N_CLASSES = 10
HEAD = 512 * N_CLASSES + N_CLASSES
RESNET18 = 11_176_512 + HEAD  # torchvision's without its classifier, and the head


def curves_over(over: str, places: tuple[Any, ...], train: tuple[float, ...] = (), **point: Any) -> Curves:
    """A curve of flat values for which 600 images of ten classes were trained on."""
    values = np.full((len(places), 2), 0.5)
    keys = {"transfer_depth": 9, "freeze_depth": 0, "study": "planted", "width": 1.0} | point
    curve = Curve(
        keys={},
        places=places,
        points=tuple({**finished.make_point().as_dict(), **keys, over: place} for place in places),
        n_labels=(6000,) * len(places),
        values=values,
        choices=tuple(row[None] for row in values),
        train=train or (math.nan,) * len(places),
        shape=shape_of(values),
    )
    return Curves(
        study=spec.loads(FILE, "planted.toml"),
        names=("planted",),
        over=over,
        curves=(curve,),
        n_classes=N_CLASSES,
        n_val=50,
        n_splits=1,
        n_ended=1,
        n_planned=1,
        without_value={},
        tuned=(),
    )


def test_trained_parameters_are_those_above_the_frozen_blocks() -> None:
    found = curves_over("freeze_depth", (0, 9))

    assert n_trained_of(found, found.curves[0]) == (RESNET18, HEAD)


def test_places_are_called_over_and_under_parameterised() -> None:
    found = curves_over("freeze_depth", (0, 9))
    (line,) = capacity_lines(found, found.curves[0], (RESNET18, HEAD))

    assert line == (
        "Effectively over-parameterised at 0 frozen; under-parameterised at 9 frozen: trained parameters"
        " against training images x classes."
    )


def test_over_epochs_there_is_one_number() -> None:
    found = curves_over("freeze_depth", (9,))
    over_epochs = curves_over("epoch", (1, 2))
    (line,) = capacity_lines(over_epochs, over_epochs.curves[0], (HEAD, HEAD))

    assert n_trained_of(found, found.curves[0]) == (HEAD,)
    assert "under-parameterised: 5,130 trained parameters against 6,000 training images x classes" in line


@pytest.mark.parametrize(
    ("over", "train", "at"),
    [
        ("freeze_depth", (1.0, 0.995, 0.9), 1),  # capacity falls along the axis: the last place that fits
        ("width", (0.7, 0.99, 1.0), 1),  # it rises: the first
        ("epoch", (0.7, 0.99, 1.0), 1),
        ("train_images", (1.0, 0.9, 0.8), 0),
        ("freeze_depth", (1.0, 1.0, 1.0), None),  # everywhere
        ("freeze_depth", (0.9, 0.8, 0.7), None),  # nowhere
        ("lr", (0.9, 1.0, 0.7), None),  # capacity does not change
        ("freeze_depth", (math.nan, math.nan, math.nan), None),
    ],
)
def test_the_threshold_is_the_place_of_least_capacity_that_fits(
    over: str, train: tuple[float, ...], at: int | None
) -> None:
    found = curves_over(over, (1, 2, 3), train)

    assert threshold(found, found.curves[0]) == at


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ((1.0, 0.995, 0.9, 0.8), "at 1 frozen, 2 frozen."),
        ((1.0, 0.995, 0.99, 0.8), "at 1 frozen to 3 frozen."),
        ((1.0, 1.0, 0.99, 0.99), "at every place."),
        ((0.9, 0.8, 0.7, 0.6), "nowhere."),
    ],
)
def test_it_is_said_where_the_labels_are_fitted(train: tuple[float, ...], said: str) -> None:
    found = curves_over("freeze_depth", (1, 2, 3, 4), train)

    assert list(capacity_lines(found, found.curves[0], ())) == [
        f"Fits its training labels (99 % and more) {said}"
    ]


def test_of_an_unknown_network_nothing_is_counted() -> None:
    found = curves_over("freeze_depth", (1, 2), backbone="of another machine")

    assert n_trained_of(found, found.curves[0]) == ()
    assert list(capacity_lines(found, found.curves[0], ())) == []
