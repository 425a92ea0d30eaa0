"""TensorBoard, MLflow and Weights & Biases get the contents of a trial's log and cannot harm the trial."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from tlopt.errors import MissingExtra, SpecError
from tlopt.worker.observers import Observers, check_loggers, open_observers
from tlopt.worker.trial_log import TrialLog

POINT = {"lr": 0.01, "backbone": "resnet18"}
RESULT = {"outcome": "complete", "value": 0.75, "best_value": 0.8, "cause": ""}

FAKE_WANDB = """
calls = []

class Run:
    def __init__(self, **options):
        self.config = self.summary = self
        calls.append(["init", options["project"], options["id"], options["resume"]])
    def update(self, values, **_):
        calls.append(["update", dict(values)])
    def log(self, values, step):
        calls.append(["log", step, dict(values)])
    def finish(self, exit_code):
        calls.append(["finish", exit_code])

init = Run
"""
FAKE_MLFLOW = """
from types import SimpleNamespace as Record
calls, experiments, runs = [], {}, {}

class MlflowClient:
    def get_experiment_by_name(self, name):
        return experiments.get(name)
    def create_experiment(self, name):
        if name in experiments:
            raise ValueError(f"Experiment(name={name}) already exists")
        experiments[name] = Record(experiment_id=str(len(experiments)))
        return experiments[name].experiment_id
    def search_runs(self, ids, condition, max_results):
        return [run for run in runs.values() if condition == f"tags.`tlopt.trial` = '{run.number}'"]
    def create_run(self, experiment, tags, run_name):
        run = Record(info=Record(run_id=f"run{len(runs)}"), number=tags["tlopt.trial"])
        runs[run.info.run_id] = run
        return run
    def __getattr__(self, name):
        return lambda *given, **named: calls.append([name, *given, *named.values()])
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path with packages that write down how they are called."""
    for name, code in {"wandb": FAKE_WANDB, "mlflow": FAKE_MLFLOW}.items():
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def go_through(log: TrialLog) -> None:
    log.start(trial=3, point=POINT)
    for index, value in enumerate((0.8, 0.75)):
        log.epoch(tiny.epoch(index, value))
    log.end(**RESULT)
    log.close()  # as a worker does after every trial


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_weights_and_biases_gets_point_epochs_and_end(fakes: Path) -> None:
    go_through(TrialLog(fakes / "0003.jsonl", open_observers(("wandb",), "flowers", 3, fakes)))

    calls = sys.modules["wandb"].calls
    assert calls[:2] == [["init", "flowers", "flowers-0003", "allow"], ["update", POINT]]
    assert [(call[1], call[2]["val/accuracy"]) for call in calls[2:4]] == [(1, 0.8), (2, 0.75)]
    assert calls[4:] == [
        ["update", {"outcome": "complete", "value": 0.75, "best_value": 0.8}],
        ["finish", 0],
    ]


@pytest.mark.parametrize(
    ("outcome", "value", "exit_code"),
    [("complete", 0.75, 0), ("pruned", 0.5, 0), ("diverged", None, 1), ("crashed", None, 1)],
)
def test_weights_and_biases_shows_a_trial_without_a_value_as_failed(
    outcome: str, value: float | None, exit_code: int, fakes: Path
) -> None:
    log = TrialLog(fakes / "0003.jsonl", open_observers(("wandb",), "flowers", 3, fakes))
    log.start(point=POINT)
    log.end(outcome=outcome, value=value, best_value=value, cause="")

    assert sys.modules["wandb"].calls[-1] == ["finish", exit_code]


def test_workers_that_begin_at_once_share_one_experiment_of_mlflow(
    fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_observers(("mlflow",), "flowers", 0, fakes)  # another worker, after this one has looked
    mlflow = sys.modules["mlflow"]
    looks = iter([None])
    look = mlflow.MlflowClient.get_experiment_by_name
    monkeypatch.setattr(
        mlflow.MlflowClient, "get_experiment_by_name", lambda self, name: next(looks, look(self, name))
    )
    log = TrialLog(fakes / "0003.jsonl", open_observers(("mlflow",), "flowers", 3, fakes))
    log.start(point=POINT)

    assert len(mlflow.experiments) == 1
    assert {call[1] for call in mlflow.calls} == {"run1"}


def test_mlflow_continues_the_run_of_a_trial_that_was_requeued(fakes: Path) -> None:
    first = TrialLog(fakes / "0003.jsonl", open_observers(("mlflow",), "flowers", 3, fakes))
    first.start(point=POINT)
    first.epoch(tiny.epoch(0, 0.8))
    first.close()
    second = TrialLog(fakes / "0003.jsonl", open_observers(("mlflow",), "flowers", 3, fakes))
    second.start(point=POINT)
    second.epoch(tiny.epoch(1, 0.75))
    second.end(**RESULT)

    calls = sys.modules["mlflow"].calls
    assert {call[1] for call in calls} == {"run0"}
    assert [call[2] for call in calls if call[0] == "log_param"] == ["lr", "backbone"]
    steps = [(call[3], call[4]) for call in calls if call[2:3] == ["val/accuracy"]]
    assert steps == [(0.8, 1), (0.75, 2)]
    assert [call[3] for call in calls if call[0] == "set_tag"] == ["requeued", "complete"]
    assert [call for call in calls if call[0] == "set_terminated"] == [["set_terminated", "run0", "FINISHED"]]


def test_tensorboard_s_files_hold_the_curves(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    go_through(TrialLog(tmp_path / "0003.jsonl", open_observers(("tensorboard",), "flowers", 3, tmp_path)))

    found = reader.EventAccumulator(str(tmp_path / "tensorboard" / "0003"))
    found.Reload()
    curve = [(event.step, round(event.value, 6)) for event in found.Scalars("val/accuracy")]
    assert curve == [(1, 0.8), (2, 0.75)]
    assert [round(event.value, 6) for event in found.Scalars("value")] == [0.75]


class Broken:
    """A logger whose server is away from its second event on."""

    def __init__(self) -> None:
        self.n_calls = 0

    def _fail(self, *what: object) -> None:
        self.n_calls += 1
        raise ConnectionError("the server is away")

    def start(self, point: object) -> None:
        self.n_calls += 1

    epoch = end = _fail


def test_a_logger_that_fails_is_said_once_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()

    go_through(TrialLog(tmp_path / "0003.jsonl", Observers({"broken": broken})))

    assert broken.n_calls == 2
    assert caplog.messages == [
        "the logger broken failed (ConnectionError: the server is away); the trial continues without it"
    ]
    assert [line["event"] for line in lines(tmp_path / "0003.jsonl")] == ["start", "epoch", "epoch", "end"]


def test_a_logger_that_cannot_begin_is_left_out(
    fakes: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (fakes / "wandb.py").write_text("def init(**options): raise RuntimeError('not logged in')")

    go_through(TrialLog(fakes / "0003.jsonl", open_observers(("wandb",), "flowers", 3, fakes)))

    assert caplog.messages == [
        "the logger wandb failed (RuntimeError: not logged in); the trial continues without it"
    ]
    assert len(lines(fakes / "0003.jsonl")) == 4


def test_a_package_that_is_not_installed_is_said_before_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    check_loggers(())
    monkeypatch.setattr("tlopt.worker.observers.find_spec", lambda name: None)

    with pytest.raises(MissingExtra, match=r'service\.loggers has "mlflow".*pip install "tlopt\[mlflow\]"'):
        check_loggers(("mlflow",))


def test_a_worker_tells_the_study_s_loggers_of_its_trials(
    fakes: Path,
    monkeypatch: pytest.MonkeyPatch,
    study_text: Callable[..., str],
    workshop: tiny.Workshop,
    tmp_path: Path,
) -> None:
    tiny.plant(monkeypatch, lambda point: [0.5] * point.epochs)
    loggers = '[service]\nloggers = ["wandb"]'
    text = tiny.lighter(study_text(name=tmp_path.name, trials=2, epochs=3, tables=loggers))
    here = tiny.place(text, workshop, tmp_path / "runs")

    assert here.work() == 2

    calls = sys.modules["wandb"].calls
    assert [call[2] for call in calls if call[0] == "init"] == [f"{tmp_path.name}-{n:04d}" for n in (0, 1)]
    assert [call[1] for call in calls if call[0] == "log"] == [1, 2, 3] * 2
    assert len([call for call in calls if call[0] == "finish"]) == 2


def test_an_unknown_logger_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SpecError, match=r"service\.loggers: .*comet.* any of tensorboard, mlflow, wandb"):
        tiny.study("lr = 0.1", more='[service]\nloggers = ["comet"]')
