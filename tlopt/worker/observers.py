"""Loggers of trials to TensorBoard, MLflow and Weights & Biases, called by the trial's log.

The packages are extras. They find their servers and credentials themselves (MLFLOW_TRACKING_URI,
WANDB_API_KEY and the like).
"""

import functools
import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, assert_never

from tlopt.errors import MissingExtra
from tlopt.spec.sections import Logger

_logger = logging.getLogger(__name__)


class Observer(Protocol):
    """A logger of one trial; an exception disables it and never affects the trial."""

    def start(self, point: Mapping[str, Any]) -> None:
        """Start logging, or continue a resumed trial."""

    def epoch(self, n_done: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics after `n_done` epochs."""

    def end(self, outcome: str, numbers: Mapping[str, float]) -> None:
        """Stop logging; `outcome` is "requeued" if the trial will be resumed."""


class Observers:
    """The loggers of one trial; one that fails is dropped, with one warning per process."""

    def __init__(self, loggers: Mapping[str, Observer]) -> None:
        self._loggers = dict(loggers)

    def start(self, point: Mapping[str, Any]) -> None:
        """Start every logger."""
        self._tell("start", point)

    def epoch(self, n_done: int, metrics: Mapping[str, float]) -> None:
        """Log an epoch to every logger."""
        self._tell("epoch", n_done, metrics)

    def end(self, outcome: str, numbers: Mapping[str, float]) -> None:
        """Stop every logger; later calls do nothing."""
        self._tell("end", outcome, numbers)
        self._loggers.clear()

    def _tell(self, event: str, *what: Any) -> None:
        for name, observer in list(self._loggers.items()):
            try:
                getattr(observer, event)(*what)
            except Exception as error:  # third-party code; a logger must not fail a trial
                del self._loggers[name]
                _warn_once(name, f"{type(error).__name__}: {error}")


NO_OBSERVERS = Observers({})


@functools.cache
def _warn_once(name: str, why: str) -> None:
    _logger.warning("the logger %s failed (%s); the trial continues without it", name, why)


def check_loggers(names: Sequence[Logger]) -> None:
    """Check that the packages of the study's loggers are installed.

    Raises:
        MissingExtra: one is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise MissingExtra(
                f'service.loggers has "{name}", which is not installed: pip install "tlopt[{name}]"'
            )


def open_observers(names: Sequence[Logger], study: str, number: int, folder: Path) -> Observers:
    """Open the loggers of a trial.

    Args:
        names: as in `service.loggers`.
        study: name of the search or of its confirmation.
        number: trial number.
        folder: folder of the study's files, for loggers that write files.
    """
    made: dict[str, Observer] = {}
    for name in names:
        try:
            made[name] = _observer(name, study, number, folder)
        except Exception as error:
            _warn_once(name, f"{type(error).__name__}: {error}")
    return Observers(made)


def _observer(name: Logger, study: str, number: int, folder: Path) -> Observer:
    match name:
        case "tensorboard":
            return TensorBoard(folder / "tensorboard" / f"{number:04d}")
        case "mlflow":
            return MLflow(study, number)
        case "wandb":
            return WandB(study, number, folder)
        case _:
            assert_never(name)


class TensorBoard:
    """Event files in `folder` with a trial's curves, and its point as hyperparameters."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._point: Mapping[str, Any] = {}

    def start(self, point: Mapping[str, Any]) -> None:
        self._point = dict(point)

    def epoch(self, n_done: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, n_done)
        self._writer.flush()

    def end(self, outcome: str, numbers: Mapping[str, float]) -> None:
        if numbers:
            self._writer.add_hparams(self._point, dict(numbers), run_name=".")
        self._writer.close()


class MLflow:
    """A run per trial in an experiment named after the study; a resumed trial continues its run."""

    def __init__(self, study: str, number: int) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()  # independent of MLflow's global active run
        experiment = self._experiment(study)
        begun = self._client.search_runs([experiment], f"tags.`tlopt.trial` = '{number}'", max_results=1)
        tags = {"tlopt.trial": str(number)}
        run = (
            begun[0] if begun else self._client.create_run(experiment, tags=tags, run_name=f"trial {number}")
        )
        self._run_id, self._resumed = run.info.run_id, bool(begun)

    def _experiment(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        if known is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:  # another worker may have been first
                known = self._client.get_experiment_by_name(name)
                if known is None:
                    raise
        return str(known.experiment_id)

    def start(self, point: Mapping[str, Any]) -> None:
        for name, value in () if self._resumed else point.items():
            self._client.log_param(self._run_id, name, value)

    def epoch(self, n_done: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._run_id, name, value, step=n_done)

    def end(self, outcome: str, numbers: Mapping[str, float]) -> None:
        self._client.set_tag(self._run_id, "tlopt.outcome", outcome)
        for name, value in numbers.items():
            self._client.log_metric(self._run_id, name, value)
        if outcome != "requeued":
            self._client.set_terminated(self._run_id, "FINISHED" if numbers else "FAILED")


class WandB:
    """A run per trial in a project named after the study; a resumed trial continues its run."""

    def __init__(self, study: str, number: int, folder: Path) -> None:
        import wandb

        name = f"{study}-{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=study, name=f"trial {number}", id=name, resume="allow", dir=str(folder), group=study
        )

    def start(self, point: Mapping[str, Any]) -> None:
        self._run.config.update(dict(point), allow_val_change=True)

    def epoch(self, n_done: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=n_done)

    def end(self, outcome: str, numbers: Mapping[str, float]) -> None:
        self._run.summary.update({"outcome": outcome, **numbers})
        failed = not numbers and outcome != "requeued"
        self._run.finish(exit_code=int(failed))  # 1 shows as failed
