"""The search space: the meaning of draws, the points in it, and its constant shape."""

import math
from dataclasses import replace
from typing import Any

import optuna
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FixedTrial

from tlopt.errors import SpecError
from tlopt.search.defaults import Default, defaults
from tlopt.search.plan import search_plan
from tlopt.search.space import check_depths, decode_params, encode_point, suggest
from tlopt.search.user_params import point_of_params
from tlopt.spec import Study
from tlopt.spec.dimensions import Log
from tlopt.spec.point import Point

FACTS = tiny.facts()
LENGTHENED = Log(1e-4, 1.0, zero=True).drawn_low

EVERY_KIND = """
transfer_depth = { int = [0, 17] }
freeze_depth   = { uniform = [0.0, 1.0] }
anchor_depth   = { choice = [0, 3, 17] }
lr             = { log = [1e-4, 1.0] }
lr_ratio       = { uniform = [0.0, 1.0] }
l2_sp          = { log = [1e-4, 1.0], zero = true }
momentum       = 0.5
batch_size     = { choice = [8, 16] }
schedule       = { choice = ["cosine", "constant"] }
head_layers    = { int = [0, 2] }
"""
KEPT_STATISTICS = """
transfer_depth = { int = [0, 17] }
freeze_depth   = { int = [0, 17] }
norm_depth     = { int = [0, 17] }
norm_affine    = { choice = ["train", "keep"] }
"""
BOTH_OPTIMIZERS = """
optimizer = { choice = ["sgd", "adamw"] }
lr        = { sgd = { log = [1e-3, 1.0] }, adamw = { log = [1e-5, 1e-2] } }
l2        = { sgd = { uniform = [0.0, 1e-3] }, adamw = 0.02 }
l2_sp     = { sgd = { log = [1e-4, 1.0], zero = true }, adamw = { log = [1e-3, 10.0], zero = true } }
"""
BOTH_BACKBONES = """
transfer_depth = { uniform = [0.0, 1.0] }
freeze_depth   = { choice = [0.0, 0.5, 1.0] }
lr             = { log = [1e-4, 1.0] }
"""
STUDIES = {
    "every kind": tiny.study(EVERY_KIND),
    "kept statistics": tiny.study(KEPT_STATISTICS),
    "two optimizers": tiny.study(BOTH_OPTIMIZERS),
    "two backbones": tiny.study(BOTH_BACKBONES, backbone='{ choice = ["small", "large"] }'),
}
DRAWN = {
    "transfer_depth": 11,
    "freeze_depth": 0.25,
    "anchor_depth": 3,
    "lr": 0.125,
    "lr_ratio": 0.75,
    "l2_sp": 0.5,
    "batch_size": 16,
    "schedule": "constant",
    "head_layers": 2,
}
KEPT_STATISTICS_DRAWN = {"transfer_depth": 17, "freeze_depth": 3, "norm_depth": 9, "norm_affine": "keep"}
whatever_study = st.sampled_from(sorted(STUDIES)).map(STUDIES.__getitem__)


def point(search: str, params: dict[str, Any], backbone: str = '"large"', transferable: bool = True) -> Point:
    study = tiny.study(search, backbone=backbone)
    return suggest(FixedTrial(params), study, tiny.facts(transferable=transferable))


# What a draw means


def test_every_kind_of_dimension_reaches_the_point_as_it_was_drawn() -> None:
    found = point(EVERY_KIND, DRAWN).as_dict()

    assert {name: found[name] for name in DRAWN if name != "freeze_depth"} == {
        name: value for name, value in DRAWN.items() if name != "freeze_depth"
    }


def test_a_fixed_key_is_not_asked_for() -> None:
    assert point(EVERY_KIND, DRAWN).momentum == 0.5


def test_keys_that_the_file_leaves_out_have_their_defaults() -> None:
    found = point("", {})

    assert (found.transfer_depth, found.freeze_depth, found.anchor_depth) == (17, 0, 17)
    assert (found.lr, found.l2, found.l2_sp) == (0.00125, 0.02, 0.0)
    assert (found.optimizer, found.epochs, found.resolution, found.backbone) == ("adamw", 30, 224, "large")


def test_a_fixed_optimizer_brings_its_own_defaults() -> None:
    found = point('optimizer = "sgd"', {})

    assert (found.lr, found.l2) == (0.0125, 5e-4)


@pytest.mark.parametrize(
    ("search", "depths"),
    [
        ("transfer_depth = 5\nfreeze_depth = 9", (5, 5, 5)),
        ("transfer_depth = 5\nfreeze_depth = 3", (5, 3, 5)),
        ("transfer_depth = 5\nanchor_depth = 9", (5, 0, 5)),
        ("transfer_depth = 5\nanchor_depth = 2", (5, 0, 2)),
        ("transfer_depth = 0\nfreeze_depth = 17\nanchor_depth = 17", (0, 0, 0)),
        ("transfer_depth = 0.5\nfreeze_depth = 0.25", (8, 4, 8)),  # 8.5 is rounded to even
        ("transfer_depth = 1.0\nfreeze_depth = 1.0\nanchor_depth = 0.0", (17, 17, 0)),
        ("transfer_depth = 1", (1, 0, 1)),
        ("freeze_depth = 1.0", (17, 17, 17)),
    ],
)
def test_a_depth_reaches_no_further_than_the_transferred_blocks(
    search: str, depths: tuple[int, int, int]
) -> None:
    found = point(search, {})

    assert (found.transfer_depth, found.freeze_depth, found.anchor_depth) == depths


@pytest.mark.parametrize(
    ("search", "norm_depth", "norm_affine"),
    [
        ("norm_depth = 9", 9, "train"),
        ('norm_depth = 9\nnorm_affine = "keep"', 9, "keep"),
        ("norm_depth = 9\nfreeze_depth = 8", 9, "train"),
        ("norm_depth = 1.0", 17, "train"),
        ("norm_depth = 0.5", 8, "train"),
        # fresh blocks have no statistics to keep
        ("norm_depth = 9\ntransfer_depth = 5", 5, "train"),
        ("norm_depth = 9\ntransfer_depth = 0", 0, "train"),
        # frozen blocks keep theirs anyway
        ("norm_depth = 9\nfreeze_depth = 9", 0, "train"),
        ('norm_depth = 9\nfreeze_depth = 12\nnorm_affine = "keep"', 0, "train"),
        ("norm_depth = 9\ntransfer_depth = 5\nfreeze_depth = 5", 0, "train"),
        ('norm_affine = "keep"', 0, "train"),
    ],
)
def test_statistics_are_kept_in_trained_blocks_that_are_pretrained(
    search: str, norm_depth: int, norm_affine: str
) -> None:
    found = point(search, {})

    assert (found.norm_depth, found.norm_affine) == (norm_depth, norm_affine)


@settings(max_examples=60, deadline=None)
@given(depths=st.tuples(*[st.integers(0, 17)] * 3), affine=st.sampled_from(["train", "keep"]))
def test_two_draws_of_one_training_are_one_point(depths: tuple[int, int, int], affine: str) -> None:
    names = ("transfer_depth", "freeze_depth", "norm_depth")
    drawn = dict(zip(names, depths, strict=True)) | {"norm_affine": affine}
    found = point(KEPT_STATISTICS, drawn)
    without = point(KEPT_STATISTICS, drawn | {"norm_depth": 0, "norm_affine": "train"})

    transfer, freeze, norm = depths
    assert (found == without) is (min(norm, transfer) <= min(freeze, transfer))
    assert found.norm_depth in (0, min(norm, transfer))


def test_without_batch_norm_no_depth_of_statistics_is_drawn_and_none_is_set() -> None:
    study, facts = tiny.study(KEPT_STATISTICS), tiny.facts(batch_norm=False)

    assert list(search_plan(study, facts, 1).space) == ["transfer_depth", "freeze_depth"]
    assert list(search_plan(study, FACTS, 1).space) == list(KEPT_STATISTICS_DRAWN)
    assert decode_params(KEPT_STATISTICS_DRAWN, study, facts).norm_depth == 0
    check_depths(study, facts)
    with pytest.raises(SpecError, match=r"^search\.norm_depth = 17: large has no batch-norm layers"):
        check_depths(tiny.study("norm_depth = 17"), facts)
    check_depths(tiny.study("norm_depth = 0"), facts)


def test_a_trial_that_somebody_added_to_a_search_without_batch_norm_is_a_point_of_it() -> None:
    study, facts = tiny.study(KEPT_STATISTICS), tiny.facts(batch_norm=False)

    found = point_of_params({"transfer_depth": 12, "freeze_depth": 4}, study, facts)

    assert (found.transfer_depth, found.freeze_depth, found.norm_depth) == (12, 4, 0)


@pytest.mark.parametrize(("backbone", "blocks"), [("small", 5), ("large", 10)])
def test_a_fraction_is_of_the_backbone_that_was_drawn(backbone: str, blocks: int) -> None:
    found = point(
        BOTH_BACKBONES,
        {"backbone": backbone, "transfer_depth": 0.6, "freeze_depth": 0.5, "lr": 0.1},
        backbone='{ choice = ["small", "large"] }',
    )

    assert (found.backbone, found.transfer_depth) == (backbone, blocks)


def test_the_default_resolution_and_rate_are_those_of_the_backbone_that_was_drawn() -> None:
    drawn = {"backbone": "small", "transfer_depth": 0.6, "freeze_depth": 0.5, "lr": 0.1}
    found = point(BOTH_BACKBONES, drawn, backbone='{ choice = ["small", "large"] }')

    assert found.resolution == tiny.RESOLUTION["small"]


def test_without_weights_every_depth_is_zero() -> None:
    found = point(EVERY_KIND, DRAWN, transferable=False)

    assert (found.transfer_depth, found.freeze_depth, found.anchor_depth) == (0, 0, 0)


@pytest.mark.parametrize(
    ("drawn", "value"), [(LENGTHENED, 0.0), (0.99e-4, 0.0), (1e-4, 1e-4), (0.5, 0.5), (1.0, 1.0)]
)
def test_a_draw_below_the_range_of_a_strength_is_off(drawn: float, value: float) -> None:
    assert point(EVERY_KIND, {**DRAWN, "l2_sp": drawn}).l2_sp == value


@pytest.mark.parametrize(
    ("optimizer", "lr", "l2", "l2_sp"),
    [("sgd", math.sqrt(1e-3), 5e-4, 1.0), ("adamw", math.sqrt(1e-7), 0.02, 10.0)],
)
def test_a_position_lies_in_the_range_of_the_optimizer_that_was_drawn(
    optimizer: str, lr: float, l2: float, l2_sp: float
) -> None:
    drawn = {"optimizer": optimizer, "lr_position": 0.5, "l2_position": 0.5, "l2_sp_position": 1.0}

    found = point(BOTH_OPTIMIZERS, drawn)

    assert (found.lr, found.l2, found.l2_sp) == pytest.approx((lr, l2, l2_sp))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_first_fifth_of_the_positions_of_a_strength_is_off(optimizer: str) -> None:
    drawn = {"optimizer": optimizer, "lr_position": 0.5, "l2_position": 0.5}

    below, above = (point(BOTH_OPTIMIZERS, {**drawn, "l2_sp_position": p}).l2_sp for p in (0.19, 0.21))

    assert below == 0.0
    assert above > 0.0


# Its shape


def distributions(study: Study, trial: optuna.Trial) -> dict[str, BaseDistribution]:
    suggest(trial, study, FACTS)
    return trial.distributions


@settings(max_examples=25, deadline=None)
@given(study=whatever_study, seed=st.integers(0, 2**31))
def test_every_trial_asks_for_the_same_names_with_the_same_distributions(study: Study, seed: int) -> None:
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))

    first, *others = (distributions(study, drawn.ask()) for _ in range(8))

    assert all(list(other.items()) == list(first.items()) for other in others)


def test_the_distributions_are_those_of_the_file() -> None:
    asked = optuna.create_study().ask()

    assert distributions(STUDIES["every kind"], asked) == {
        "transfer_depth": IntDistribution(0, 17),
        "freeze_depth": FloatDistribution(0.0, 1.0),
        "anchor_depth": CategoricalDistribution((0, 3, 17)),
        "lr": FloatDistribution(1e-4, 1.0, log=True),
        "lr_ratio": FloatDistribution(0.0, 1.0),
        "l2_sp": FloatDistribution(LENGTHENED, 1.0, log=True),
        "batch_size": CategoricalDistribution((8, 16)),
        "schedule": CategoricalDistribution(("cosine", "constant")),
        "head_layers": IntDistribution(0, 2),
    }


# There and back


@settings(max_examples=60, deadline=None)
@given(study=whatever_study, seed=st.integers(0, 2**31))
def test_what_is_encoded_comes_back(study: Study, seed: int) -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask()
    drawn = suggest(trial, study, FACTS)

    params = encode_point(drawn, study, FACTS)

    capped = drawn.transfer_depth in (drawn.freeze_depth, drawn.anchor_depth)
    if params is not None:
        assert suggest(FixedTrial(params), study, FACTS) == drawn
    else:
        assert capped  # at a depth that no draw means by itself


@settings(max_examples=60, deadline=None)
@given(
    study=whatever_study,
    depths=st.tuples(*[st.integers(0, 17)] * 4),
    lr=st.floats(1e-8, 100),
    l2_sp=st.floats(0, 1e4),
    momentum=st.sampled_from([0.5, 0.9]),
)
def test_nothing_is_encoded_outside_a_range(
    study: Study, depths: tuple[int, int, int, int], lr: float, l2_sp: float, momentum: float
) -> None:
    transfer = depths[0]
    drawn = suggest(optuna.create_study().ask(), study, FACTS)
    wanted = replace(
        drawn,
        backbone="large",
        transfer_depth=transfer,
        freeze_depth=min(transfer, depths[1]),
        anchor_depth=min(transfer, depths[2]),
        norm_depth=min(transfer, depths[3]),
        lr=lr,
        l2_sp=l2_sp,
        momentum=momentum,
    )

    params = encode_point(wanted, study, FACTS)

    if params is not None:
        asked = distributions(study, optuna.create_study().ask())
        assert params.keys() == asked.keys()
        assert all(asked[name]._contains(asked[name].to_internal_repr(params[name])) for name in asked)


@pytest.mark.parametrize(
    "outside",
    [
        {"lr": 2.0},
        {"lr": 9e-5},
        {"l2_sp": 2.0},
        {"l2_sp": 5e-5},
        {"momentum": 0.9},
        {"batch_size": 12},
        {"schedule": "linear"},
        {"head_layers": 3},
        {"anchor_depth": 2},
        {"mixup": 0.5},
        {"optimizer": "sgd"},
        {"backbone": "small"},
    ],
)
def test_a_point_that_the_space_lacks_has_no_parameters(outside: dict[str, Any]) -> None:
    inside = point(EVERY_KIND, DRAWN)

    assert encode_point(replace(inside, **outside), STUDIES["every kind"], FACTS) is None


def test_a_strength_that_is_off_is_drawn_below_its_range() -> None:
    off = replace(point(EVERY_KIND, DRAWN), l2_sp=0.0)

    params = encode_point(off, STUDIES["every kind"], FACTS)

    assert params is not None
    assert LENGTHENED < params["l2_sp"] < 1e-4


# The linear probe and plain fine-tuning; `test_kept_statistics_start` and `test_partly_frozen` have others

PLAIN = {"transfer_depth": 17, "freeze_depth": 0, "lr": 0.00125, "lr_ratio": 1.0, "l2_sp": 0.0}
USUAL = """
transfer_depth = { int = [0, 17] }
freeze_depth   = { int = [0, 17] }
lr             = { log = [1e-4, 1.0] }
lr_ratio       = { log = [1e-2, 1.0] }
l2_sp          = { log = [1e-4, 1.0], zero = true }
"""


def both(search: str, backbone: str = '"large"') -> tuple[Default, Default]:
    probe, plain, *_ = defaults(tiny.study(search, backbone=backbone), FACTS)
    return probe, plain


def test_the_defaults_are_a_frozen_network_and_one_that_moves_as_a_whole() -> None:
    probe, plain = both(USUAL)

    assert (probe.label, plain.label) == ("linear probe", "plain fine-tuning")
    assert (probe.point.transfer_depth, probe.point.freeze_depth, probe.point.lr) == (17, 17, 0.01)
    assert {name: getattr(plain.point, name) for name in PLAIN} == PLAIN


def test_a_default_is_drawn_with_its_parameters() -> None:
    for default in both(USUAL):
        assert default.params is not None
        assert suggest(FixedTrial(default.params), tiny.study(USUAL), FACTS) == default.point


@pytest.mark.parametrize(
    ("search", "drawn"),
    [
        ("freeze_depth = { int = [0, 17] }", (True, True)),
        ("freeze_depth = { uniform = [0.0, 1.0] }", (True, True)),
        ("freeze_depth = { choice = [0, 17] }", (True, True)),
        ("freeze_depth = 17", (True, False)),
        ("freeze_depth = 3", (False, False)),
        ("freeze_depth = { int = [0, 16] }", (False, True)),
        ("freeze_depth = { choice = [0.0, 0.5] }", (False, True)),
        ("transfer_depth = { int = [0, 16] }", (False, False)),
        ("l2_sp = { log = [1e-4, 1.0] }", (False, False)),
        ("l2_sp = { log = [1e-4, 1.0], zero = true }", (True, True)),
        ("lr = 0.25", (False, False)),
        ("lr = 0.01", (True, False)),
        ("lr = { log = [5e-3, 1.0] }", (True, False)),
        ("lr = { log = [1e-4, 5e-3] }", (False, True)),
        ("norm_depth = { int = [0, 17] }", (True, True)),
        ("norm_depth = { choice = [9, 17] }", (True, False)),  # a probe keeps all statistics anyway
        ("norm_depth = 17", (True, False)),
        ('norm_affine = "keep"', (True, True)),
    ],
)
def test_a_default_that_a_key_or_a_range_excludes_is_not_drawn(search: str, drawn: tuple[bool, bool]) -> None:
    wide = {"freeze_depth": "{ int = [0, 17] }", "lr": "{ log = [1e-4, 1.0] }"}
    key, value = search.split(" = ", 1)
    found = both("\n".join(f"{name} = {text}" for name, text in (wide | {key: value}).items()))

    assert tuple(default.params is not None for default in found) == drawn


def test_a_default_that_differs_from_the_rate_of_a_key_left_out_is_not_drawn() -> None:
    probe, plain = both("freeze_depth = { int = [0, 17] }")

    assert probe.params is None  # its rate is ten times plain fine-tuning's
    assert plain.params == {"freeze_depth": 0}


def test_an_excluded_default_is_still_the_practitioners_point() -> None:
    probe, plain = both("lr = 0.25\nfreeze_depth = 3")

    assert (probe.point.freeze_depth, probe.point.lr) == (17, 0.01)
    assert (plain.point.freeze_depth, plain.point.lr) == (0, 0.00125)


def test_the_defaults_take_fixed_nuisance_values() -> None:
    for default in both('batch_size = 64\noptimizer = "sgd"\nl2 = 0.125\nepochs = 5'):
        assert (default.point.batch_size, default.point.optimizer) == (64, "sgd")
        assert (default.point.l2, default.point.epochs) == (0.125, 5)


def test_the_defaults_take_the_nearest_searched_nuisance_values() -> None:
    probe, plain = both("batch_size = { int = [64, 128] }\nl2 = { log = [0.125, 1.0] }")

    assert probe.point.batch_size == plain.point.batch_size == 64
    assert probe.point.l2 == plain.point.l2 == 0.125


def test_ranges_for_each_optimizer_hold_the_defaults() -> None:
    study = tiny.study("freeze_depth = { int = [0, 17] }\n" + BOTH_OPTIMIZERS)

    for default, lr in zip(defaults(study, FACTS)[:2], (0.01, 0.00125), strict=True):
        assert default.params is not None
        assert default.point == suggest(FixedTrial(default.params), study, FACTS)
        assert default.point.optimizer == "adamw"
        assert default.point.lr == lr


def test_the_defaults_of_a_searched_backbone_use_its_first() -> None:
    for default in both(BOTH_BACKBONES, backbone='{ choice = ["small", "large"] }'):
        assert default.point.backbone == "small"
        assert default.params is not None
        assert default.params["backbone"] == "small"


# Depths against the backbone


@pytest.mark.parametrize("depth", ["18", "{ int = [0, 18] }", "{ choice = [3, 18] }"])
@pytest.mark.parametrize("key", ["transfer_depth", "freeze_depth", "anchor_depth", "norm_depth"])
def test_a_depth_beyond_the_last_block_is_refused_by_name(key: str, depth: str) -> None:
    with pytest.raises(SpecError, match=rf"^search\.{key}: 18 is beyond .* of large, which has 17") as caught:
        check_depths(tiny.study(f"{key} = {depth}"), FACTS)

    assert "tlopt blocks large" in str(caught.value)


def test_depths_up_to_the_last_block_are_allowed() -> None:
    for study in (*STUDIES.values(), tiny.study("freeze_depth = { int = [0, 17] }")):
        check_depths(study, FACTS)
