"""The rounds of a confirmation: who remains, in which order runs start, and how many there are."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tlopt.search.defaults import defaults
from tlopt.search.race import FINALISTS_MIN, PLAIN, PROBE, Candidate, Race, RunKey, n_point_runs

STUDY = tiny.study("lr = { log = [1e-4, 1.0] }")
POINT = defaults(STUDY, tiny.facts())[-1].point
DEFAULTS = (Candidate(PROBE, "linear probe", POINT), Candidate(PLAIN, "plain fine-tuning", POINT))


def points(*values: float | None) -> tuple[Candidate, ...]:
    """Points of a search, numbered from 1, with the values of their trials."""
    return tuple(Candidate(n, f"trial {n}", POINT, value) for n, value in enumerate(values, 1))


def race(*values: float | None, seeds: int = 3, direction: str = "maximize") -> Race:
    return Race(candidates=(*DEFAULTS, *points(*values)), seeds=seeds, direction=direction)


def of_round(values: Mapping[int, float | None], replicates: Sequence[int]) -> dict[RunKey, float | None]:
    """The same value for each of a candidate's replicates."""
    return {(n, r): value for r in replicates for n, value in values.items()}


FIRST = {PROBE: 0.1, PLAIN: 0.2, 1: 0.7, 2: 0.5, 3: 0.9, 4: 0.6}


def test_at_first_every_candidate_may_run_on_one_seed_the_defaults_first() -> None:
    assert race(*[0.5] * 4).runs({}) == tuple((n, 0) for n in (PROBE, PLAIN, 1, 2, 3, 4))


def test_nothing_starts_on_a_second_seed_before_the_round_has_ended() -> None:
    of = race(*[0.5] * 4)
    ended = of_round(FIRST, [0])
    del ended[2, 0]

    assert of.runs(ended) == of.runs({})


def test_the_better_half_and_the_defaults_stay_whatever_the_defaults_values_are() -> None:
    of = race(*[0.5] * 4)

    begun = of.runs(of_round(FIRST, [0]))

    assert begun[6:] == tuple((n, r) for r in (1, 2) for n in (PROBE, PLAIN, 1, 3))
    assert of.dropped(of_round(FIRST, [0])) == {2, 4}


def test_a_trials_own_value_counts_as_one_more_run() -> None:
    of = race(0.5, 0.8, 0.3, 0.9)  # means 0.6, 0.65, 0.6, 0.75

    assert of.dropped(of_round(FIRST, [0])) == {1, 3}


def test_less_is_better_where_the_objective_is_a_loss() -> None:
    of = race(*[0.5] * 4, direction="minimize")

    assert of.dropped(of_round(FIRST, [0])) == {1, 3}


def test_equal_points_stay_in_the_order_of_the_search() -> None:
    of = race(*[0.5] * 4)
    equal = of_round(dict.fromkeys(FIRST, 0.5), [0])

    assert of.dropped(equal) == {3, 4}


def test_a_candidate_whose_run_has_no_value_is_out_and_another_takes_its_place() -> None:
    of = race(*[0.5] * 4)

    dropped = of.dropped(of_round(FIRST | {3: None, PROBE: None}, [0]))

    assert dropped == {PROBE, 3, 2}


def test_rounds_end_after_1_3_7_and_all_seeds() -> None:
    of = race(*[0.5] * 16, seeds=10)
    ended: dict[RunKey, float | None] = {}
    ends = list[int]()
    while set(of.runs(ended)) - ended.keys():
        ended |= dict.fromkeys(of.runs(ended), 0.5)
        ends.append(1 + max(replicate for _, replicate in ended))

    assert ends == [1, 3, 7, 10]


def test_without_halves_every_candidate_gets_every_seed_at_once() -> None:
    of = replace(race(*[0.5] * 4), halves=False)

    assert set(of.runs({})) == {(n, r) for n in FIRST for r in range(3)}
    assert of.n_planned({}) == 18


@pytest.mark.parametrize(
    ("n_points", "seeds", "expected"),
    [(1, 3, 3), (2, 3, 6), (3, 3, 7), (6, 3, 12), (8, 7, 8 + 4 * 2 + 2 * 4)],
)
def test_the_number_of_runs_is_known_before_the_first(n_points: int, seeds: int, expected: int) -> None:
    assert n_point_runs(n_points, seeds) == expected
    assert race(*[0.5] * n_points, seeds=seeds).n_planned({}) == expected + 2 * seeds


def test_runs_of_a_candidate_that_would_be_dropped_today_are_counted_once_others_join() -> None:
    before = race(0.5, 0.5)
    ended: dict[RunKey, float | None] = dict.fromkeys(before.runs({}), 0.5)
    ended |= dict.fromkeys(before.runs(ended), 0.5)
    after = race(0.5, 0.5, 0.9, 0.9)

    assert after.n_open(ended) == len(ended) + 2  # the first seeds of the new candidates
    ended |= {(3, 0): 0.9, (4, 0): 0.9}
    assert after.dropped(ended) == {1, 2}
    assert after.n_open(ended) == after.n_planned(ended) == len(ended) + 4


def test_runs_of_later_rounds_count_once_when_a_candidate_joins_a_finished_race() -> None:
    before = race(0.5)
    ended: dict[RunKey, float | None] = dict.fromkeys(before.runs({}), 0.5)
    ended |= dict.fromkeys(before.runs(ended), 0.5)
    assert before.n_planned(ended) == len(ended) == 9
    after = race(0.5, 0.75)

    assert after.n_planned(ended) == 9 + 3  # the three seeds of the new candidate

    while free := [run for run in after.runs(ended) if run not in ended]:
        ended[free[0]] = 0.5
        assert after.n_planned(ended) == 12
    assert len(ended) == 12


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=9),
    seeds=st.integers(3, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_the_order_and_values_a_race_ends_after_the_planned_runs(
    values: list[float], seeds: int, seed: int
) -> None:
    of, noise = race(*values, seeds=seeds), random.Random(seed)
    planned, ended = of.n_planned({}), dict[RunKey, float | None]()
    while True:
        free = [run for run in of.runs(ended) if run not in ended]
        if not free:
            break
        ended[noise.choice(free)] = noise.random()
        assert of.n_planned(ended) == planned

    assert len(ended) == of.n_open(ended) == planned
    with_all_seeds = [n for n in range(1, 1 + len(values)) if (n, seeds - 1) in ended]
    assert len(with_all_seeds) >= min(len(values), FINALISTS_MIN)
    assert {(n, r) for n in (PROBE, PLAIN) for r in range(seeds)} <= ended.keys()
