"""The only place that reads the test split: after the choice, for the chosen point and the two defaults."""

import logging
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from tlopt.confirmation.verdict import Confirmed
from tlopt.data.load import test_split
from tlopt.spec.point import Point, seed_for
from tlopt.training.inference import exported_logits
from tlopt.training.loop import Epoch, fit
from tlopt.training.metrics import measure
from tlopt.training.run import Run
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace

WeightsFile = Callable[[int, int], Path]  # of (candidate's number, replicate)
_logger = logging.getLogger(__name__)


def read_test(
    workspace: Workspace, rows: Iterable[Confirmed], weights_file: WeightsFile
) -> dict[int, list[dict[str, float]]]:
    """Test metrics of each row's networks, seed by seed, by the row's number.

    They are those of the exported networks: float32, whatever precision the study trains in.

    A network whose weights are not on this machine is trained again from its seed.
    """
    held_out = test_split(workspace.study.data, seed=workspace.study.seed)
    indices = np.arange(len(held_out.labels))
    test = {}
    for row in rows:
        images = workspace.test_images(held_out, row.point)
        runs = (
            trained(workspace, row.point, seed, replicate, weights_file(row.number, replicate))
            for replicate, seed in enumerate(row.seeds)
        )
        test[row.number] = [
            measure(
                exported_logits(run.network, images, row.point, indices, workspace.device), held_out.labels
            ).as_dict()
            for run in runs
        ]
    return test


def trained(workspace: Workspace, point: Point, seed: int, replicate: int, weights_file: Path) -> Run:
    """The run that the confirmation's trial ended with: from its weights' file, else trained again.

    The last bits of a network that is trained again depend on this process's number of threads; they are the
    confirmation's with the number that the study has chosen.
    """
    split = workspace.data.splits[replicate % len(workspace.data.splits)]
    run = workspace.start_run(point, seed=seed, train=split.train)
    lost = _load(workspace, run, weights_file)
    if not lost:
        return run
    _logger.warning(
        "%s %s: the network is trained again from its seed, with %d CPU threads",
        weights_file,
        lost,
        torch.get_num_threads(),
    )
    run = workspace.start_run(point, seed=seed, train=split.train)  # half of a damaged file may be in it
    epochs = list(fit(run, workspace.images(point), split.train, split.val))
    workspace.save_weights(run, weights_file)
    History.of(epochs).write(history_file(weights_file))
    return run


def _load(workspace: Workspace, run: Run, weights_file: Path) -> str:
    """Fill `run` from its weights' file; why that failed, or ""."""
    if not weights_file.is_file() or not history_file(weights_file).is_file():
        return "is not on this machine"
    try:
        History.read(history_file(weights_file))
        return "" if workspace.load_trained(run, weights_file) else "is of another run"
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        return f"is damaged ({type(error).__name__})"


def train_on_all(workspace: Workspace, point: Point) -> tuple[Run, Generator[Epoch]]:
    """A run of `point` on training and validation images together, and the epochs that train it."""
    everything: NDArray[np.int64] = np.arange(len(workspace.data.labels))
    run = workspace.start_run(point, seed=seed_for(workspace.study.seed, "train"), train=everything)
    return run, fit(run, workspace.images(point), everything, None)
