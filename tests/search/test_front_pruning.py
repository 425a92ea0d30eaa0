"""A trial is stopped where a cheaper one is ahead beyond noise, and never where none is."""

import hypothesis
import pytest
from hypothesis import strategies as st

from tlopt.search.front import Course, Courses, is_beaten
from tlopt.spec.algorithms import FrontPruner

SPEC = FrontPruner(n_startup_trials=3, min_epochs=2, margin=2.5)
NUMBERS = st.floats(0, 1, width=32)


def course(*values: float, cost: float = 1.0) -> Course:
    return Course(values=values, costs=(cost,))


# Gains from epoch 2 to the end: 0.20, 0.21, 0.22, with a mean of 0.21 and a variance of 0.0001 from 3 trials;
# 0.00004 with 3 trials more, as the values at epoch 2 do not differ. A third of the epochs is left, so that a
# fifth of the distance from 0.50 is lost.
COMPLETE = [
    course(0.3, 0.50, 0.70, cost=5),
    course(0.3, 0.50, 0.71, cost=6),
    course(0.3, 0.50, 0.72, cost=7),
]
KNOWN = Courses(complete=COMPLETE)


@pytest.mark.parametrize(("now", "mean"), [(0.5, 0.71), (0.8, 0.95), (0.2, 0.47)])
def test_the_end_is_expected_after_the_mean_gain_and_with_a_part_of_the_lead(now: float, mean: float) -> None:
    expected = KNOWN.expected_end(course(0.3, now))

    assert expected == pytest.approx((mean, 0.00004**0.5))


def test_values_that_differ_at_the_epoch_widen_what_is_expected() -> None:
    others = [course(0.1, 0.2), course(0.1, 0.8), course(0.9)]  # the last has not come as far
    known = Courses(complete=COMPLETE, others=others)  # variance of 0.5, 0.5, 0.5, 0.2, 0.8: 0.045

    expected = known.expected_end(course(0.3, 0.5))

    assert expected == pytest.approx((0.71, ((3 * 0.045 + 2 * 0.0001) / 5) ** 0.5))


def test_nothing_is_expected_from_two_complete_trials() -> None:
    assert Courses(complete=COMPLETE[:2]).expected_end(course(0.3, 0.5)) is None


@pytest.mark.parametrize(
    ("own", "cost", "expected"),
    [
        (0.46, 9.0, True),  # expected at most 0.46 + 0.21 + 0.2 x 0.04 + 2.5 x 0.0063 = 0.694, below all
        (0.48, 9.0, True),  # at most 0.710, below the best
        (0.495, 9.0, False),  # at most 0.722
        (0.46, 5.0, True),  # the cheapest of them costs as much
        (0.46, 4.0, False),  # cheaper than all
        (0.475, 6.0, True),  # at most 0.706: one that costs as much ended at 0.71
        (0.475, 5.0, False),  # the one that costs no more ended at 0.70
    ],
)
def test_the_expected_end_decides_among_cheaper_trials(own: float, cost: float, expected: bool) -> None:
    assert is_beaten(course(0.2, own, cost=cost), KNOWN, SPEC) is expected


def test_as_many_trials_must_be_ahead_as_the_study_says() -> None:
    own = course(0.2, 0.475, cost=9)  # at most 0.706, below two of three

    assert is_beaten(own, KNOWN, SPEC.model_copy(update={"n_better": 2}))
    assert not is_beaten(own, KNOWN, SPEC.model_copy(update={"n_better": 3}))


def test_a_trial_ahead_at_its_epoch_goes_on_however_others_ended() -> None:
    assert not is_beaten(course(0.2, 0.51, cost=9), Courses(complete=[course(0.3, 0.5, 0.99)] * 3), SPEC)


def test_nothing_is_stopped_before_its_epochs_or_before_enough_trials_are_complete() -> None:
    assert not is_beaten(course(0.0, cost=9), KNOWN, SPEC)
    assert not is_beaten(course(0.0, 0.0, cost=9), Courses(complete=COMPLETE[:2]), SPEC)
    assert is_beaten(course(0.0, 0.0, cost=9), KNOWN, SPEC)


def test_a_linear_classifier_of_one_epoch_is_compared_by_its_end() -> None:
    known = Courses(complete=[course(0.99, cost=1), *COMPLETE])

    assert is_beaten(course(0.2, 0.5, cost=2), known, SPEC)
    assert not is_beaten(course(0.2, 0.5, cost=0.5), known, SPEC)


COURSES = st.lists(
    st.tuples(st.lists(NUMBERS, min_size=4, max_size=4), st.tuples(NUMBERS, NUMBERS)), min_size=3, max_size=8
)


@hypothesis.given(COURSES, st.lists(NUMBERS, min_size=2, max_size=3), st.tuples(NUMBERS, NUMBERS))
def test_a_trial_that_is_not_dominated_at_its_epoch_is_never_stopped(
    others: list[tuple[list[float], tuple[float, float]]], values: list[float], costs: tuple[float, float]
) -> None:
    own = Course(values=tuple(values), costs=costs)
    complete = [Course(values=tuple(course), costs=its) for course, its in others]
    epoch = len(values) - 1
    dominated = any(
        other.values[epoch] > own.values[epoch]
        and all(a <= b for a, b in zip(other.costs, costs, strict=True))
        for other in complete
    )

    stopped = is_beaten(
        own, Courses(complete=complete), FrontPruner(n_startup_trials=3, min_epochs=1, margin=0.01)
    )

    assert dominated or not stopped
