"""The pruner's answers, with fewer queries to the database."""

import random
from collections.abc import Callable

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, Trial, TrialState
from study_workers import STUDY, Faults, Worker, start_worker

from tlopt.search.samplers import make_pruner
from tlopt.spec import algorithms
from tlopt.worker.pruning import pruning_check

EPOCHS = 9
PRUNERS: list[algorithms.Pruner] = [
    algorithms.NoPruner(kind="none"),
    algorithms.MedianPruner(n_startup_trials=2, min_epochs=3),
    algorithms.PercentilePruner(kind="percentile", percentile=60.0, n_startup_trials=1, min_epochs=1),
    algorithms.HalvingPruner(kind="successive_halving", min_epochs=3, reduction_factor=2),
    algorithms.HalvingPruner(kind="successive_halving", min_epochs=1, reduction_factor=3),
    algorithms.HyperbandPruner(kind="hyperband", min_epochs=2, reduction_factor=2),
]


def min_epochs(spec: algorithms.Pruner) -> int:
    return int(getattr(spec, "min_epochs", 0))


def run(
    study: optuna.Study,
    begin: Callable[[], Trial],
    prunes_of: Callable[[], Callable[[Trial], bool]],
    *,
    n_trials: int,
    seed: int,
) -> list[FrozenTrial]:
    """Trials with random curves, three of them under way at any time."""
    order, curves = random.Random(seed), random.Random(seed + 1)
    under_way: list[tuple[Trial, Callable[[Trial], bool], list[float]]] = []
    begun = 0
    while begun < n_trials or under_way:
        if begun < n_trials and len(under_way) < 3:
            curve = [curves.choice([curves.random(), 0.5, float("nan")]) for _ in range(EPOCHS)]
            under_way.append((begin(), prunes_of(), curve))
            begun += 1
        one = order.choice(under_way)
        trial, prunes, curve = one
        step = len(trial._cached_frozen_trial.intermediate_values)
        trial.report(curve[step], step)
        if prunes(trial):
            study.tell(trial, state=TrialState.PRUNED)
            under_way.remove(one)
        elif step + 1 == EPOCHS:
            # a last value that is none ends as FAIL, which no pruner compares with
            failed = curve[step] != curve[step]
            study.tell(trial, None if failed else curve[step], state=TrialState.FAIL if failed else None)
            under_way.remove(one)
    return study.get_trials(deepcopy=False)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A worker whose study is made anew by `fresh`, always under the same name: brackets are drawn by it."""
    return start_worker(f"sqlite:///{tmp_path_factory.mktemp('pruning')}/tlopt.db")


def fresh(worker: Worker) -> None:
    optuna.delete_study(study_name=STUDY, storage=worker.store)
    worker.service._study_ids.clear()  # nobody but a test deletes a study and makes it again
    worker.study = optuna.create_study(
        storage=worker.store,
        study_name=STUDY,
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=7),
    )


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")  # Optuna's, where all are NaN
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), n_trials=st.integers(1, 12))
@pytest.mark.parametrize("spec", PRUNERS, ids=lambda spec: f"{spec.kind}-{min_epochs(spec)}")
def test_the_gate_decides_as_the_pruner_alone(
    spec: algorithms.Pruner, worker: Worker, seed: int, n_trials: int
) -> None:
    fresh(worker)
    worker.study.pruner = make_pruner(spec, epochs_max=EPOCHS)
    plain = optuna.create_study(
        study_name=STUDY, direction="maximize", pruner=make_pruner(spec, epochs_max=EPOCHS)
    )

    def gated() -> Callable[[Trial], bool]:
        return pruning_check(worker.study, worker.service, min_epochs=min_epochs(spec))

    def stock() -> Callable[[Trial], bool]:
        return lambda trial: trial.should_prune()

    def decisions(trials: list[FrozenTrial]) -> list[tuple[TrialState, int]]:
        return [(trial.state, len(trial.intermediate_values)) for trial in trials]

    ours = run(worker.study, worker.claim, gated, n_trials=n_trials, seed=seed)
    theirs = run(plain, plain.ask, stock, n_trials=n_trials, seed=seed)

    assert decisions(ours) == decisions(theirs)


# Questions


@pytest.fixture
def asker(storage_url: str) -> Worker:
    """A worker whose study has two complete trials, and another one that runs, and prunes by the median."""
    found = start_worker(storage_url)
    for value in (0.25, 0.75):
        trial = found.claim()
        for step in range(EPOCHS):
            trial.report(value, step)
        found.study.tell(trial, value)
    found.study.pruner = make_pruner(
        algorithms.MedianPruner(n_startup_trials=1, min_epochs=3), epochs_max=EPOCHS
    )
    return found


@pytest.fixture
def statements(asker: Worker, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Number of statements since the last call."""
    faults = Faults(asker, monkeypatch)

    def count() -> int:
        n = faults.counts["statement"]
        faults.clear()
        return n

    return count


def test_nothing_is_asked_before_every_trial_has_its_first_epochs(
    asker: Worker, statements: Callable[[], int]
) -> None:
    trial, prunes = asker.claim(), pruning_check(asker.study, asker.service, min_epochs=3)
    for step in range(2):
        trial.report(0.0, step)
        statements()
        assert not prunes(trial)
        assert statements() == 0


def test_other_trials_are_read_again_only_when_one_more_has_ended(
    asker: Worker, statements: Callable[[], int], storage_url: str
) -> None:
    other = start_worker(storage_url)
    running = other.claim()
    trial, prunes = asker.claim(), pruning_check(asker.study, asker.service, min_epochs=3)
    asked = []
    for step in range(6):
        trial.report(0.5, step)
        if step == 4:
            other.study.tell(running, 0.25)
        statements()
        assert not prunes(trial)
        asked.append(statements())

    assert asked[:2] == [0, 0]
    assert asked[3] == asked[5] == 1
    assert min(asked[2], asked[4]) > 2


def test_without_a_pruner_nothing_is_asked(asker: Worker, statements: Callable[[], int]) -> None:
    asker.study.pruner = optuna.pruners.NopPruner()
    trial, prunes = asker.claim(), pruning_check(asker.study, asker.service, min_epochs=0)
    trial.report(0.0, 0)
    statements()

    assert not prunes(trial)
    assert statements() == 0


def test_nothing_is_pruned_while_reports_are_kept_back(asker: Worker) -> None:
    trial, prunes = asker.claim(), pruning_check(asker.study, asker.service, min_epochs=3)
    for step in range(3):
        trial.report(0.0, step)
    asker.service.retry.note_outage("planted")
    trial.report(0.0, 3)
    kept_back = prunes(trial)

    asker.service.retry.note_answer()
    trial.report(0.0, 4)

    assert (kept_back, prunes(trial)) == (False, True)
