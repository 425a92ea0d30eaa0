"""A worker of the fault run with Optuna alone: heartbeat, retries and `MaxTrialsCallback`, as documented.

    python -m benchmarks.chaos.stock /tmp/chaos/stock/study.toml --runs /tmp/chaos/stock/runs

Started by `benchmarks.chaos.run`, with the database's URL in TLOPT_STORAGE. The objective trains the same
trials as tlopt's worker with the same code and reports to the same pruner.
"""

import argparse
import json
import os
import warnings
from pathlib import Path

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from tlopt.search.plan import StudyPlan, search_plan
from tlopt.spec import Study, loads
from tlopt.spec.algorithms import MedianPruner, TpeSampler
from tlopt.training.devices import choose_device, configure_process
from tlopt.training.loop import Epoch
from tlopt.trial.execution import begin_training, training_events
from tlopt.trial.workspace import Workspace

COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


def work(study: Study, runs: Path) -> None:
    """Run trials until the study's budget is spent."""
    configure_process(1)
    workspace = Workspace.open(study, choose_device("cpu"))
    plan = search_plan(study, workspace.facts, len(workspace.data.splits))

    def objective(trial: optuna.Trial) -> float:
        task = plan.draw(trial)
        origin = RetryHeartbeatStaleTrialCallback.retried_trial_number(
            trial.study.get_trials(deepcopy=False)[trial.number]
        )
        value = float("nan")
        for event in training_events(begin_training(task, workspace, n_micro_batches=1)):
            if not isinstance(event, Epoch):
                continue
            assert event.val is not None
            value = event.val.as_dict()[study.objective]
            line = {"trial": trial.number if origin is None else origin, "epoch": event.index}
            with (runs / "epochs.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            trial.report(value, event.index)
            if task.prunable and event.index + 1 < task.point.epochs and trial.should_prune():
                raise optuna.TrialPruned
        return value

    opened = _open(study, plan)
    if len(opened.get_trials(deepcopy=False, states=COUNTED)) >= study.budget.trials_max:
        return  # a restarted process would run one more
    opened.optimize(objective, callbacks=[MaxTrialsCallback(study.budget.trials_max, states=COUNTED)])


def _open(study: Study, plan: StudyPlan) -> optuna.Study:
    assert isinstance(study.sampler, TpeSampler)
    assert isinstance(study.pruner, MedianPruner)
    grace_seconds = int(study.service.grace_seconds)
    storage = RDBStorage(
        os.environ["TLOPT_STORAGE"],
        engine_kwargs={"pool_pre_ping": True},
        heartbeat_interval=1,
        grace_period=grace_seconds,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
    return optuna.create_study(
        storage=storage,
        study_name=study.name,
        direction=study.direction,
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(
            n_startup_trials=study.sampler.n_startup_trials, multivariate=True
        ),
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=study.pruner.n_startup_trials, n_warmup_steps=study.pruner.min_epochs - 1
        ),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="study file")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the log of epochs")
    options = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    work(loads(options.study.read_text(), str(options.study)), options.runs)
