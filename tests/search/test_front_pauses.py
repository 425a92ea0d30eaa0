"""Pauses with several objectives: who goes on, who ends, what samplers see, and that fronts are kept."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Literal

import paused
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState
from paused import EPOCHS, numbers, search

from tlopt import spec
from tlopt.search.front import (
    Course,
    FrontPauses,
    by_rank,
    course_of,
    courses_of,
    is_beaten,
    lead,
)
from tlopt.search.plan import search_plan
from tlopt.search.promotion import Decision, Next
from tlopt.spec.algorithms import FrontPruner
from tlopt.spec.objectives import front_of
from tlopt.storage import attributes

trial = partial(paused.trial, costs=(1.0,))


def rule(*, direction: str = "maximize", n_startup_trials: int = 3, margin: float = 2.0) -> FrontPauses:
    pruner = FrontPruner(n_startup_trials=n_startup_trials, margin=margin)
    return FrontPauses(pruner=pruner, direction=direction)


def complete(number: int, first: float, last: float, *, costs: Sequence[float] = (1.0,)) -> FrozenTrial:
    """A complete trial with these values after its first and its last epoch."""
    between = [first + (last - first) * i / (EPOCHS - 1) for i in range(EPOCHS)]
    return trial(number, *between[:-1], last, costs=costs, state=TrialState.COMPLETE)


# Order

# Front: 0 (cheapest), 2 (best), 3 (between). Leads: of 0 over the lowest, 0.3 - 0.1 = 0.2; of 2 over 3,
# 0.7 - 0.6 = 0.1; of 3 over 0, 0.6 - 0.3 = 0.3. Second front: 1 (0.2 behind 0) and 4 (0.02 behind 3).
PLANTED = [(0.30, 1.0), (0.10, 2.0), (0.70, 9.0), (0.60, 4.0), (0.58, 5.0)]


def test_fronts_come_in_order_and_leads_decide_within_each() -> None:
    courses = [Course(values=(value,), costs=(cost,)) for value, cost in PLANTED]

    leads = [lead(own, [*courses[:i], *courses[i + 1 :]], 0) for i, own in enumerate(courses)]

    assert leads == pytest.approx([0.2, -0.2, 0.1, 0.3, -0.02])
    assert by_rank(courses, 0) == [3, 0, 2, 4, 1]


def test_a_third_objective_makes_a_point_part_of_the_front() -> None:
    courses = [Course(values=(value,), costs=(cost, 1.0)) for value, cost in PLANTED]
    small = Course(values=(0.2,), costs=(9.0, 0.5))

    assert by_rank([*courses, small], 0).index(5) < by_rank([*courses, small], 0).index(4)


@pytest.mark.parametrize(("n", "promoted"), [(3, []), (4, [3]), (5, [4]), (8, [7, 6])])
def test_the_best_quarter_rounded_down_goes_on(n: int, promoted: list[int]) -> None:
    rising = [trial(i, i / 10) for i in range(n)]

    assert numbers(rule().promoted(rising, 1)) == promoted


def test_a_cheaper_trial_goes_on_beside_a_better_one() -> None:
    levels = [trial(i, 0.5 + i / 100, costs=[9.0]) for i in range(7)]
    cheap = trial(7, 0.4, costs=[1.0])

    assert set(numbers(rule().promoted([*levels, cheap], 1))) == {6, 7}


@pytest.mark.parametrize(("direction", "first"), [("maximize", 3), ("minimize", 0)])
def test_a_log_loss_is_better_where_it_is_lower(direction: str, first: int) -> None:
    assert numbers(rule(direction=direction).promoted([trial(i, i / 10) for i in range(4)], 1)) == [first]


# The next trial

# Gains of all complete trials: 0.4 from the first epoch.
KNOWN = [complete(i, 0.4, 0.8, costs=[2.0]) for i in range(3)]


def test_before_all_have_begun_beaten_ones_end_then_promoted_ones_go_on_then_new_ones_begin() -> None:
    beaten = trial(10, 0.3, costs=[3.0], paused=1)
    ahead = trial(11, 0.5, costs=[3.0], paused=1)
    cheaper = trial(12, 0.1, costs=[1.0], paused=1)
    lost = trial(13, 0.1, state=TrialState.WAITING)

    def following(*trials: FrozenTrial, n_trials: int = 20) -> Next | None:
        return rule(margin=0.1).next_trial([*KNOWN, *trials], n_trials=n_trials, may_begin=True)

    assert following(lost, beaten, ahead, cheaper) == Next((lost,))
    assert following(beaten, ahead, cheaper) == Next((beaten,), ends=True)
    assert following(ahead, cheaper) == Next((ahead,))  # the best of five
    assert following(cheaper, trial(14, 0.6, costs=[1.0])) == Next(())
    assert following(cheaper, n_trials=4) == Next((cheaper,))


def test_once_all_have_begun_the_largest_lead_goes_on_and_none_waits_for_running_ones() -> None:
    first, second = trial(10, 0.45, costs=[3.0], paused=1), trial(11, 0.5, costs=[3.0], paused=1)
    running = trial(12, 0.9, costs=[9.0])

    found = rule().next_trial([*KNOWN, first, second, running], n_trials=6, may_begin=True)

    assert found == Next((second,))


def test_nothing_ends_before_enough_trials_are_complete() -> None:
    beaten = trial(10, 0.1, costs=[3.0], paused=1)

    assert rule(n_startup_trials=4).next_trial([*KNOWN, beaten], n_trials=4, may_begin=True) == Next(
        (beaten,)
    )


@given(
    n_trials=st.integers(1, 20),
    n_workers=st.integers(1, 4),
    n_costs=st.integers(1, 2),
    noise=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_search_ends_with_its_trials_and_without_noise_no_point_of_the_front_is_lost(
    n_trials: int, n_workers: int, n_costs: int, noise: bool, seed: int
) -> None:
    """Without noise, all trials gain equally: then what is ahead at the end has been ahead all along."""
    draws, pauses = random.Random(seed), rule()
    ends = [draws.choice((0.5, draws.random())) for _ in range(n_trials)]
    costs = [[float(draws.randint(1, 3)) for _ in range(n_costs)] for _ in range(n_trials)]

    def train(one: FrozenTrial, trials: Sequence[FrozenTrial]) -> Decision | Literal["complete"]:
        values = one.user_attrs[attributes.VALUES]
        n_epochs = len(values) + 1
        value = ends[one.number] - 0.1 * (EPOCHS - n_epochs) + noise * draws.gauss(0, 0.05)
        one.user_attrs[attributes.VALUES] = [*values, value]
        if n_epochs == EPOCHS:
            one.values = [value, *costs[one.number]]
            return "complete"
        if beaten(pauses, one, trials):
            return "prune"
        there = n_epochs in pauses.rungs(EPOCHS)
        return pauses.at_rung(trials, one.number, n_epochs) if there else "continue"

    trials = search(
        pauses,
        lambda number: trial(number, costs=costs[number]),
        train,
        n_trials=n_trials,
        n_workers=n_workers,
        draws=draws,
    )

    assert len(trials) == n_trials
    assert all(each.state in (TrialState.COMPLETE, TrialState.PRUNED) for each in trials)
    finished = {each.number for each in trials if each.state == TrialState.COMPLETE}
    assert finished
    front = front_of([(-ends[i], *costs[i]) for i in range(n_trials)])
    assert noise or set(front) <= finished


def beaten(pauses: FrontPauses, one: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """What a worker asks after every epoch."""
    own = course_of(one, "maximize")
    return own is not None and is_beaten(own, courses_of(trials, "maximize"), pauses.pruner)


# What samplers see


def test_samplers_see_paused_and_stopped_trials_at_their_expected_end() -> None:
    paused = trial(5, 0.5, costs=[3.0], paused=1)
    stopped = trial(6, 0.2, costs=[4.0], state=TrialState.PRUNED)
    running = trial(7, 0.9)

    shown = rule().as_sampled([*KNOWN, paused, stopped, running])

    assert [each.state.name for each in shown[3:]] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert shown[3].values == pytest.approx([0.5 + 0.4 - 0.6 * 7 / 8 * 0.1, 3.0])
    assert shown[4].values == pytest.approx([0.2 + 0.4 + 0.6 * 7 / 8 * 0.2, 4.0])
    assert paused.state == TrialState.WAITING
    assert stopped.state == TrialState.PRUNED


def test_before_gains_are_known_samplers_see_the_last_value() -> None:
    (shown,) = rule(direction="minimize").as_sampled([trial(0, 0.9, 0.7, costs=[3.0], paused=2)])

    assert shown.values == [0.7, 3.0]


# Studies


@pytest.mark.parametrize(
    ("more", "budget", "pauses"),
    [
        ("", "", True),
        ('[pruner]\nkind = "front"', "", True),
        ('[pruner]\nkind = "front"\npauses = false', "", False),
        ('[pruner]\nkind = "none"', "", False),
        ("", "hours = 2", False),
    ],
)
def test_trials_pause_unless_the_study_says_otherwise_or_its_hours_may_end_first(
    more: str, budget: str, pauses: bool
) -> None:
    text = tiny.text("lr = { log = [1e-4, 1.0] }", more=more).replace("epochs = 30", f"epochs = 30\n{budget}")
    study = spec.loads('objectives = ["accuracy", "multiply_adds"]\n' + text, "planted.toml")

    assert isinstance(search_plan(study, tiny.facts(), 1).pauses, FrontPauses) is pauses
