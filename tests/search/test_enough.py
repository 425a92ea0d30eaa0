"""`trials = "enough"`: when a search ends, the same for everybody and for ever."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial
from study_workers import TASK, Worker, start_worker

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.search.enough import find_end, n_open, n_planned
from tlopt.spec import Study
from tlopt.spec.outcome import Outcome
from tlopt.spec.sections import ENOUGH_AFTER, ENOUGH_MAX, ENOUGH_MIN
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.worker.claim import work_state

SEARCH = "lr = { log = [1e-4, 1.0] }"


def study(trials: int | str = "enough", objective: str = "accuracy") -> Study:
    text = tiny.text(SEARCH).replace("trials = 60", f"trials = {trials!r}".replace("'", '"'))
    return spec.loads(f'objective = "{objective}"\n{text}', "planted.toml")


def frozen(value: float | None, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    """A trial as a worker leaves it."""
    known = {attributes.POINT: TASK.point.as_dict()}
    if state.is_finished():
        known[attributes.TRIAL_RESULT] = {"outcome": state.name.lower(), "metrics": {}}
    return create_trial(state=state, value=value, user_attrs=known)


COMPLETE, PRUNED, RUNNING = (
    TrialRecord.from_frozen(frozen(value, state))
    for value, state in ((0.5, TrialState.COMPLETE), (None, TrialState.PRUNED), (None, TrialState.RUNNING))
)


def records(*values: float | None) -> list[TrialRecord]:
    """Complete trials with these values; None: pruned."""
    return [
        replace(PRUNED if value is None else replace(COMPLETE, value=value), number=number)
        for number, value in enumerate(values)
    ]


def rising(n: int, then: int) -> list[TrialRecord]:
    """`n` trials, each better than the one before, and `then` worse ones."""
    return records(*(0.5 + i / 1000 for i in range(n)), *[0.4] * then)


# The decision


def test_a_search_ends_when_many_in_a_row_found_nothing_better() -> None:
    end = find_end(rising(20, ENOUGH_AFTER), "maximize")

    assert end is not None
    assert (end.n_trials, end.best.number) == (20 + ENOUGH_AFTER, 19)
    assert find_end(rising(20, ENOUGH_AFTER - 1), "maximize") is None


def test_an_equal_value_is_not_better() -> None:
    equal = records(0.5, *[0.5] * (ENOUGH_MIN - 1))

    end = find_end(equal, "maximize")

    assert end is not None
    assert end.best.number == 0


def test_a_search_does_not_end_before_the_least_number() -> None:
    assert find_end(records(0.5, *[0.4] * (ENOUGH_MIN - 2)), "maximize") is None
    assert find_end(records(0.5, *[0.4] * (ENOUGH_MIN - 1)), "maximize") is not None


def test_a_lower_log_loss_is_better() -> None:
    falling = records(*(2 - i / 100 for i in range(30)), *[3.0] * (ENOUGH_AFTER - 1))

    assert find_end(falling, "minimize") is None
    assert find_end(falling, "maximize") is not None


def test_pruned_trials_count_and_are_never_the_best() -> None:
    assert find_end(records(0.5, *[None] * (ENOUGH_MIN - 1)), "maximize") is not None
    assert find_end(records(*[None] * ENOUGH_MAX), "maximize") is None


def test_failed_trials_and_those_of_others_do_not_count() -> None:
    failed = replace(PRUNED, state=TrialState.FAIL)
    added = replace(COMPLETE, ran_here=False, outcome=Outcome.ADDED, value=0.9)

    assert find_end([*records(0.5), *[failed] * 40, *[added] * 40], "maximize") is None


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.WAITING])
def test_nothing_is_decided_behind_a_trial_that_has_not_ended(state: TrialState) -> None:
    ended = rising(20, ENOUGH_AFTER)
    ended[25] = replace(RUNNING, state=state)

    assert find_end(ended, "maximize") is None


@given(
    st.lists(
        st.sampled_from([None, *(n / 8 for n in range(8))]), min_size=ENOUGH_MIN, max_size=2 * ENOUGH_MAX
    ),
    st.data(),
)
def test_a_decision_is_never_changed_by_what_ends_later(
    values: list[float | None], data: st.DataObject
) -> None:
    whole = records(*values)
    end = find_end(whole, "maximize")
    later = set(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)))

    seen = find_end([RUNNING if n in later else each for n, each in enumerate(whole)], "maximize")

    assert seen in (None, end)
    if end is not None:
        assert find_end(whole[: end.n_trials], "maximize") == end
        assert end.n_trials >= ENOUGH_MIN


# The number of trials


def test_a_number_is_a_number() -> None:
    assert n_planned(study(40), rising(20, ENOUGH_AFTER)) == 40
    assert study(40).budget.trials_words == "40 trials"


def test_a_search_that_goes_on_has_the_limit() -> None:
    assert n_planned(study(), []) == ENOUGH_MAX
    assert study().budget.trials_words == f"{ENOUGH_MIN} to {ENOUGH_MAX} trials"


def test_trials_that_run_when_the_search_ends_are_finished() -> None:
    ended = rising(20, ENOUGH_AFTER)
    late = [replace(RUNNING, number=36), replace(COMPLETE, number=37, value=0.3)]

    assert n_planned(study(), ended) == 36
    assert n_planned(study(), [*ended, *late]) == 38


@pytest.mark.parametrize("word", ["'some'", "true", "[1]", '""'])
def test_another_word_is_refused(word: str) -> None:
    text = tiny.text(SEARCH).replace("trials = 60", f"trials = {word}")

    with pytest.raises(SpecError, match=r'budget.trials: .* is not allowed: a whole number, or "enough"'):
        spec.loads(text, "planted.toml")


def test_the_word_does_not_change_what_a_trial_means() -> None:
    assert study().digest == study(40).digest


# Workers


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return start_worker(f"sqlite:///{tmp_path}/tlopt.db")


def state(worker: Worker) -> str:
    return work_state(worker.study, n_open(study()), hours=0.0, storage=worker.service)[0]


def test_workers_wait_for_those_at_work_and_then_are_done(worker: Worker) -> None:
    for value in (0.5, *[0.4] * (ENOUGH_MIN - 2)):
        worker.study.add_trial(frozen(value))
    assert state(worker) == "work"
    last, beside = worker.claim(), worker.claim()

    worker.study.tell(last, 0.4)  # with the least number of trials the search has enough

    assert state(worker) == "wait"
    assert worker.try_claim(n_open(study())(worker.study)) is None
    worker.study.tell(beside, 0.9)  # better, but the decision stands
    assert state(worker) == "over"


def test_a_trial_that_is_lost_after_the_end_is_not_run_again(worker: Worker) -> None:
    for value in (0.5, *[0.4] * (ENOUGH_MIN - 1)):
        worker.study.add_trial(frozen(value))
    beside = worker.claim()

    worker.requeue(beside)

    assert state(worker) == "over"
