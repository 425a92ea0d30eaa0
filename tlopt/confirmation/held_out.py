"""Evaluation on the test split, after the choice, for the chosen point and the defaults; nowhere else."""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling
from safetensors import SafetensorError
from torch import nn

from tlopt.confirmation.predictions import (
    THUMBNAIL_SIDE,
    THUMBNAILS_MAX,
    Predictions,
    Source,
    predictions_file,
    read_known,
    surest_mistakes,
)
from tlopt.confirmation.verdict import Confirmed, SplitName, Verdict
from tlopt.data.batches import Images, gather_pixels
from tlopt.data.dataset import File, TestSplit
from tlopt.data.dataset import Image as ImageRecord
from tlopt.data.load import test_split
from tlopt.errors import DataError
from tlopt.spec.point import Point, seed_for
from tlopt.system.words import counted
from tlopt.training.inference import exported_logits
from tlopt.training.loop import Epoch, train_epochs
from tlopt.training.metrics import Metrics, compute_metrics, log_probabilities
from tlopt.training.run import Run
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace

WeightsFile = Callable[[int, int], Path]  # from a candidate's number and the replicate
_logger = logging.getLogger(__name__)


def read_test(
    workspace: Workspace, rows: Iterable[Confirmed], weights_file: WeightsFile
) -> dict[int, list[dict[str, float]]]:
    """Test metrics of each row's networks, in the order of the seeds, by the row's number.

    Evaluated in float32, as exported, whatever precision the study trains in. A network whose weights are not
    on this machine is trained again from its seed. Each network's predictions are written beside its weights,
    for reports and cards.
    """
    held_out = test_split(workspace.study.data, seed=workspace.study.seed)
    test: dict[int, list[dict[str, float]]] = {}
    for row in rows:
        shown = _test_shown(workspace, held_out, row.point)
        test[row.number] = []
        for replicate, seed in enumerate(row.seeds):
            file = weights_file(row.number, replicate)
            run = trained(workspace, row.point, seed, replicate, file)
            source = Source.of(row.point, seed, workspace.fingerprints)
            metrics, predictions = _evaluated(run.network, row.point, shown, source, workspace.device)
            test[row.number].append(metrics.as_dict())
            _record(predictions, file)
    return test


def read_test_of(
    workspace: Workspace, network: nn.Module, point: Point, source: Source, file: Path
) -> dict[str, float]:
    """Test metrics of a network made of confirmed ones, which sees images as those of `point` do.

    Args:
        network: in eval mode on the workspace's device.
        source: what its predictions belong to.
        file: beside which they are written, as beside a file of weights.
    """
    held_out = test_split(workspace.study.data, seed=workspace.study.seed)
    shown = _test_shown(workspace, held_out, point)
    metrics, predictions = _evaluated(network, point, shown, source, workspace.device)
    _record(predictions, file)
    return metrics.as_dict()


def validate(
    workspace: Workspace, network: nn.Module, point: Point, source: Source, val: NDArray[np.int64]
) -> tuple[Metrics, Predictions]:
    """Metrics and predictions of a network on the validation images `val`, as exported."""
    return _evaluated(network, point, _val_shown(workspace, point, val), source, workspace.device)


def record_validation(workspace: Workspace, verdict: Verdict, weights_file: WeightsFile) -> None:
    """Write the exported network's predictions on validation beside its weights, unless they exist."""
    chosen, replicate = verdict.chosen, verdict.exported_replicate
    file, seed = weights_file(chosen.number, replicate), chosen.seeds[replicate]
    source = Source.of(chosen.point, seed, workspace.fingerprints)
    with suppress(DataError):  # a damaged file is rewritten
        if read_known(file, "val", source) is not None:
            return
    run = trained(workspace, chosen.point, seed, replicate, file)
    val = workspace.data.splits[workspace.data.confirm_split(replicate)].val
    _record(validate(workspace, run.network, chosen.point, source, val)[1], file)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shown:
    """The images of a split, as networks of one point are shown them."""

    split: SplitName
    images: Images
    indices: NDArray[np.int64]  # (N,), into `images`
    class_names: tuple[str, ...]
    names: tuple[str, ...]  # (N,), of the images


def _test_shown(workspace: Workspace, held_out: TestSplit, point: Point) -> _Shown:
    return _Shown(
        split="test",
        images=workspace.test_images(held_out, point),
        indices=np.arange(len(held_out.labels)),
        class_names=held_out.class_names,
        names=_names(workspace, held_out.images),
    )


def _val_shown(workspace: Workspace, point: Point, val: NDArray[np.int64]) -> _Shown:
    data = workspace.data
    return _Shown(
        split="val",
        images=workspace.images(point),
        indices=val,
        class_names=data.class_names,
        names=_names(workspace, [data.images[index] for index in val]),
    )


def _evaluated(
    network: nn.Module, point: Point, shown: _Shown, source: Source, device: torch.device
) -> tuple[Metrics, Predictions]:
    logits = exported_logits(network, shown.images, point, shown.indices, device)
    metrics = compute_metrics(logits, shown.images.labels[shown.indices])
    return metrics, _predictions(logits, shown, source)


def _predictions(logits: NDArray[np.float64], shown: _Shown, source: Source) -> Predictions:
    """The predictions in `logits` (N, classes) for the images shown, with thumbnails."""
    images, indices = shown.images, shown.indices
    labels, probabilities = images.labels[indices], np.exp(log_probabilities(logits))
    predicted = logits.argmax(axis=1)
    probability = probabilities.max(axis=1)
    surest = surest_mistakes(labels, predicted, probability)[:THUMBNAILS_MAX]
    pixels = gather_pixels(images.eval_pixels, indices[surest], torch.device("cpu")).numpy()
    side = THUMBNAIL_SIDE
    thumbnails = [np.asarray(Image.fromarray(each).resize((side, side), Resampling.BOX)) for each in pixels]
    return Predictions(
        source=source,
        split=shown.split,
        class_names=shown.class_names,
        files=shown.names,
        labels=labels,
        predicted=predicted,
        probability=probability,
        true_probability=probabilities[np.arange(len(labels)), labels],
        thumbnails=np.stack(thumbnails) if thumbnails else np.empty((0, side, side, 3), dtype=np.uint8),
        thumbnail_of=surest,
    )


def _record(predictions: Predictions, weights_file: Path) -> None:
    """Write `predictions` beside the weights; if that fails, the report lacks a section."""
    file = predictions_file(weights_file, predictions.split)
    try:
        predictions.write(file)
    except OSError as error:
        _logger.warning("%s cannot be written, so the report omits mistakes: %s", file, error)


def _names(workspace: Workspace, images: Sequence[ImageRecord]) -> tuple[str, ...]:
    """Image names: the path relative to the source's folder, or the sample's name."""
    root = Path(workspace.study.data.source).absolute()
    return tuple(
        os.path.relpath(path, root)
        if isinstance(image.origin, File) and (path := image.origin.path.absolute()).is_relative_to(root)
        else str(image.origin)
        for image in images
    )


def trained(workspace: Workspace, point: Point, seed: int, replicate: int, weights_file: Path) -> Run:
    """The trained run of a confirmation: loaded from its weights file, or else trained again.

    Training again gives the same bits only with the number of threads stored with the study.
    """
    split = workspace.data.splits[workspace.data.confirm_split(replicate)]
    run = workspace.start_run(point, seed=seed, train=split.train)
    lost = _load(workspace, run, weights_file)
    if not lost:
        return run
    _logger.warning(
        "%s %s: the network is trained again from its seed, with %s",
        weights_file,
        lost,
        counted(torch.get_num_threads(), "CPU thread"),
    )
    run = workspace.start_run(point, seed=seed, train=split.train)  # a damaged file may be half loaded
    epochs = list(train_epochs(run, workspace.images(point), split.train, split.val))
    workspace.save_weights(run, weights_file)
    History.of(epochs).write(history_file(weights_file))
    return run


def _load(workspace: Workspace, run: Run, weights_file: Path) -> str:
    """Load the weights file into `run`; return why that failed, or ""."""
    if not weights_file.is_file() or not history_file(weights_file).is_file():
        return "is not on this machine"
    try:
        History.read(history_file(weights_file))
        return "" if workspace.load_trained(run, weights_file) else "is of another run"
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        return f"is damaged ({type(error).__name__})"


def train_on_all(workspace: Workspace, point: Point) -> tuple[Run, Generator[Epoch]]:
    """A run of `point` on training and validation images together, and the generator that trains it."""
    everything: NDArray[np.int64] = np.arange(len(workspace.data.labels))
    run = workspace.start_run(point, seed=seed_for(workspace.study.seed, "train"), train=everything)
    return run, train_epochs(run, workspace.images(point), everything, None)
