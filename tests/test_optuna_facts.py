"""Facts about Optuna that the design relies on; a version that breaks one requires another design."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState
from sqlalchemy import UniqueConstraint, event

from tlopt.storage import optuna_private, schema


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())


def test_an_enqueued_value_outside_its_range_is_stored_with_a_warning_only(study: optuna.Study) -> None:
    study.enqueue_trial({"lr": 7.0})
    trial = study.ask()

    with pytest.warns(UserWarning, match="is out of range"):
        assert trial.suggest_float("lr", 0.0, 1.0) == 7.0

    assert trial.params == {"lr": 7.0}


def test_a_step_that_is_reported_again_keeps_its_first_value(study: optuna.Study) -> None:
    trial = study.ask()
    trial.report(0.25, 0)

    with pytest.warns(UserWarning, match="already reported"):
        trial.report(0.75, 0)

    assert study.trials[0].intermediate_values == {0: 0.25}


def test_the_value_of_a_pruned_trial_is_its_last_report(study: optuna.Study) -> None:
    trial = study.ask()
    trial.report(0.75, 0)
    trial.report(0.25, 1)

    study.tell(trial, state=TrialState.PRUNED)

    assert study.trials[0].value == 0.25


def test_a_trial_without_any_report_may_be_pruned(study: optuna.Study) -> None:
    study.tell(study.ask(), state=TrialState.PRUNED)

    assert (study.trials[0].state, study.trials[0].value) == (TrialState.PRUNED, None)


def test_a_running_trial_is_taken_up_again_with_its_number_parameters_and_reports(
    study: optuna.Study,
) -> None:
    first = study.ask()
    drawn = first.suggest_float("lr", 0.0, 1.0)
    first.report(0.25, 0)

    second = Trial(study, first._trial_id)
    assert second.suggest_float("lr", 0.0, 1.0) == drawn
    second.report(0.5, 1)
    study.tell(second, 0.5)

    assert (second.number, study.trials[0].intermediate_values) == (0, {0: 0.25, 1: 0.5})


def test_a_finished_trial_cannot_be_told_again(study: optuna.Study) -> None:
    trial = study.ask()
    study.tell(trial, 0.5)

    with pytest.raises(ValueError, match="Cannot tell a COMPLETE trial"):
        study.tell(trial, 0.75)


def test_tpe_draws_all_parameters_jointly_by_default() -> None:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=1, seed=7))
    for value in (0.25, 0.5):
        trial = study.ask()
        trial.suggest_float("lr", 0.0, 1.0)
        trial.suggest_int("depth", 0, 4)
        study.tell(trial, value)

    assert set(study.ask().relative_params) == {"lr", "depth"}


def test_tpe_counts_running_trials_by_default() -> None:
    assert inspect.signature(optuna.samplers.TPESampler).parameters["constant_liar"].default is True


def test_a_constraint_is_set_once(study: optuna.Study) -> None:
    trial = study.ask()
    trial.set_constraint("fits", 1.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial.set_constraint("fits", 0.0)

    assert trial.constraints == {"fits": 1.0}


def test_the_cached_storage_still_names_the_storage_below_it(tmp_path: Path) -> None:
    below = RDBStorage(f"sqlite:///{tmp_path}/x.db")

    assert optuna_private.uncached(optuna.storages.get_storage(below)) is below
    below.engine.dispose()


def test_optunas_objects_keep_what_tlopt_asks_of_them_where_it_looks(study: optuna.Study) -> None:
    trial = study.ask()
    trial.report(0.25, 3)

    assert optuna_private.trial_id(trial) == optuna_private.trial_id(study.trials[0])
    assert optuna_private.storage_of(study).get_study_id_from_name(
        study.study_name
    ) == optuna_private.study_id(study)
    assert optuna_private.reported_values(trial) == {3: 0.25}


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_create_new_trial", ("study_id", "template_trial")),
        ("_get_best_trial_id", ("study_id", "direction")),
        ("_get_trials", ("study_id", "states", "included_trial_ids", "trial_id_greater_than")),
        (
            "_set_trial_param",
            ("trial_id", "param_name", "param_value_internal", "distribution", "previous_distribution"),
        ),
    ],
)
def test_optunas_public_calls_come_through_the_methods_that_are_overridden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, parameters: tuple[str, ...]
) -> None:
    inner = getattr(RDBStorage, method)
    called = []

    def outer(self: RDBStorage, *args: object, **kwargs: object) -> object:
        called.append(method)
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(RDBStorage, method, outer)
    below = RDBStorage(f"sqlite:///{tmp_path}/x.db")
    study = optuna.create_study(storage=below)
    trial = study.ask()
    trial.suggest_float("lr", 0.0, 1.0)
    study.tell(trial, 0.5)
    assert study.best_trial.number == 0

    assert called
    assert tuple(inspect.signature(inner).parameters)[1:] == parameters
    below.engine.dispose()


@pytest.mark.parametrize(
    ("table", "columns", "unique"),
    [
        (schema.studies, "study_id study_name", None),
        (schema.study_attrs, "study_user_attribute_id study_id key value_json", {"study_id", "key"}),
        (schema.trials, "trial_id number study_id state datetime_start datetime_complete", None),
        (
            schema.params,
            "param_id trial_id param_name param_value distribution_json",
            {"trial_id", "param_name"},
        ),
        (schema.values, "trial_value_id trial_id objective value value_type", {"trial_id", "objective"}),
        (schema.user_attrs, "trial_user_attribute_id trial_id key value_json", {"trial_id", "key"}),
        (schema.system_attrs, "trial_system_attribute_id trial_id key value_json", {"trial_id", "key"}),
        (
            schema.reports,
            "trial_intermediate_value_id trial_id step intermediate_value intermediate_value_type",
            {"trial_id", "step"},
        ),
    ],
)
def test_a_table_that_tlopt_writes_has_the_columns_it_writes(
    table: Any, columns: str, unique: set[str] | None
) -> None:
    keys = [
        {c.name for c in each.columns} for each in table.constraints if isinstance(each, UniqueConstraint)
    ]

    assert [column.name for column in table.columns] == columns.split()
    assert keys == ([unique] if unique else [])


def test_every_commit_of_optunas_storage_tells_the_sessions_listeners(tmp_path: Path) -> None:
    below, commits = RDBStorage(f"sqlite:///{tmp_path}/x.db"), []
    event.listen(below.scoped_session, "before_commit", commits.append)

    study = optuna.create_study(storage=below)
    n_before = len(commits)
    study.tell(study.ask(), 0.5)

    assert n_before >= 1
    assert len(commits) > n_before
    below.engine.dispose()


@pytest.mark.parametrize(
    "name",
    [
        "create_study",
        "load_study",
        "get_all_study_names",
        "copy_study",
        "storages.RDBStorage",
        "storages.BaseStorage",
        "storages.get_storage",
        "exceptions.StorageInternalError",
        "exceptions.ExperimentalWarning",
        "exceptions.UpdateFinishedTrialError",
        "Study.add_trial",
        "Study.ask",
        "Study.enqueue_trial",
        "Study.get_trials",
        "Study.metric_names",
        "Study.set_metric_names",
        "Study.set_user_attr",
        "Study.tell",
        "trial.Trial",
        "trial.FrozenTrial",
        "trial.TrialState",
        "samplers.TPESampler",
        "samplers.RandomSampler",
        "samplers.GPSampler",
        "pruners.NopPruner",
        "pruners.MedianPruner",
        "pruners.PercentilePruner",
        "pruners.SuccessiveHalvingPruner",
        "pruners.HyperbandPruner",
    ],
)
def test_a_name_that_tlopt_uses_is_there(name: str) -> None:
    found: object = optuna
    for part in name.split("."):
        found = getattr(found, part)


def test_optunas_cache_keeps_what_ours_forgets_where_it_looks(tmp_path: Path) -> None:
    below = RDBStorage(f"sqlite:///{tmp_path}/x.db")
    study = optuna.create_study(storage=below)
    study.tell(study.ask(), 0.5)
    cache = optuna_private.storage_of(study)

    assert isinstance(cache, optuna.storages._CachedStorage)
    assert list(inspect.signature(cache._read_trials_from_remote_storage).parameters) == ["study_id"]
    kept = {name for name, value in vars(cache).items() if isinstance(value, dict)}
    assert kept == {"_studies", "_trial_id_to_study_id_and_number", "_study_id_and_number_to_trial_id"}
    study.get_trials()
    assert [trial.value for trial in cache._studies[study._study_id].trials.values()] == [0.5]
    below.engine.dispose()
