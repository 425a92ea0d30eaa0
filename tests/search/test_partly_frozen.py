"""The partly frozen network that a search tries after the defaults: its values, and when there is none."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import optuna
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from tlopt.search.defaults import defaults, start_point
from tlopt.search.plan import search_plan
from tlopt.search.portfolio import PARTLY_FROZEN
from tlopt.search.space import suggest
from tlopt.spec import Study
from tlopt.spec.default_names import KEPT_LABEL, PARTLY_LABEL, PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import TrialSpec

FACTS = tiny.facts()
USUAL = {
    "transfer_depth": "{ int = [0, 17] }",
    "freeze_depth": "{ int = [0, 17] }",
    "lr": "{ log = [1e-4, 1.0] }",
    "lr_ratio": "{ log = [1e-2, 1.0] }",
    "l2_sp": "{ log = [1e-4, 1.0], zero = true }",
}


def search(**changes: str) -> str:
    return "\n".join(f"{name} = {text}" for name, text in (USUAL | changes).items())


def decoded(text: str, backbone: str = '"large"') -> Point:
    """The point given by the parameters."""
    study = tiny.study(text, backbone=backbone)
    params = start_point(PARTLY_FROZEN, study, FACTS)
    assert params is not None
    return suggest(FixedTrial(params), study, FACTS)


def test_it_keeps_and_freezes_four_fifths_and_trains_the_rest_anew_at_the_usual_rate() -> None:
    point = decoded(search())

    assert (point.transfer_depth, point.freeze_depth) == (14, 14)
    assert (point.lr, point.l2_sp) == (tiny.PLAIN_LR["adamw"], 0.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"transfer_depth": "{ uniform = [0.0, 1.0] }"}, {"transfer_depth": 14, "freeze_depth": 14}),
        ({"transfer_depth": "{ choice = [0.25, 0.5, 1.0] }"}, {"transfer_depth": 17, "freeze_depth": 14}),
        ({"transfer_depth": "{ int = [0, 9] }"}, {"transfer_depth": 9, "freeze_depth": 9}),
        ({"freeze_depth": "{ int = [0, 12] }"}, {"transfer_depth": 14, "freeze_depth": 12}),
        ({"lr": "{ log = [1e-2, 1.0] }"}, {"lr": 0.01}),
        ({"l2_sp": "{ log = [1e-3, 1.0] }"}, {"l2_sp": 0.001}),
        ({"optimizer": '"sgd"'}, {"lr": tiny.PLAIN_LR["sgd"]}),
        ({"batch_size": "64"}, {"batch_size": 64}),
        ({"anchor_depth": "{ int = [0, 5] }"}, {"anchor_depth": 5}),
    ],
)
def test_it_takes_what_is_nearest_in_every_range(changes: dict[str, str], expected: dict[str, Any]) -> None:
    point = decoded(search(**changes))

    assert {name: getattr(point, name) for name in expected} == expected


def test_it_counts_the_blocks_of_the_first_backbone() -> None:
    shares = dict.fromkeys(("transfer_depth", "freeze_depth"), "{ uniform = [0.0, 1.0] }")
    point = decoded(search(**shares), backbone='{ choice = ["small", "large"] }')

    assert (point.backbone, point.transfer_depth) == ("small", 7)


@given(
    kept=st.tuples(st.integers(0, 17), st.integers(0, 17)).filter(lambda ends: ends[0] < ends[1]),
    most=st.integers(1, 17),
)
def test_wherever_the_ranges_lie_it_is_a_point_of_the_space(kept: tuple[int, int], most: int) -> None:
    text = search(transfer_depth=f"{{ int = {list(kept)} }}", freeze_depth=f"{{ int = [0, {most}] }}")
    point = decoded(text)

    assert kept[0] <= point.transfer_depth <= kept[1]
    assert point.freeze_depth <= min(point.transfer_depth, most)


@pytest.mark.parametrize("name", ["transfer_depth", "freeze_depth"])
def test_there_is_none_where_a_depth_is_given(name: str) -> None:
    assert start_point(PARTLY_FROZEN, tiny.study(search(**{name: "9"})), FACTS) is None


def test_there_is_none_without_weights_to_start_from() -> None:
    assert start_point(PARTLY_FROZEN, tiny.study(search()), tiny.facts(transferable=False)) is None


def task_at(place: int, study: Study, labels: Collection[str] | None = None) -> TrialSpec:
    """What the partly frozen network is trained as; the initial point of three that is at `place`."""
    plan = search_plan(study, FACTS, 1, labels)
    of = optuna.create_study()
    of.enqueue_trial(plan.initial_points(())[place])

    assert len(plan.initial_points(())) == 3
    assert plan.initial_points(())[place] == start_point(PARTLY_FROZEN, study, FACTS)
    return plan.draw(of.ask())


def test_a_search_that_can_draw_it_tries_it_after_the_linear_probe_and_never_prunes_it() -> None:
    task = task_at(1, tiny.study(search()))

    assert (task.label, task.prunable) == (PARTLY_LABEL, False)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"transfer_depth": "{ int = [15, 17] }"}, None),
        ({}, (PROBE_LABEL, PLAIN_LABEL, KEPT_LABEL)),  # of a study that began when it was none
    ],
)
def test_else_it_is_tried_third_as_any_other_trial(
    changes: dict[str, str], labels: tuple[str, ...] | None
) -> None:
    task = task_at(2, tiny.study(search(**changes)), labels)

    assert (task.label, task.prunable) == ("", True)


@pytest.mark.parametrize("backbone", ["small", "large"])
def test_the_default_is_plain_fine_tuning_but_for_its_depths_whatever_the_space_searches(
    backbone: str,
) -> None:
    study = tiny.study('optimizer = "sgd"\nlr = 0.5\nfreeze_depth = 3', backbone=f'"{backbone}"')
    known = {default.label: default for default in defaults(study, FACTS)}
    plain, partly = known[PLAIN_LABEL].point, known[PARTLY_LABEL]
    depths = ("transfer_depth", "freeze_depth", "anchor_depth")

    assert partly.params is None
    assert partly.point == replace(plain, **dict.fromkeys(depths, {"small": 7, "large": 14}[backbone]))


def test_it_is_no_default_without_pretrained_weights() -> None:
    found = defaults(tiny.study(search()), tiny.facts(transferable=False))

    assert PARTLY_LABEL not in [default.label for default in found]


def test_a_point_that_is_a_default_already_is_not_tried_twice() -> None:
    study = tiny.study(
        search(
            transfer_depth="{ choice = [0, 17] }",
            freeze_depth="{ choice = [0.0, 0.01] }",  # of 17 blocks, both none
            lr="{ log = [1e-4, 1.25e-3] }",
        )
    )

    assert list(search_plan(study, FACTS, 1).initial_points(())) == [start_point(PARTLY_FROZEN, study, FACTS)]
