"""Parameters given by users are accepted if they are in the search, else refused with the reason."""

import math
from typing import Any

import optuna
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, TrialState

from tlopt.errors import Refused
from tlopt.search.plan import search_plan
from tlopt.search.space import search_space, suggest
from tlopt.search.user_params import encode_user_params, point_of_params
from tlopt.spec.dimensions import Log

STUDY = tiny.study(
    """
transfer_depth = { int = [0, 17] }
freeze_depth   = { uniform = [0.0, 1.0] }
lr             = { log = [1e-4, 1.0] }
l2_sp          = { log = [1e-4, 1.0], zero = true }
momentum       = 0.5
batch_size     = { choice = [8, 16] }
schedule       = { choice = ["cosine", "constant"] }
"""
)
BY_OPTIMIZER = tiny.study(
    """
optimizer = { choice = ["sgd", "adamw"] }
lr        = { sgd = { log = [1e-3, 1.0] }, adamw = { log = [1e-5, 1e-2] } }
"""
)
OFF = Log(1e-4, 1.0, zero=True).encode(0.0)
WHOLE = {
    "transfer_depth": 9,
    "freeze_depth": 0.5,
    "lr": 0.1,
    "l2_sp": 0.5,
    "batch_size": 8,
    "schedule": "cosine",
}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, {}),
        ({"lr": 0.1}, {"lr": 0.1}),
        ({"lr": 1}, {"lr": 1.0}),
        ({"transfer_depth": 3.0}, {"transfer_depth": 3}),
        ({"batch_size": 16.0}, {"batch_size": 16}),
        ({"schedule": "constant"}, {"schedule": "constant"}),
        ({"l2_sp": 0}, {"l2_sp": OFF}),
        ({"l2_sp": 0.0}, {"l2_sp": OFF}),
        ({"l2_sp": OFF}, {"l2_sp": OFF}),
        ({"momentum": 0.5}, {}),
        ({"backbone": "large"}, {}),
    ],
)
def test_values_of_the_search_are_taken_as_it_draws_them(
    given: dict[str, Any], taken: dict[str, Any]
) -> None:
    assert encode_user_params(given, STUDY) == taken


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"lr": "abc"}, "lr = 'abc': allowed is a number from 0.0001 to 1"),
        ({"lr": "0.1"}, "lr = '0.1': allowed is a number"),
        ({"lr": None}, "lr = None: allowed is a number"),
        ({"lr": True}, "lr = true: allowed is a number"),
        ({"lr": [0.1]}, "lr = [0.1]: allowed is a number"),
        ({"lr": {"log": [1, 2]}}, "lr = { log = [1, 2] }: allowed is a number"),
        ({"lr": 5.0}, "lr = 5.0: allowed is a number from 0.0001 to 1"),
        ({"lr": -0.1}, "lr = -0.1: allowed"),
        ({"lr": math.nan}, "lr = nan: allowed"),
        ({"lr": math.inf}, "lr = inf: allowed"),
        ({"lr": 0.0}, "lr = 0.0: allowed is a number from 0.0001 to 1"),
        ({"l2_sp": 1e-30}, "or 0 for off"),
        ({"transfer_depth": 18}, "transfer_depth = 18: allowed is a whole number from 0 to 17"),
        ({"transfer_depth": 2.5}, "transfer_depth = 2.5: allowed is a whole number"),
        ({"freeze_depth": 3}, "freeze_depth = 3: allowed is a number from 0 to 1"),
        ({"batch_size": 12}, "batch_size = 12: allowed is one of 8, 16"),
        ({"batch_size": math.nan}, "batch_size = nan: allowed is one of 8, 16"),
        ({"schedule": "cosin"}, "schedule = 'cosin': allowed is one of 'cosine', 'constant'"),
        ({"momentum": 0.9}, "momentum = 0.9: it is not searched; every trial has 0.5"),
        ({"lrr": 0.1}, "lrr = 0.1: the search has no such key; did you mean lr?"),
        ({"zzz": 0.1}, "its keys are transfer_depth, freeze_depth, lr, l2_sp, batch_size, schedule"),
        ({"lr": 5.0, "schedule": 1}, "lr = 5.0: allowed is a number from 0.0001 to 1; schedule = 1: allowed"),
    ],
)
def test_other_values_are_refused_with_what_is_allowed(given: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as refused:
        encode_user_params(given, STUDY)

    assert says in str(refused.value)


def test_a_value_beside_its_optimizer_is_a_position() -> None:
    by_value = encode_user_params({"optimizer": "adamw", "lr": 1e-3}, BY_OPTIMIZER)

    assert by_value == {"optimizer": "adamw", "lr_position": pytest.approx(2 / 3)}
    assert encode_user_params(by_value, BY_OPTIMIZER) == by_value
    with pytest.raises(Refused, match="give optimizer beside it, or lr_position"):
        encode_user_params({"lr": 1e-3}, BY_OPTIMIZER)
    with pytest.raises(Refused, match=r"allowed is a number from 1e-05 to 0\.01"):
        encode_user_params({"optimizer": "adamw", "lr": 0.5}, BY_OPTIMIZER)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from([*search_space(STUDY), "momentum", "backbone", "lr_position", ""]) | st.text(
    max_size=4
)


@given(st.dictionaries(names, json_values | st.sampled_from([0.1, 8, "cosine", 0.5]), max_size=4))
def test_whatever_is_given_is_refused_or_a_draw_of_the_search(anything: dict[str, Any]) -> None:
    try:
        params = encode_user_params(anything, STUDY)
    except Refused:
        return

    point = suggest(FixedTrial(WHOLE | params), STUDY, tiny.facts())
    assert 0 <= point.freeze_depth <= point.transfer_depth <= 17
    assert point.l2_sp == 0 or 1e-4 <= point.l2_sp <= 1.0


# Whole points of trials that tlopt did not run


def test_the_point_of_a_foreign_trial_follows_from_a_whole_set_of_parameters() -> None:
    assert point_of_params(WHOLE, STUDY, tiny.facts()) == suggest(FixedTrial(WHOLE), STUDY, tiny.facts())
    assert point_of_params(WHOLE | {"l2_sp": 0.0}, STUDY, tiny.facts()).l2_sp == 0.0


def test_a_part_of_the_parameters_is_no_point() -> None:
    with pytest.raises(Refused, match="it has no transfer_depth, freeze_depth, l2_sp"):
        point_of_params({"lr": 0.1, "batch_size": 8, "schedule": "cosine"}, STUDY, tiny.facts())


# Trials that somebody else has begun


@pytest.mark.parametrize(
    ("params", "space", "says"),
    [
        ({"lr": 0.5}, {"lr": FloatDistribution(1e-5, 9.0, log=True)}, None),
        ({"lr": 5.0}, {"lr": FloatDistribution(1e-5, 9.0, log=True)}, "lr = 5.0: allowed"),
        ({"lr": 0.5}, {"lr": FloatDistribution(0.0, 1.0)}, "lr was drawn from another"),
        ({"lr": "abc"}, {"lr": CategoricalDistribution(["abc", "d"])}, "lr was drawn from another"),
        ({"transfer_depth": 40}, {"transfer_depth": IntDistribution(0, 99)}, "transfer_depth = 40"),
        ({"width": 3}, {"width": IntDistribution(0, 99)}, "width: the search has no such key"),
    ],
)
def test_what_was_drawn_elsewhere_is_gone_on_with_where_it_is_of_the_search(
    params: dict[str, Any], space: dict[str, Any], says: str | None
) -> None:
    of = optuna.create_study()
    of.add_trial(optuna.create_trial(state=TrialState.WAITING, params=params, distributions=space))
    plan = search_plan(STUDY, tiny.facts(), 1)

    if says is None:
        assert plan.draw(of.ask()).point.lr == params["lr"]
        return
    with pytest.raises(Refused) as refused:
        plan.draw(of.ask())
    assert says in str(refused.value)
