"""Writing exports: folders that tlopt and plain torch can use, complete or absent."""

import csv
import io
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from tlopt.analysis.mistakes import mistakes
from tlopt.compact.cost import InferenceCost
from tlopt.confirmation.combined import Combined
from tlopt.confirmation.predictions import Predictions
from tlopt.confirmation.verdict_json import as_dict
from tlopt.data import rgb
from tlopt.data.decode import Reading
from tlopt.data.pixels import eval_size
from tlopt.errors import DataError, NotReady
from tlopt.exports.card import MISTAKES, ExportContents, model_card
from tlopt.exports.onnx import ONNX
from tlopt.exports.read import (
    CLASSES,
    CONFIG,
    DECODING,
    PREPROCESSING,
    PROGRAM,
    WEIGHTS,
    Export,
    inference_cost,
    load_module,
    preprocessing_json,
)
from tlopt.exports.result import FORMAT, FORMAT_ENSEMBLE, FORMAT_WITH_BITS, RESULT
from tlopt.plots.confusion import draw_confusion
from tlopt.plots.training import draw_learning_curves
from tlopt.search.fixed_study import fixed_study, name_of_point
from tlopt.spec import SEMANTICS_VERSION
from tlopt.spec.objectives import measured
from tlopt.spec.point import Point
from tlopt.system.atomic import replacing_folder, write_atomically

CARD, STUDY, CURVES, CONFUSION = "README.md", "study.toml", "learning_curves.png", "confusion.png"
_EXPORT_FILES = frozenset(
    (
        CONFIG,
        WEIGHTS,
        CLASSES,
        PREPROCESSING,
        RESULT,
        DECODING,
        CARD,
        STUDY,
        CURVES,
        CONFUSION,
        ONNX,
        MISTAKES,
        PROGRAM,
    )
)


def write_export(folder: Path, contents: ExportContents, *, weights_file: Path, overwrite: bool) -> Path:
    """Write the export of the chosen point to `folder`, which appears when complete; return its path.

    Args:
        weights_file: the trained tensors, under the library's names.
        overwrite: whether to replace an existing export; nothing else is ever replaced.

    Raises:
        NotReady: `weights_file` does not exist.
        DataError: `folder` must not be replaced or cannot be written, or a class name has a line break.
    """
    if not weights_file.is_file():
        raise NotReady(f"{weights_file}: the trained weights are missing; run first: tlopt confirm")
    _check_classes(contents.images.class_names)
    folder = folder.absolute()
    check_target(folder, overwrite=overwrite)
    try:
        with replacing_folder(folder) as part:
            _fill(part, contents, weights_file)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raise if no export may be written to `folder`.

    Raises:
        DataError: something else is there, or the folder cannot be created; says what to do.
    """
    if not folder.exists():
        above = next(each for each in folder.absolute().parents if each.exists())
        if not above.is_dir():
            raise DataError(f"{folder} cannot be written: {above} is not a folder")
        return
    others = (
        sorted(entry.name for entry in folder.iterdir() if entry.name not in _EXPORT_FILES)
        if folder.is_dir()
        else []
    )
    if not folder.is_dir() or others:
        what = f"it contains {', '.join(others[:3])}" if others else "it is a file"
        raise DataError(
            f"{folder} exists and is not an export ({what}): choose another folder or move it away"
        )
    if any(folder.iterdir()) and not overwrite:
        raise DataError(
            f"{folder} already contains an export: choose another folder or replace it with --overwrite"
        )


def _fill(folder: Path, contents: ExportContents, weights_file: Path) -> None:
    export = _describe(folder, contents)
    study, chosen, trained = contents.study, contents.verdict.chosen, contents.trained
    name = name_of_point(study, chosen.label)
    write_atomically(folder / WEIGHTS, save(load_file(weights_file)))  # without metadata, which are the run's
    write_atomically(folder / CONFIG, fixed_study(study, chosen.point, name=name, exported=True))
    write_atomically(folder / STUDY, contents.study_text)
    write_atomically(folder / CLASSES, "\n".join(export.class_names) + "\n")
    shutil.copyfile(rgb.__file__, folder / DECODING)
    write_atomically(folder / PREPROCESSING, _json(preprocessing_json(export)))
    if export.has_program:
        write_program(load_module(export, torch.device("cpu")), export.resolution, folder / PROGRAM)
    cost = inference_cost(export)
    write_atomically(folder / RESULT, _json(measured(_result(contents, cost))))
    write_atomically(folder / CARD, model_card(contents, export, cost))
    if contents.predictions is not None:
        write_atomically(folder / MISTAKES, _mistakes_csv(contents.predictions))
    if trained.has_curves:
        draw_learning_curves(
            folder / CURVES,
            train_loss=trained.train_loss,
            val=dict(trained.val),
            title=f"{study.name}, {chosen.label}",
        )
    if trained.confusion is not None:
        draw_confusion(
            folder / CONFUSION,
            counts=trained.confusion,
            class_names=export.class_names,
            title=f"{study.name}, {chosen.label}, validation images",
        )


def write_program(net: torch.nn.Module, resolution: int, file: Path) -> None:
    """Write `net` as a program of `torch.export`, which needs torch alone and takes any number of images."""
    # torch would treat a batch size of 1 as a constant.
    example = torch.zeros(2, 3, resolution, resolution)
    program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, file)


def _mistakes_csv(predictions: Predictions) -> str:
    """CSV with a row for each wrongly predicted image, most confident first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "class", "predicted", "probability", "class probability"])
    for row in mistakes(predictions, len(predictions.labels)):
        # File names may be invalid UTF-8; the CSV file must not be.
        name = os.fsencode(row.file).decode(errors="backslashreplace")
        numbers = (f"{p:.6g}" for p in (row.probability, row.true_probability))
        writer.writerow([name, row.true, row.predicted, *numbers])
    return text.getvalue()


def _describe(folder: Path, contents: ExportContents) -> Export:
    point = contents.verdict.chosen.point
    return Export(
        folder=folder,
        point=point,
        class_names=contents.images.class_names,
        reading=Reading.of(contents.study.data),
        store_size=eval_size(point.resolution),
        resolution=point.resolution,
        mean=contents.pretrained.mean,
        std=contents.pretrained.std,
        weights_label=contents.pretrained.label,
        weights_digest=contents.pretrained.digest,
        digest=contents.study.digest,
        members=_members(contents.combined),
    )


def _members(combined: Combined | None) -> tuple[Point, ...]:
    """The points of an ensemble's networks; none for a single network, such as a soup."""
    if combined is None or combined.kind == "soup":
        return ()
    return tuple(member.point for member in combined.members)


def _format(contents: ExportContents) -> int:
    if _members(contents.combined):
        return FORMAT_ENSEMBLE
    return FORMAT_WITH_BITS if contents.study.data.bits else FORMAT


def _result(contents: ExportContents, cost: InferenceCost) -> dict[str, Any]:
    """The content of result.json."""
    study, images, spend = contents.study, contents.images, contents.spend
    chosen = contents.verdict.chosen
    return {
        "format": _format(contents),
        "created": contents.created.isoformat(),
        "study": {
            "name": study.name,
            "digest": study.digest,
            "semantics": SEMANTICS_VERSION,
            "seed": study.seed,
        },
        "trial": chosen.number,
        "label": chosen.label,
        "point": chosen.point.as_dict(),
        "network": {"seed": contents.trained.seed, "trained_on": contents.trained.images, **asdict(cost)},
        "confirm_seeds": list(chosen.seeds),
        "weights": {"label": contents.pretrained.label, "digest": contents.pretrained.digest},
        "data": {
            "fingerprint": images.fingerprint,
            "n_classes": len(images.class_names),
            "n_search": images.n_search,
            "n_test": images.n_test,
        },
        "verdict": as_dict(contents.verdict),
        **({} if contents.combined is None else {"combined": contents.combined.as_dict()}),
        "spend": {
            "trials": dict(spend.trials),
            **spend.search.as_dict(),
            "confirmation": spend.confirmation.as_dict(),
            "total": (spend.search + spend.confirmation).as_dict(),
        },
        "versions": dict(contents.versions),
    }


def _check_classes(class_names: tuple[str, ...]) -> None:
    for name in class_names:
        if "\n" in name or any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(f"the class {name!r} has a line break or invalid UTF-8; rename the class")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
