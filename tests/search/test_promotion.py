"""Pausing and promotion: who goes on, who is pruned, and what the sampler sees."""

import random
from collections.abc import Sequence
from typing import Literal

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial
from paused import EPOCHS, numbers, search, trial

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.search.promotion import Decision, Next, Promotion
from tlopt.spec.algorithms import PromotionPruner
from tlopt.spec.outcome import Outcome
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord, paused_at

PAUSES = '[pruner]\nkind = "promotion"'


def promotion(*, min_epochs: int = 1, factor: int = 2, direction: str = "maximize") -> Promotion:
    pruner = PromotionPruner(kind="promotion", min_epochs=min_epochs, reduction_factor=factor)
    return Promotion(pruner=pruner, direction=direction)


# Comparison


@pytest.mark.parametrize(
    ("min_epochs", "factor", "n_epochs", "expected"),
    [(1, 2, 8, [1, 2, 4]), (1, 2, 9, [1, 2, 4, 8]), (2, 3, 20, [2, 6, 18]), (4, 2, 4, []), (1, 2, 1, [])],
)
def test_trials_are_compared_after_powers_of_the_factor(
    min_epochs: int, factor: int, n_epochs: int, expected: list[int]
) -> None:
    assert list(promotion(min_epochs=min_epochs, factor=factor).rungs(n_epochs)) == expected


@pytest.mark.parametrize(("direction", "order"), [("maximize", [2, 0, 3, 1]), ("minimize", [1, 0, 3, 2])])
def test_equal_values_rank_by_number(direction: str, order: list[int]) -> None:
    trials = [trial(0, 0.5), trial(1, 0.2), trial(2, 0.9), trial(3, 0.5)]

    assert numbers(promotion(direction=direction).ranked(trials, 1)) == order


def test_only_networks_of_this_study_that_have_more_epochs_to_come_are_compared() -> None:
    added = create_trial(value=0.9, intermediate_values={0: 0.9})
    added.number = 9
    trials = [
        trial(0, 0.1),
        trial(1, 0.9, epochs=1, state=TrialState.COMPLETE),
        trial(2, 0.9, classifier="logistic", state=TrialState.COMPLETE),
        trial(3, 0.9, state=TrialState.FAIL),
        trial(4),
        added,
    ]

    assert numbers(promotion().ranked(trials, 1)) == [0]


@pytest.mark.parametrize(("n", "promoted"), [(1, []), (2, [1]), (3, [2]), (4, [3, 2])])
def test_the_best_half_rounded_down_goes_on(n: int, promoted: list[int]) -> None:
    rising = [trial(i, i / 10) for i in range(n)]

    assert numbers(promotion().promoted(rising, 1)) == promoted


@pytest.mark.parametrize(
    ("value", "decision"), [(0.95, "continue"), (0.55, "continue"), (0.45, "pause"), (0.05, "prune")]
)
def test_a_trial_goes_on_pauses_or_is_pruned_by_its_rank(value: float, decision: str) -> None:
    # Of the 6 that are here 3 go on; of the 8 that can come at most 4.
    others = [trial(i, v) for i, v in enumerate((0.1, 0.2, 0.6, 0.5, 0.9))]

    assert promotion().at_rung([*others, trial(5, value)], 5, 1, n_trials=8) == decision


# The next trial


def test_lost_and_enqueued_trials_come_first_then_the_highest_promoted_then_new_ones() -> None:
    lost = trial(9, 0.1, state=TrialState.WAITING)
    paused = [trial(0, 0.5, paused=1), trial(1, 0.4, paused=1), trial(2, 0.45, 0.9, paused=2)]
    more = trial(3, 0.1, 0.2, paused=2)
    rule = promotion()

    def following(*trials: FrozenTrial, n_trials: int = 10, may_begin: bool = True) -> Next | None:
        return rule.next_trial(trials, n_trials=n_trials, may_begin=may_begin)

    assert following(lost, *paused, more) == Next((lost,))
    assert following(*paused, more) == Next((paused[2],))
    assert following(*paused) == Next((paused[0],))
    assert following(paused[1]) == Next(())
    complete = trial(5, *[0.9] * EPOCHS, state=TrialState.COMPLETE, epochs=1)
    assert following(paused[1], complete, may_begin=False) == Next((paused[1],), ends=True)
    assert following(paused[1], complete, n_trials=2) == Next((paused[1],), ends=True)
    assert following(paused[1], trial(4), n_trials=2) is None


def test_without_a_complete_trial_the_best_of_those_that_came_furthest_goes_on() -> None:
    """A search whose defaults lie outside its ranges or limits would end with nothing to confirm."""
    paused = [trial(0, 0.4, paused=1), trial(1, 0.5, 0.6, paused=2), trial(2, 0.5, 0.7, paused=2)]
    pruned = trial(3, 0.8, 0.9, state=TrialState.PRUNED)
    rule = promotion()

    assert rule.next_trial([*paused, pruned], n_trials=4, may_begin=True) == Next((paused[2],))
    assert rule.at_rung([trial(0, 0.5)], 0, 1, n_trials=1) == "pause"


@given(
    n_trials=st.integers(1, 24),
    n_workers=st.integers(1, 5),
    factor=st.integers(2, 4),
    seed=st.integers(0, 2**32),
)
def test_every_search_ends_with_exactly_its_trials_and_most_stop_early(
    n_trials: int, n_workers: int, factor: int, seed: int
) -> None:
    rule, draws = promotion(factor=factor), random.Random(seed)
    n_trained = 0

    def train(one: FrozenTrial, trials: Sequence[FrozenTrial]) -> Decision | Literal["complete"]:
        nonlocal n_trained
        n_trained += 1
        n_epochs = len(one.intermediate_values) + 1
        one.intermediate_values[n_epochs - 1] = draws.choice((0.5, draws.random()))
        if n_epochs == EPOCHS:
            return "complete"
        there = n_epochs in rule.rungs(EPOCHS)
        return rule.at_rung(trials, one.number, n_epochs, n_trials) if there else "continue"

    trials = search(rule, trial, train, n_trials=n_trials, n_workers=n_workers, draws=draws)

    assert len(trials) == n_trials
    assert all(each.state.is_finished() for each in trials)
    assert any(each.state == TrialState.COMPLETE for each in trials)
    stops = {*rule.rungs(EPOCHS), EPOCHS}
    assert {len(each.intermediate_values) for each in trials} <= stops
    assert n_trained == sum(len(each.intermediate_values) for each in trials)
    promoted = numbers(rule.promoted(trials, 1))
    assert all(len(each.intermediate_values) > 1 for each in trials if each.number in promoted)


# What others see of it


def test_the_sampler_sees_overtaken_trials_as_pruned_and_the_others_as_they_are() -> None:
    ahead, behind, running = trial(0, 0.9, paused=1), trial(1, 0.2, paused=1), trial(2, 0.5)

    shown = promotion().as_sampled([ahead, behind, running])

    assert [each.state for each in shown] == [TrialState.WAITING, TrialState.PRUNED, TrialState.RUNNING]
    assert shown[1].value == 0.2
    assert behind.state == TrialState.WAITING


def test_a_paused_trial_is_called_so_and_a_requeued_one_waiting() -> None:
    assert TrialRecord.from_frozen(trial(0, 0.9, paused=1)).outcome == Outcome.PAUSED
    assert TrialRecord.from_frozen(trial(0, 0.9, state=TrialState.WAITING)).outcome == Outcome.WAITING


@pytest.mark.parametrize("written", [None, 5, "soon", {"paused": "x"}, {"paused": None}, {"paused": True}])
def test_what_other_software_writes_in_its_place_pauses_nothing(written: object) -> None:
    one = trial(0, 0.9, state=TrialState.WAITING)
    one.user_attrs[attributes.PROMOTION] = written

    assert paused_at(one) == 0


def test_enough_trials_cannot_be_told_where_trials_pause() -> None:
    text = tiny.text("lr = { log = [1e-4, 1.0] }", more=PAUSES).replace("trials = 60", 'trials = "enough"')

    with pytest.raises(SpecError, match=r"(?s)budget.trials.*promotion.*give a number of trials"):
        spec.loads(text, "planted.toml")
