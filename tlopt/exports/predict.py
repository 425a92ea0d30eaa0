"""Classification of image files with an export."""

import csv
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlopt.data.decode import decode, quiet
from tlopt.data.sources.entry import EXTENSIONS, is_image, left_out
from tlopt.data.threads import each
from tlopt.data.views import eval_views
from tlopt.errors import DataError
from tlopt.exports.read import Export, load_module
from tlopt.training.inference import logits_of
from tlopt.training.metrics import log_probabilities


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for one file; label "" and no probabilities if it cannot be decoded."""

    path: Path
    label: str
    probability: float  # of `label`, in [0, 1]; 0 without a label
    probabilities: tuple[float, ...]  # in the order of the export's classes
    error: str = ""  # why there is no label


_logger = logging.getLogger(__name__)

_Decoded = tuple[Path, NDArray[np.uint8] | str]  # pixels (S, S, 3), or an error


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Files to classify."""

    files: tuple[Path, ...]
    notices: tuple[str, ...]  # one for each folder with other files, which are left out


def find_images(paths: Sequence[Path]) -> ImageFiles:
    """The files in `paths`, each once; a folder stands for the image files in it, sorted.

    In folders, hidden files and files without the extension of an image are left out. Broken links are
    included; their prediction has an error.

    Raises:
        DataError: a path does not exist, or there are no images.
    """
    found: dict[Path, None] = {}
    notices = []
    for path in paths:
        if not os.path.lexists(path):
            raise DataError(f"{path}: there is no such file or folder")
        if not os.path.isdir(path):
            found[path] = None
            continue
        files = _files_in(path)
        found |= dict.fromkeys(file for file in files if is_image(file))
        if others := [file for file in files if not is_image(file)]:
            notices.append(f"{path}: {left_out(path, others)}")
    if not found:
        raise DataError(
            f"no images in {', '.join(map(str, paths)) or 'an empty list'}; in folders, only files with"
            f" these extensions are used: {', '.join(sorted(EXTENSIONS))}"
        )
    return ImageFiles(files=tuple(found), notices=tuple(notices))


def predict(
    export: Export,
    images: Sequence[Path],
    device: torch.device,
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> Iterator[Prediction]:
    """Predictions for the files of `find_images(images)`, in their order, yielded batch by batch.

    Files that are left out are logged as a warning.

    Args:
        batch_size: files per forward pass; affects only the last digits.
        progress: whether to show a progress bar on stderr.

    Raises:
        DataError: as `find_images`, at once; files that cannot be decoded raise nothing.
        WeightsError: as `load_module`, at once.
    """
    found = find_images(images)
    for notice in found.notices:
        _logger.warning("%s", notice)
    return _stream(export, load_module(export, device), found.files, device, batch_size, progress)


def write_predictions_csv(
    predictions: Iterable[Prediction], file: TextIO, class_names: Sequence[str]
) -> tuple[int, int]:
    """Write each prediction to `file` as it arrives; return the numbers with and without a label.

    Columns: path, label, probability, p:CLASS for every class, error.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", "label", "probability", *(f"p:{name}" for name in class_names), "error"])
    n_labelled = n_unreadable = 0
    for row in predictions:
        numbers = [f"{p:.6g}" for p in (row.probability, *row.probabilities)]
        if row.error:
            n_unreadable += 1
            numbers = [""] * (1 + len(class_names))
        else:
            n_labelled += 1
        writer.writerow([_text(row.path), row.label, *numbers, row.error])
    return n_labelled, n_unreadable


def _stream(
    export: Export,
    net: nn.Module,
    files: Sequence[Path],
    device: torch.device,
    batch_size: int,
    progress: bool,
) -> Iterator[Prediction]:
    decoded = each(partial(_decode, export), files, label="classifying", progress=progress)
    while True:
        with quiet():
            rows = _classified(export, net, list(islice(decoded, batch_size)), device)
        if not rows:
            return
        yield from rows


def _decode(export: Export, path: Path) -> _Decoded:
    try:
        return path, decode(path, size=export.store_size, reading=export.reading)
    except DataError as error:
        return path, str(error)


@torch.inference_mode()
def _classified(
    export: Export, net: nn.Module, batch: Sequence[_Decoded], device: torch.device
) -> list[Prediction]:
    pixels = [image for _, image in batch if not isinstance(image, str)]
    probabilities: Iterator[NDArray[np.float64]] = iter(())
    if pixels:
        views = eval_views(
            torch.from_numpy(np.stack(pixels)).to(device),
            resolution=export.resolution,
            mean=export.mean,
            std=export.std,
        )
        probabilities = iter(np.exp(log_probabilities(logits_of(net, views))))
    return [
        Prediction(path=path, label="", probability=0.0, probabilities=(), error=image)
        if isinstance(image, str)
        else _prediction(path, next(probabilities), export.class_names)
        for path, image in batch
    ]


def _prediction(path: Path, probabilities: NDArray[np.float64], class_names: Sequence[str]) -> Prediction:
    best = int(probabilities.argmax())
    return Prediction(
        path=path,
        label=class_names[best],
        probability=float(probabilities[best]),
        probabilities=tuple(probabilities.tolist()),
    )


def _files_in(folder: Path) -> list[Path]:
    """All files under `folder` that are not hidden, sorted."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not os.path.isdir(path)
    ]


def _text(path: Path) -> str:
    # File names may be invalid UTF-8; the CSV file must not be.
    return os.fsencode(path).decode(errors="backslashreplace")
