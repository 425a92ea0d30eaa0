"""Points and seeds: checked depths, an exact round trip, seeds that depend on every part."""

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlopt.errors import StorageError
from tlopt.spec.point import Point, completed, seed_for
from tlopt.spec.search_keys import RULES, Number

VALUES: dict[str, Any] = {
    "backbone": "resnet18",
    "resolution": 224,
    "transfer_depth": 5,
    "freeze_depth": 2,
    "anchor_depth": 4,
    "lr": 0.1 + 0.2,
    "lr_ratio": 0.1,
    "lr_decay": 0.9,
    "l2_sp": 1e-7,
    "l2": 0.0,
    "l2_anchored": 0.0,
    "optimizer": "sgd",
    "momentum": 0.9,
    "batch_size": 32,
    "epochs": 3,
    "warmup_fraction": 0.1,
    "schedule": "cosine",
    "label_smoothing": 0.1,
    "class_weights": "none",
    "grad_clip": 0.0,
    "augmentation": 0.5,
    "mixup": 0.0,
    "head_layers": 0,
    "head_width": 256,
    "head_dropout": 0.0,
    "head_first_epochs": 0,
}


ALL_IMAGES = {"train_images": 0, "label_noise": 0.0}
WHOLE = {
    "backbone_depth": 0,
    "neck_layers": 0,
    "neck_width": 256,
    "neck_kernel": 3,
    "neck_convolution": "plain",
    "activation": "relu",
}
LATER = {"norm_depth": 3, "norm_affine": "keep"}  # keys that earlier versions did not store


def test_a_stored_point_without_later_keys_means_what_it_meant() -> None:
    point = Point.stored(VALUES, "trial 12")

    assert (point.norm_depth, point.norm_affine) == (0, "train")


@pytest.mark.parametrize("given", [{}, {"norm_depth": 3}, LATER])
def test_a_point_is_stored_as_before_but_for_later_keys_in_use(given: dict[str, Any]) -> None:
    whole = VALUES | {"classifier": "network", "norm_depth": 0, "norm_affine": "train"} | given

    assert Point.from_dict(whole).as_dict() == VALUES | given
    assert Point.from_dict(VALUES | given) == Point.from_dict(whole)


def test_readers_of_single_keys_find_later_ones_too() -> None:
    usual = {"classifier": "network", "norm_depth": 0, "norm_affine": "train"} | ALL_IMAGES | WHOLE

    assert completed(VALUES) == VALUES | usual
    assert completed(VALUES | LATER) == VALUES | usual | LATER


def test_a_point_comes_back_from_json_to_the_bit() -> None:
    point = Point.from_dict(VALUES)

    assert Point.from_dict(json.loads(json.dumps(point.as_dict()))) == point


@pytest.mark.parametrize("name", VALUES)
def test_a_missing_key_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"missing \['{name}'\], unknown \[\]"):
        Point.from_dict({key: value for key, value in VALUES.items() if key != name})


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ValueError, match=r"missing \[\], unknown \['depht'\]"):
        Point.from_dict({**VALUES, "depht": 3})


def test_a_stored_point_comes_back() -> None:
    assert Point.stored(VALUES, "trial 12") == Point.from_dict(VALUES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {**VALUES, "depht": 3},
            "trial 12 of x: .* the key depht that .* later version .*upgrade",
        ),
        ({**VALUES, "b": 3, "a": 3}, "the keys a, b that this tlopt does not know"),
        ({**VALUES, "freeze_depth": 6}, "trial 12 of x: its point is not one: .*freeze_depth=6"),
        ({key: VALUES[key] for key in VALUES if key != "lr"}, "trial 12 of x: its point lacks the key lr;"),
        (
            {**VALUES, "head_layers": "1"},
            "trial 12 of x: its point is damaged .head_layers = '1'.: .* backup",
        ),
        ({**VALUES, "lr": float("nan")}, "damaged .lr = nan."),
        ({**VALUES, "epochs": 2.5, "optimizer": 3}, "damaged .*(epochs = 2.5|optimizer = 3)"),
        ({**VALUES, "batch_size": True}, "damaged .batch_size = True."),
        (
            {**VALUES, "head_dropout": 5},
            r"trial 12 of x: .*damaged .head_dropout = 5 is not a number from 0 to 0.95.: .* backup",
        ),
        ({**VALUES, "batch_size": 1, "momentum": 1.0}, "momentum = 1.0 is not .*, batch_size = 1 is not"),
        (None, "trial 12 of x: its point lacks the keys anchor_depth, "),
    ],
)
def test_a_stored_point_of_another_version_says_whose_and_what_to_do(
    values: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(StorageError, match=message):
        Point.stored(values, "trial 12 of x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze_depth": 6}, "freeze_depth=6 is not in"),
        ({"freeze_depth": -1}, "freeze_depth=-1 is not in"),
        ({"anchor_depth": 6}, "anchor_depth=6 is not in"),
        ({"anchor_depth": -1}, "anchor_depth=-1 is not in"),
        ({"norm_depth": 6}, "norm_depth=6 is not in"),
        ({"norm_depth": -1}, "norm_depth=-1 is not in"),
        ({"transfer_depth": 1}, "transfer_depth=1"),
    ],
)
def test_a_depth_beyond_the_transferred_blocks_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Point.from_dict(VALUES | changes)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if isinstance(rule, Number)])
def test_a_stored_number_is_one_that_a_search_can_have(name: str) -> None:
    rule = RULES[name]
    assert isinstance(rule, Number)
    for value in (rule.low, rule.high):
        assert getattr(Point.stored(VALUES | {name: value}, "trial 12"), name) == value
    with pytest.raises(StorageError, match=f"{name} = "):
        Point.stored(VALUES | {name: rule.high * 2 if rule.whole else rule.high * 1.5}, "trial 12")


def test_a_point_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Point.from_dict(VALUES).lr = 1.0  # type: ignore[misc]


# sha256(b"7/order/0")[:8], big-endian, without its lowest bit
def test_a_seed_is_the_same_on_every_machine() -> None:
    assert seed_for(7, "order", 0) == 1966837976469494399


@given(st.lists(st.integers(0, 10**9) | st.text("abc", min_size=1), min_size=1, max_size=4))
def test_a_seed_is_a_63_bit_number(parts: list[int | str]) -> None:
    assert 0 <= seed_for(*parts) < 2**63


def test_a_seed_depends_on_every_part_and_their_order() -> None:
    seeds = {seed_for(*parts) for parts in [(1, 2), (2, 1), (12,), (1, 2, 0), ("order", 1), ("views", 1)]}

    assert len(seeds) == 6
