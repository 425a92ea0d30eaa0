"""Workers survive all other calls to Optuna, and the budget is met exactly."""

import json
import sys
from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from service import NO_PRUNER, WAIT_SECONDS, Service, wait
from service import make_service as make_service

from tlopt.storage.studies import open_storage

pytestmark = pytest.mark.slow

QUICK = NO_PRUNER + "[service]\ngrace_seconds = 5\n[confirm]\npoints = 1\nseeds = 3"

WIDE_RATE = FloatDistribution(1e-9, 9.0, log=True)  # other kinds of distribution Optuna itself refuses


def enqueue_nonsense(study: optuna.Study) -> None:
    for value in ("abc", None, 7.0, -1.0, float("nan"), [1], {"log": 1}, True):
        study.enqueue_trial({"lr": value})
    study.enqueue_trial({"lrr": 0.01})
    study.enqueue_trial({"freeze_depth": 9.0, "lr": 0.01})


GOOD: tuple[dict[str, float], ...] = ({"lr": 0.01}, {"lr": 0.01, "freeze_depth": 0.5})


def enqueue_sense(study: optuna.Study) -> None:
    for point in GOOD:
        study.enqueue_trial(point, user_attrs={"who": "me"})


def is_good(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a waiting trial may wait behind a spent budget; a bad one has to end with its cause."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params} in GOOD


def add_finished(study: optuna.Study) -> None:
    study.add_trial(
        optuna.create_trial(
            value=0.99,
            params={"lr": 0.01, "freeze_depth": 0.25},
            distributions={"lr": WIDE_RATE, "freeze_depth": FloatDistribution(-9.0, 9.0)},
        )
    )
    study.add_trial(optuna.create_trial(value=1.0, params={"lr": 8.0}, distributions={"lr": WIDE_RATE}))
    study.add_trial(optuna.create_trial(value=1.0))
    study.add_trial(optuna.create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.5}))
    study.add_trial(optuna.create_trial(state=TrialState.FAIL))


def add_waiting(study: optuna.Study) -> None:
    for params, space in (
        ({"lr": 0.01}, {"lr": WIDE_RATE}),
        ({"lr": 8.0}, {"lr": WIDE_RATE}),
        ({"width": 3.0}, {"width": FloatDistribution(0.0, 9.0)}),
    ):
        study.add_trial(optuna.create_trial(state=TrialState.WAITING, params=params, distributions=space))


def begin_elsewhere(study: optuna.Study) -> None:
    study.ask()
    study.ask({"lr": FloatDistribution(1e-9, 1e-8, log=True)})
    study.add_trial(optuna.create_trial(state=TrialState.RUNNING))
    study.tell(study.ask(), 0.5)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.tell(study.ask(), state=TrialState.PRUNED)


def note_on_all(study: optuna.Study) -> None:
    study.set_user_attr("mine", {"a": 1})
    store = study._storage
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished():
            store.set_trial_user_attr(trial._trial_id, "mine", [1, 2])


def tell_running(study: optuna.Study) -> None:
    """End what a worker is at."""
    running = wait(lambda: study.get_trials(states=(TrialState.RUNNING,)), "running trial")
    study.tell(running[0].number, state=TrialState.FAIL)


CALLS = (
    begin_elsewhere,  # first: `study.ask` takes a waiting trial where there is one
    enqueue_nonsense,
    enqueue_sense,
    add_finished,
    add_waiting,
    note_on_all,
    tell_running,
)


def opened(here: Service, store: BaseStorage) -> optuna.Study:
    """The study, once its worker has made it."""
    wait(lambda: here.frozen(), "trial")
    return optuna.load_study(study_name=here.name, storage=store)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_workers_confirm_and_report_beside_other_calls(
    kind: str, storage_url: str, service: Callable[..., Service]
) -> None:
    sampler = f'[sampler]\nkind = "{kind}"\nn_startup_trials = 3\n'
    here = service(storage_url, trials=9, epochs=2, tables=QUICK + "\n" + sampler)
    workers = [here.worker(faults="slow"), here.worker(faults="slow")]
    study = opened(here, open_storage(storage_url))
    for call in CALLS:
        call(study)
    here.hurry()

    for worker in workers:
        status, _, errors = worker.end()
        assert status == 0, errors[-3000:]
        assert "Traceback" not in errors
    trials = here.trials()
    assert sum(trial.counts for trial in trials) == 9
    # a good enqueued point waits on where sampled ones were quicker to spend the budget
    known = {"complete", "pruned", "failed", "refused", "added", "waiting"}
    assert {trial.outcome for trial in trials} <= known
    assert all(trial.cause for trial in trials if trial.outcome == "refused")
    waiting = [trial.number for trial in trials if trial.outcome == "waiting"]
    assert all(is_good(study.trials[number]) for number in waiting)
    assert sum(trial.outcome == "refused" for trial in trials) >= 12

    status, out, errors = here.start("run", "--workers", "1").end(4 * WAIT_SECONDS)
    assert status == 0, errors[-3000:]
    assert f"exported to exports/{here.name}" in out
    for name, *options in (
        ["status", "--json"],
        ["report", "--overwrite"],
        ["export", "--top", "3", "--format", "json"],
    ):
        status, out, errors = here.launch(
            [sys.executable, "-m", "tlopt", name, str(here.file)], options, in_runs=False
        ).end()
        assert (name, status) == (name, 0), errors
        if name == "status":
            assert json.loads(out)["trials_finished"] == 9


def test_a_copy_of_a_running_study_is_finished(storage_url: str, service: Callable[..., Service]) -> None:
    here = service(storage_url, trials=2, epochs=2, tables=QUICK)
    worker = here.worker(faults="hold")
    here.wait_for_epochs(1)
    optuna.copy_study(
        from_study_name=here.name,
        to_study_name="copied",
        from_storage=open_storage(storage_url),
        to_storage=open_storage(storage_url),
    )
    here.file.with_name("copy.toml").write_text(
        here.file.read_text().replace(f'name = "{here.name}"', 'name = "copied"')
    )
    copy = Service(file=here.file.with_name("copy.toml"), url=here.url, folder=here.folder)
    here.go()

    second = copy.worker()
    try:
        for each in (worker, second):
            status, _, errors = each.end()
            assert status == 0, errors[-3000:]
    finally:
        here.processes.extend(copy.processes)
    assert "no worker of tlopt holds it" in errors
    assert [trial.outcome for trial in copy.trials()] == ["complete"] * 2


def test_a_deleted_study_ends_its_worker_with_a_line(
    storage_url: str, service: Callable[..., Service]
) -> None:
    here = service(storage_url, trials=9, epochs=2, tables=QUICK)
    worker = here.worker(faults="slow")
    here.wait_for_epochs(1)

    optuna.delete_study(study_name=here.name, storage=open_storage(storage_url))
    status, _, errors = worker.end()

    assert status == 0, errors[-3000:]
    assert "was deleted: this worker stops working on it" in errors
    assert "Traceback" not in errors
