"""The fastest numerics are chosen if they win by a margin; fixed ones are not measured."""

from typing import Any

import pytest
import torch

from tlopt.model.weights import Weights, load_weights
from tlopt.training.numerics import Layout, Numerics, Precision
from tlopt.trial import autotune
from tlopt.trial.autotune import fastest_numerics

USUAL = Numerics("float32", "channels_first")
FASTER = Numerics("bfloat16", "channels_last")


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights("resnet18", "none")


def chosen(
    weights: Weights,
    patch: pytest.MonkeyPatch,
    seconds: dict[Numerics, float],
    precision: Precision | None = None,
    layout: Layout | None = None,
) -> tuple[Numerics, set[Numerics]]:
    """The chosen numerics if steps take `seconds`, by default 1, and those that were measured."""
    measured = set()

    def planted(_: object, resolution: int, *, numerics: Numerics, **__: Any) -> float:
        measured.add(numerics)
        return seconds.get(numerics, 1.0)

    patch.setattr(autotune, "seconds_per_image", planted)
    found = fastest_numerics(
        weights,
        USUAL,
        precision=precision,
        layout=layout,
        resolution=32,
        n_classes=3,
        batch_size=8,
        device=torch.device("cpu"),
    )
    return found, measured


def test_the_fastest_is_chosen_where_it_gains_a_tenth(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(weights, monkeypatch, {FASTER: 0.89})[0] == FASTER
    assert chosen(weights, monkeypatch, {FASTER: 0.91})[0] == USUAL
    assert chosen(weights, monkeypatch, {})[0] == USUAL


def test_what_is_named_is_kept(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    found, measured = chosen(weights, monkeypatch, {FASTER: 0.1}, precision="float32")
    assert found == USUAL
    assert {numerics.precision for numerics in measured} == {"float32"}

    found, measured = chosen(weights, monkeypatch, {FASTER: 0.1}, layout="channels_last")
    assert found == FASTER
    assert {numerics.layout for numerics in measured} == {"channels_last"}


def test_a_measurement_trains_a_little_network(weights: Weights) -> None:
    seconds = autotune.seconds_per_image(
        weights,
        32,
        n_classes=3,
        batch_size=4,
        device=torch.device("cpu"),
        numerics=Numerics("bfloat16", "channels_last"),
    )
    assert seconds > 0
