"""Initial points are drawn once each, a search is repeatable, and every sampler and pruner works."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from pydantic import TypeAdapter

from tlopt.search.samplers import InitialPointsSampler, Params, make_pruner
from tlopt.spec import algorithms
from tlopt.storage.attributes import BEGAN, POINT
from tlopt.storage.studies import open_storage

FIRST: list[Params] = [{"x": 0.25, "kind": "a"}, {"x": 0.75, "kind": "b"}, {"x": 0.25, "kind": "b"}]
SAMPLERS = ("tpe", "random", "gp")
PRUNERS = ("none", "median", "percentile", "successive_halving", "hyperband")


def sampler(
    kind: str = "random", first: Sequence[Params] = (), seed: int = 7, **arguments: Any
) -> InitialPointsSampler:
    spec: algorithms.Sampler = TypeAdapter(algorithms.Sampler).validate_python({"kind": kind, **arguments})
    return InitialPointsSampler(lambda _: first, spec, seed=seed)


def pruner(kind: str, *, epochs_max: int = 30, **arguments: Any) -> optuna.pruners.BasePruner:
    spec: algorithms.Pruner = TypeAdapter(algorithms.Pruner).validate_python({"kind": kind, **arguments})
    return make_pruner(spec, epochs_max=epochs_max)


def study(drawn_by: BaseSampler, pruned_by: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    of = optuna.create_study(
        study_name="planted", direction="maximize", sampler=drawn_by, pruner=pruned_by or pruner("none")
    )
    if isinstance(drawn_by, InitialPointsSampler):
        drawn_by._full_study = of
    return of


def draw(trial: optuna.Trial) -> Params:
    trial.suggest_float("x", 0.0, 1.0)
    trial.suggest_categorical("kind", ["a", "b"])
    trial.set_user_attr(POINT, {})  # as a worker does
    return trial.params


def run(of: optuna.Study, n_trials: int) -> list[Params]:
    """The parameters of `n_trials`, each of which is complete with value x."""
    drawn = []
    for _ in range(n_trials):
        trial = of.ask()
        drawn.append(draw(trial))
        of.tell(trial, trial.params["x"])
    return drawn


# The first sets


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_first_sets_are_drawn_first_in_their_order_and_once(kind: str) -> None:
    drawn = run(study(sampler(kind, FIRST)), 8)

    assert drawn[:3] == FIRST
    assert all(params not in FIRST for params in drawn[3:])


def test_trials_that_are_asked_for_together_draw_different_first_sets() -> None:
    of = study(sampler(first=FIRST))

    asked = [of.ask() for _ in range(5)]
    drawn = [draw(trial) for trial in asked]

    assert drawn[:3] == FIRST
    assert all(params not in FIRST for params in drawn[3:])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_workers_draw_each_first_set_once_in_whatever_order_they_come(
    order: tuple[int, ...], storage_url: str
) -> None:
    asked = [worker.ask() for worker in workers(storage_url, 4)]

    drawn = [draw(asked[i]) for i in order]

    assert [sum(params == first for params in drawn) for first in FIRST] == [1, 1, 1]


def test_a_worker_that_has_drawn_half_of_a_set_keeps_the_whole_of_it(storage_url: str) -> None:
    slow, fast = workers(storage_url, 2)
    half = slow.ask()
    half.suggest_float("x", 0.0, 1.0)  # 0.25: the first set's, and the third's

    others = [draw(fast.ask()), draw(fast.ask())]
    half.suggest_categorical("kind", ["a", "b"])

    assert (half.params, *others) == tuple(FIRST)


def test_a_set_whose_trial_failed_is_drawn_again() -> None:
    of = study(sampler(first=FIRST))
    trial = of.ask()
    draw(trial)
    of.tell(trial, state=TrialState.FAIL)

    assert run(of, 3) == FIRST


def test_a_set_whose_trial_was_pruned_is_not_drawn_again() -> None:
    of = study(sampler(first=FIRST))
    trial = of.ask()
    draw(trial)
    of.tell(trial, state=TrialState.PRUNED)

    assert run(of, 2) == FIRST[1:]


def test_a_set_whose_trial_waits_is_not_drawn_by_another() -> None:
    of = study(sampler(first=FIRST))
    trial = of.ask()
    draw(trial)
    of._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    assert run(of, 3) == FIRST  # the first of these is the one that waited
    assert len(of.trials) == 3


@pytest.mark.parametrize("enqueued", [{"x": 0.5, "kind": "b"}, {"x": 0.5}])
def test_a_trial_that_a_person_enqueued_is_left_as_it_is(enqueued: Params) -> None:
    of = study(sampler(first=FIRST))
    of.enqueue_trial(enqueued)

    drawn = run(of, 4)

    assert enqueued.items() <= drawn[0].items()
    assert drawn[1:] == FIRST


def test_the_first_sets_come_once_under_hyperband() -> None:
    """Optuna shows a sampler only the trials of its own bracket then."""
    of = study(sampler("tpe", FIRST), pruner("hyperband"))
    drawn = []
    for _ in range(12):
        trial = of.ask()
        drawn.append(draw(trial))
        trial.report(0.5, 0)
        trial.should_prune()  # brackets exist after the first of these
        of.tell(trial, 0.5)

    assert drawn[:3] == FIRST
    assert all(params not in FIRST for params in drawn[3:])


# The same search again


@pytest.mark.parametrize("kind", SAMPLERS)
def test_the_same_seed_draws_the_same_search_also_across_a_restart(kind: str, tmp_path: Path) -> None:
    few = {"n_startup_trials": 4} if kind in ("tpe", "gp") else {}
    undisturbed = run(study(sampler(kind, FIRST, **few)), 6)

    restarted = []
    for _ in range(3):
        (worker,) = workers(f"sqlite:///{tmp_path}/x.db", 1, sampler(kind, FIRST, **few))
        restarted += run(worker, 2)

    assert restarted == undisturbed


def test_another_seed_draws_another_search() -> None:
    assert run(study(sampler(seed=7)), 3) != run(study(sampler(seed=8)), 3)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_workers_that_share_a_seed_never_draw_the_same_point(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    sharing = [workers(url, 1, sampler(kind))[0] for _ in range(3)]
    drawn = []
    for _ in range(4):
        asked = [worker.ask() for worker in sharing]
        drawn += [draw(trial)["x"] for trial in asked]
        for worker, trial in zip(sharing, asked, strict=True):
            worker.tell(trial, trial.params["x"])

    assert len(set(drawn)) == len(drawn)


def workers(url: str, n_workers: int, drawn_by: BaseSampler | None = None) -> list[optuna.Study]:
    """The same study as several processes see it."""
    return [
        optuna.create_study(
            study_name="planted",
            direction="maximize",
            storage=open_storage(url),
            sampler=drawn_by or sampler(first=FIRST),
            load_if_exists=True,
        )
        for _ in range(n_workers)
    ]


# Pruners


@pytest.mark.parametrize("kind", PRUNERS)
@pytest.mark.parametrize("sampled_by", SAMPLERS)
def test_every_sampler_goes_with_every_pruner(kind: str, sampled_by: str) -> None:
    of = study(sampler(sampled_by, FIRST), pruner(kind, epochs_max=4))

    for _ in range(12):
        trial = of.ask()
        draw(trial)
        for step in range(4):
            trial.report(trial.params["x"], step)
            if trial.should_prune():
                of.tell(trial, state=TrialState.PRUNED)
                break
        else:
            of.tell(trial, trial.params["x"])

    assert {trial.state for trial in of.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}


def first_pruned_epoch(of: optuna.Study, epochs: int) -> int | None:
    """After how many epochs a hopeless trial is stopped, beside twelve good ones that go on to the end."""
    for _ in range(12):
        good = of.ask()
        for step in range(epochs):
            good.report(1.0, step)
            good.should_prune()  # halving keeps its accounts there
        of.tell(good, 1.0)
    hopeless = of.ask()
    for step in range(epochs):
        hopeless.report(0.0, step)
        if hopeless.should_prune():
            return step + 1
    return None


@pytest.mark.parametrize("min_epochs", [1, 2, 5])
@pytest.mark.parametrize("kind", ["median", "percentile"])
def test_a_hopeless_trial_is_stopped_after_min_epochs_and_not_before(kind: str, min_epochs: int) -> None:
    of = study(sampler(), pruner(kind, min_epochs=min_epochs))

    assert first_pruned_epoch(of, 10) == min_epochs


@pytest.mark.parametrize("min_epochs", [2, 5])
@pytest.mark.parametrize("kind", ["successive_halving", "hyperband"])
def test_halving_lets_every_trial_finish_min_epochs(kind: str, min_epochs: int) -> None:
    of = study(sampler(), pruner(kind, min_epochs=min_epochs))

    pruned_after = first_pruned_epoch(of, 30)

    assert pruned_after is not None
    assert pruned_after >= min_epochs


def test_no_pruner_stops_nothing() -> None:
    assert first_pruned_epoch(study(sampler(), pruner("none")), 10) is None


@pytest.mark.parametrize("kind", ["median", "percentile", "successive_halving", "hyperband"])
@pytest.mark.parametrize(("min_epochs", "epochs_max"), [(1, 1), (2, 1), (9, 3), (3, 3)])
def test_a_budget_of_few_epochs_stops_nothing_before_min_epochs(
    kind: str, min_epochs: int, epochs_max: int
) -> None:
    of = study(sampler(), pruner(kind, min_epochs=min_epochs, epochs_max=epochs_max))

    pruned_after = first_pruned_epoch(of, epochs_max)

    assert pruned_after is None or pruned_after >= min_epochs


# Plateaus


def test_a_gaussian_process_repeats_no_point_on_a_plateau() -> None:
    of = study(sampler("gp", n_startup_trials=3))
    for _ in range(16):
        trial = of.ask()
        draw(trial)
        of.tell(trial, 1.0)

    points = [tuple(sorted(trial.params.items())) for trial in of.trials]
    assert len(set(points)) == len(points)


def test_a_space_of_few_points_is_drawn_from_again() -> None:
    of = study(sampler("gp", n_startup_trials=1))
    for _ in range(4):
        trial = of.ask()
        trial.suggest_categorical("kind", ["a", "b"])
        of.tell(trial, 1.0)

    assert {trial.params["kind"] for trial in of.trials} == {"a", "b"}


@pytest.mark.parametrize("kind", ["median", "percentile"])
def test_linear_classifiers_are_no_start_up_trials_of_the_pruner(kind: str) -> None:
    settings = {"kind": kind, "n_startup_trials": 3, "min_epochs": 2}
    spec: algorithms.Pruner = TypeAdapter(algorithms.Pruner).validate_python(settings)

    def first_pruned(n_linear: int) -> int:
        """Number of networks that are not pruned, though each is worse than all before."""
        study = optuna.create_study(
            direction="maximize", pruner=make_pruner(spec, epochs_max=4, n_linear=n_linear)
        )
        for _ in range(2):
            study.add_trial(optuna.create_trial(value=0.5, intermediate_values={0: 0.5}))
        for number in range(9):
            trial = study.ask()
            for epoch in range(4):
                trial.report(-number, epoch)
                if trial.should_prune():
                    return number
            study.tell(trial, -number)
        return 9

    assert first_pruned(n_linear=2) == 3
    assert first_pruned(n_linear=0) == 1


def test_the_start_of_a_study_is_read_once_for_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = study(sampler())
    readings = []

    def read(_: optuna.Study) -> dict[str, Any]:
        readings.append(True)
        return {BEGAN: 1.0}

    monkeypatch.setattr(optuna.Study, "user_attrs", property(read))
    for _ in range(3):
        drawn.ask().suggest_float("lr", 0.1, 1.0)

    assert len(readings) == 1
