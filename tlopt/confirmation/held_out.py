"""Evaluation on the test split, after the choice, for the chosen point and the defaults; nowhere else."""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling
from safetensors import SafetensorError

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
from tlopt.data.dataset import File
from tlopt.data.dataset import Image as ImageRecord
from tlopt.data.load import test_split
from tlopt.errors import DataError
from tlopt.spec.point import Point, seed_for
from tlopt.system.words import counted
from tlopt.training.inference import exported_logits
from tlopt.training.loop import Epoch, train_epochs
from tlopt.training.metrics import compute_metrics, log_probabilities
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
    indices = np.arange(len(held_out.labels))
    names = _names(workspace, held_out.images)
    test: dict[int, list[dict[str, float]]] = {}
    for row in rows:
        images = workspace.test_images(held_out, row.point)
        test[row.number] = []
        for replicate, seed in enumerate(row.seeds):
            file = weights_file(row.number, replicate)
            run = trained(workspace, row.point, seed, replicate, file)
            logits = exported_logits(run.network, images, row.point, indices, workspace.device)
            test[row.number].append(compute_metrics(logits, held_out.labels).as_dict())
            source = Source.of(row.point, seed, workspace.fingerprints)
            _record(_predictions(logits, images, indices, "test", held_out.class_names, names, source), file)
    return test


def record_validation(workspace: Workspace, verdict: Verdict, weights_file: WeightsFile) -> None:
    """Write the exported network's predictions on validation beside its weights, unless they exist."""
    chosen, replicate = verdict.chosen, verdict.exported_replicate
    file, seed = weights_file(chosen.number, replicate), chosen.seeds[replicate]
    source = Source.of(chosen.point, seed, workspace.fingerprints)
    with suppress(DataError):  # a damaged file is rewritten
        if read_known(file, "val", source) is not None:
            return
    data, images = workspace.data, workspace.images(chosen.point)
    run = trained(workspace, chosen.point, seed, replicate, file)
    val = data.splits[replicate % len(data.splits)].val
    logits = exported_logits(run.network, images, chosen.point, val, workspace.device)
    names = _names(workspace, [data.images[index] for index in val])
    _record(_predictions(logits, images, val, "val", data.class_names, names, source), file)


def _predictions(
    logits: NDArray[np.float64],
    images: Images,
    indices: NDArray[np.int64],
    split: SplitName,
    class_names: tuple[str, ...],
    names: tuple[str, ...],
    source: Source,
) -> Predictions:
    """The predictions in `logits` (N, classes) for the images at `indices` (N,), with thumbnails."""
    labels, probabilities = images.labels[indices], np.exp(log_probabilities(logits))
    predicted = logits.argmax(axis=1)
    probability = probabilities.max(axis=1)
    shown = surest_mistakes(labels, predicted, probability)[:THUMBNAILS_MAX]
    pixels = gather_pixels(images.eval_pixels, indices[shown], torch.device("cpu")).numpy()
    side = THUMBNAIL_SIDE
    thumbnails = [np.asarray(Image.fromarray(each).resize((side, side), Resampling.BOX)) for each in pixels]
    return Predictions(
        source=source,
        split=split,
        class_names=class_names,
        files=names,
        labels=labels,
        predicted=predicted,
        probability=probability,
        true_probability=probabilities[np.arange(len(labels)), labels],
        thumbnails=np.stack(thumbnails) if thumbnails else np.empty((0, side, side, 3), dtype=np.uint8),
        thumbnail_of=shown,
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
    split = workspace.data.splits[replicate % len(workspace.data.splits)]
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
