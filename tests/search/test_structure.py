"""Keys of network structure: what they come to, equal networks as equal points, and what stays as it was."""

from dataclasses import replace
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.search.defaults import defaults, initial_points
from tlopt.search.fixed_study import fixed_study, only_point
from tlopt.search.grid import grid_points
from tlopt.search.space import (
    check_depths,
    decode_params,
    encode_point,
    resolve,
    search_space,
    suggest,
    without_idle_keys,
)
from tlopt.search.warnings import study_warnings
from tlopt.spec.point import Point
from tlopt.spec.search_keys import RULES, STRUCTURE_KEYS

FACTS = tiny.facts()
SEARCH = """
backbone_depth   = { int = [1, 17] }
neck_layers      = { int = [0, 2] }
neck_width       = { choice = [32, 64] }
neck_kernel      = { choice = [1, 3] }
neck_convolution = { choice = ["plain", "separable"] }
activation       = { choice = ["relu", "silu"] }
head_layers      = { int = [0, 1] }
transfer_depth   = { int = [0, 17] }
freeze_depth     = { uniform = [0.0, 1.0] }
norm_depth       = { int = [0, 17] }
"""
STUDY = tiny.study(SEARCH)
DRAWN: dict[str, Any] = {
    "backbone_depth": 9,
    "neck_layers": 2,
    "neck_width": 64,
    "neck_kernel": 1,
    "neck_convolution": "separable",
    "activation": "silu",
    "head_layers": 1,
    "transfer_depth": 12,
    "freeze_depth": 1.0,
    "norm_depth": 17,
}
IDLE = {"neck_layers": 1, "neck_width": 32, "neck_kernel": 3, "neck_convolution": "plain"}
WHOLE = {name: field.default for name, field in Point.__dataclass_fields__.items() if name in STRUCTURE_KEYS}
params_of_study = st.fixed_dictionaries(
    {
        "backbone_depth": st.integers(1, 17),
        "neck_layers": st.integers(0, 2),
        "neck_width": st.sampled_from([32, 64]),
        "neck_kernel": st.sampled_from([1, 3]),
        "neck_convolution": st.sampled_from(["plain", "separable"]),
        "activation": st.sampled_from(["relu", "silu"]),
        "head_layers": st.integers(0, 1),
        "transfer_depth": st.integers(0, 17),
        "freeze_depth": st.floats(0, 1),
        "norm_depth": st.integers(0, 17),
    }
)


def point(**changes: Any) -> Point:
    return decode_params(DRAWN | changes, STUDY, FACTS)


def structure(found: Point) -> dict[str, Any]:
    return {name: getattr(found, name) for name in STRUCTURE_KEYS}


def test_drawn_values_reach_the_point_and_other_depths_are_capped() -> None:
    found = point()

    assert structure(found) == {name: DRAWN[name] for name in STRUCTURE_KEYS}
    depths = (found.transfer_depth, found.freeze_depth, found.anchor_depth, found.norm_depth)
    assert depths == (9, 9, 9, 0)  # no statistics to keep: all blocks are frozen
    assert point(freeze_depth=0.2).norm_depth == 9


def test_fractions_are_of_the_whole_backbone() -> None:
    study = tiny.study("backbone_depth = 0.5\ntransfer_depth = 0.25\nfreeze_depth = 0.75")

    found = suggest(FixedTrial({}), study, FACTS)

    assert (found.backbone_depth, found.transfer_depth, found.freeze_depth) == (8, 4, 4)


@pytest.mark.parametrize(
    ("depth", "blocks"), [("0.0", 1), ("0.02", 1), ("1", 1), ("0.98", 0), ("1.0", 0), ("17", 0)]
)
def test_at_least_one_block_is_used_and_all_are_none_left_out(depth: str, blocks: int) -> None:
    assert suggest(FixedTrial({}), tiny.study(f"backbone_depth = {depth}"), FACTS).backbone_depth == blocks


def test_with_all_blocks_nothing_of_the_neck_matters() -> None:
    same = {
        point(backbone_depth=17, head_layers=0, **{name: v})
        for name, v in {**IDLE, "activation": "relu"}.items()
    }

    assert len(same) == 1
    assert structure(same.pop()) == WHOLE


def test_without_layers_in_the_neck_its_other_keys_do_not_matter() -> None:
    same = {
        point(neck_layers=0, head_layers=0, **{name: v})
        for name, v in {**IDLE, "activation": "relu"}.items()
        if name != "neck_layers"
    }

    assert len(same) == 1


@pytest.mark.parametrize("changes", [{"neck_layers": 0}, {"backbone_depth": 17}, {"head_layers": 0}, {}])
def test_the_activation_matters_where_a_layer_has_it(changes: dict[str, int]) -> None:
    assert point(**changes) != point(**changes, activation="relu")


def test_a_whole_network_is_stored_as_before() -> None:
    found = suggest(FixedTrial({}), tiny.study("lr = 0.1"), FACTS)

    assert not set(STRUCTURE_KEYS) & found.as_dict().keys()
    assert Point.from_dict(found.as_dict()) == found
    assert Point.stored(found.as_dict() | WHOLE, "a trial") == found


def test_a_study_that_sets_the_keys_to_their_defaults_is_the_same_study() -> None:
    defaults_said = "\n".join(f"{name} = {spec_value(RULES[name].default)}" for name in STRUCTURE_KEYS)

    assert tiny.study(f"lr = 0.1\n{defaults_said}").digest == tiny.study("lr = 0.1").digest
    assert tiny.study("lr = 0.1\nneck_layers = 1").digest != tiny.study("lr = 0.1").digest


def spec_value(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


@settings(max_examples=200, deadline=None)
@given(params=params_of_study)
def test_every_point_has_parameters_that_give_it(params: dict[str, Any]) -> None:
    found = decode_params(params, STUDY, FACTS)

    again = encode_point(found, STUDY, FACTS)

    assert again is not None
    assert again.keys() == search_space(STUDY).keys()
    assert decode_params(again, STUDY, FACTS) == found


@settings(max_examples=200, deadline=None)
@given(params=params_of_study)
def test_a_point_of_the_search_is_the_point_of_its_config(params: dict[str, Any]) -> None:
    found = decode_params(params, STUDY, FACTS)

    text = fixed_study(STUDY, found, name="one")

    assert only_point(spec.loads(text, "config.toml"), FACTS) == found


def test_caps_are_found_again_where_other_depths_are_fixed() -> None:
    study = tiny.study("backbone_depth = { int = [3, 17] }\ntransfer_depth = 1.0\nfreeze_depth = 15")
    found = suggest(FixedTrial({"backbone_depth": 5}), study, FACTS)

    assert (found.transfer_depth, found.freeze_depth) == (5, 5)
    assert encode_point(found, study, FACTS) == {"backbone_depth": 5}


def test_defaults_and_initial_points_use_the_whole_network() -> None:
    rates = "lr = { log = [1e-4, 1.0] }\nlr_ratio = { uniform = [0.1, 1.0] }\n"
    study = tiny.study(SEARCH + rates + 'classifier = { choice = ["network", "logistic"] }')

    found = defaults(study, FACTS)

    assert [structure(default.point) for default in found] == [WHOLE] * 5
    assert all(default.params is not None for default in found)
    known = [default.params for default in found if default.params is not None]
    points = [decode_params(params, study, FACTS) for params in initial_points(study, FACTS, known)]
    assert {at.backbone_depth for at in points} == {0}


def test_defaults_stay_whole_where_the_study_only_has_shortened_networks() -> None:
    found = defaults(tiny.study("backbone_depth = 0.5\nneck_layers = 1"), FACTS)

    assert [default.params for default in found] == [None] * len(found)
    assert {default.point.backbone_depth for default in found} == {0}


def test_a_grid_has_one_point_for_all_necks_of_the_whole_network() -> None:
    grid = '[sampler]\nkind = "grid"\n'
    study = tiny.study(
        "backbone_depth = { choice = [8, 17] }\nneck_layers = { choice = [0, 1, 2] }", more=grid, trials=4
    )

    found = {(each.point.backbone_depth, each.point.neck_layers) for each in grid_points(study, FACTS)}

    assert found == {(8, 0), (8, 1), (8, 2), (0, 0)}


def test_two_backbones_are_shortened_by_the_same_share() -> None:
    study = tiny.study("backbone_depth = 0.5", backbone='{ choice = ["small", "large"] }')

    depths = {
        name: suggest(FixedTrial({"backbone": name}), study, FACTS).backbone_depth for name in tiny.BLOCKS
    }

    assert depths == {"small": 4, "large": 8}


@pytest.mark.parametrize(
    ("search", "said", "drawn"),
    [
        (
            "neck_layers = { int = [1, 2] }",
            "neck_layers has no effect: no trial shortens the backbone",
            set(),
        ),
        (
            "backbone_depth = { choice = [1.0, 0.99] }\nneck_width = { choice = [8, 16] }",
            "neck_width has no effect: no trial shortens the backbone",
            {"backbone_depth"},
        ),
        (
            "backbone_depth = 0.5\nneck_width = { choice = [8, 16] }",
            "neck_width has no effect: no trial has a neck; set or search neck_layers",
            set(),
        ),
        ('activation = { choice = ["relu", "elu"] }', "activation has no effect: there is no layer", set()),
        (
            'head_layers = { int = [0, 1] }\nactivation = { choice = ["relu", "elu"] }',
            "",
            {"head_layers", "activation"},
        ),
        ("backbone_depth = 0.5\nneck_layers = 1\nneck_width = { choice = [8, 16] }", "", {"neck_width"}),
    ],
)
def test_keys_without_effect_are_not_drawn_and_a_warning_says_so(
    search: str, said: str, drawn: set[str]
) -> None:
    study = tiny.study(search)
    found = [words for words in study_warnings(study, FACTS) if "has no effect" in words]

    assert set(search_space(without_idle_keys(study, FACTS))) == drawn
    assert [words.startswith(said) for words in found] == [True] * bool(said)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            "backbone_depth = 0",
            "search.backbone_depth: 0 is not allowed: a whole number of blocks from 1, or a",
        ),
        ("backbone_depth = 1.5", "search.backbone_depth: 1.5 is not allowed"),
        ("neck_kernel = 2", "search.neck_kernel: 2 is not allowed: an odd number from 1 to 7"),
        (
            "neck_kernel = { int = [1, 3] }",
            "search.neck_kernel: an odd number is fixed or searched with choice",
        ),
        ('activation = "sigmoid"', """search.activation: 'sigmoid' is not allowed: one of "relu", "gelu","""),
        ('neck_convolution = "dense"', "search.neck_convolution: 'dense' is not allowed"),
        ("neck_layers = 5", "search.neck_layers: 5 is not allowed: a whole number from 0 to 4"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(search: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        tiny.study(search)

    assert message in str(error.value)


def test_a_depth_beyond_the_network_is_refused() -> None:
    with pytest.raises(SpecError, match=r"search\.backbone_depth: 18 is beyond the last block of large"):
        check_depths(tiny.study("backbone_depth = { int = [4, 18] }"), FACTS)


def test_a_point_that_transfers_more_than_it_uses_is_none() -> None:
    with pytest.raises(ValueError, match=r"self.transfer_depth=9 is not in \[0, self.backbone_depth=4\]"):
        replace(point(), backbone_depth=4)


def test_a_linear_classifier_takes_the_whole_network() -> None:
    found = resolve({"classifier": "logistic", **DRAWN}, "large", 5, FACTS)

    assert structure(found) == WHOLE
    assert found.freeze_depth == 17
