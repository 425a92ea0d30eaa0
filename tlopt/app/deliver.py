"""Configs, reports, exports and predictions for users."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tlopt import spec
from tlopt.analysis.ranking import Best, ranking
from tlopt.analysis.snapshot import take_snapshot
from tlopt.app.handle import Session, errors_of
from tlopt.app.workflow import study_threads
from tlopt.confirmation import candidates as confirmation
from tlopt.confirmation.verdict import SPLITS, Confirmed, SplitName, Verdict
from tlopt.errors import DataError, NotReady, SpecError, StudyChanged
from tlopt.exports.listed import ExportKind, remember_export
from tlopt.exports.result import RESULT, read_exported_verdict, read_result
from tlopt.search.enough import n_planned
from tlopt.search.fixed_study import only_point
from tlopt.spec.point import Point
from tlopt.spec.text import read_text
from tlopt.storage import attributes
from tlopt.storage.studies import stored_spec
from tlopt.system.atomic import write_atomically

if TYPE_CHECKING:
    import optuna

    from tlopt.confirmation.predictions import Predictions
    from tlopt.exports.card import ExportContents
    from tlopt.exports.model import Classifier
    from tlopt.exports.predict import Prediction
    from tlopt.reports.data import Report
    from tlopt.reports.figures import ReportFigure
    from tlopt.training.loop import Epoch
    from tlopt.trial.workspace import Workspace

CONFIG = "config.toml"
_HEAD_BYTES = 4096  # at the start of a report, which contain its title
_logger = logging.getLogger(__name__)


def best_points(session: Session) -> list[Best]:
    """The points of complete trials, best first; those of a finished confirmation come first."""
    verdict = session.verdict()
    return ranking(
        session.study,
        attributes.records_of(session.optuna_study()),
        verdict if verdict is not None and verdict.finished else None,
    )


def report_html(session: Session) -> str:
    """The HTML of a report on the current state of the study.

    Raises:
        NotReady: the study has not been started.
    """
    # slow imports that only this command needs
    from tlopt.reports.html import page

    return page(_report(session))


def figures(session: Session) -> dict[str, list["ReportFigure"]]:
    """The figures of the report as objects, by section.

    Raises:
        NotReady: the study has not been started.
    """
    from tlopt.reports.figures import sections

    return sections(_report(session))


def _report(session: Session) -> "Report":
    from tlopt.reports.data import collect_report

    opened = session.optuna_study()
    study = stored_spec(opened)
    pruned = confirmed = verdict = None
    with suppress(NotReady, StudyChanged):
        pruned = session.prunings()
    snapshot = take_snapshot(study, session.store, prunings=pruned)
    with suppress(NotReady, StudyChanged):
        confirmed = session.confirmation()
        verdict = session.verdict()
    known = {} if verdict is None else _predictions(session, opened, verdict)
    return collect_report(snapshot, opened, confirmed, verdict, created=datetime.now(UTC), predictions=known)


def _predictions(
    session: Session, opened: "optuna.Study", verdict: Verdict
) -> dict[SplitName, "Predictions"]:
    """The recorded predictions of the exported network, as far as this machine has them."""
    from tlopt.confirmation.predictions import Source, read_known

    chosen = verdict.chosen
    if not verdict.finished or not chosen.val:
        return {}
    replicate = verdict.exported_replicate
    fingerprints = {
        name: str(opened.user_attrs.get(attributes.fingerprint_key(name), ""))
        for name in attributes.FINGERPRINTS
    }
    source = Source.of(chosen.point, chosen.seeds[replicate], fingerprints)
    found: dict[SplitName, Predictions] = {}
    for split in SPLITS:
        try:
            known = read_known(session.weights_file(chosen.number, replicate), split, source)
        except DataError as error:
            _logger.warning("%s", error)
            continue
        if known is not None:
            found[split] = known
    return found


def write_report(session: Session, file: Path | None, *, overwrite: bool) -> Path:
    """Write a report to `file`, by default beside the export of `run`; returns the file.

    An earlier report of tlopt is replaced.

    Raises:
        NotReady: the study has not been started.
        SpecError: another file exists there and `overwrite` is not set, or the folder does not exist.
    """
    to = file or report_beside(default_folder(session))
    _check_report(to, overwrite=overwrite)
    if file is not None and not to.absolute().parent.is_dir():
        raise SpecError(f"{to}: the folder {to.parent} does not exist; create it first")
    text = report_html(session)
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(to, text)
    return to


def _check_report(file: Path, *, overwrite: bool) -> None:
    if file.exists() and not overwrite and not is_report(file):
        raise SpecError(
            f"{file} exists and is not a report of tlopt: move it away, or replace it with"
            " tlopt report --overwrite"
        )


def default_folder(session: Session) -> Path:
    """The default folder of the study's export: exports/NAME."""
    return Path("exports") / session.study.name


def report_beside(folder: Path) -> Path:
    """The file of the report that belongs to the export in `folder`.

    A report NAME.html in the working directory, where earlier versions wrote it, is replaced there.
    """
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(folder))
    beside, former = folder.with_name(f"{folder.name}.html"), Path(f"{folder.name}.html")
    return former if is_report(former) and not beside.exists() else beside


def check_targets(folder: Path, *, overwrite: bool, with_report: bool = False) -> None:
    """Raise if an export, or its report, may not be written to `folder`; called before training.

    Raises:
        DataError, SpecError: something exists there that may not be replaced.
    """
    from tlopt.exports.write import check_target

    check_target(folder, overwrite=overwrite)
    if with_report:
        _check_report(report_beside(folder), overwrite=False)


def is_report(file: Path) -> bool:
    """Whether `file` is a report that tlopt wrote, of this or an earlier version."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return b": tlopt report</title>" in opened.read(_HEAD_BYTES)


def known_verdict(session: Session, folder: Path) -> Verdict | None:
    """The verdict of a study with nothing left to do, whose export is in `folder`; None otherwise.

    Read from the database and result.json alone, so that a finished study answers immediately. A damaged
    result.json counts as no export: it is written again, with a warning.
    """
    verdict = session.verdict()
    if verdict is None or not (folder / RESULT).is_file():
        return None
    try:
        stored = read_result(folder)
    except DataError as error:
        _logger.warning("%s", str(error).replace("export again", "it is exported again"))
        return None
    digest, point = stored["study"].get("digest"), stored["point"]
    same = digest == session.study.digest and point == verdict.chosen.point.as_dict()
    # a smaller or a combined network does not stand for the chosen one
    same = same and not {"pruned", "combined"} & set(stored)
    read = stored["data"].get("n_test") == 0 or not confirmation.wants_test(verdict)
    trials = attributes.records_of(session.optuna_study())
    spent = sum(trial.counts for trial in trials) >= n_planned(session.study, trials)
    return verdict if spent and same and verdict.finished and read else None


def export(
    session: Session,
    workspace: "Workspace",
    verdict: Verdict,
    folder: Path,
    *,
    overwrite: bool,
    onnx: bool,
    kind: ExportKind = "chosen",
) -> Path:
    """Write the chosen point's export to `folder`; returns the folder.

    Args:
        kind: as which the study lists it.

    Raises:
        DataError: something exists there that may not be replaced.
        MissingExtra: ONNX is requested and not installed.
    """
    from tlopt.exports.onnx import write_onnx
    from tlopt.exports.read import read_export

    write_chosen(session, workspace, verdict, folder, overwrite=overwrite)
    if onnx:
        write_onnx(read_export(folder), folder)
    remember_export(session.optuna_study(), folder, verdict.chosen.label, kind)
    return folder


def write_chosen(
    session: Session, workspace: "Workspace", verdict: Verdict, folder: Path, *, overwrite: bool
) -> None:
    """Write the chosen point's export to `folder`, which the study does not list.

    Raises:
        DataError: something exists there that may not be replaced.
    """
    from tlopt.exports.contents import choose_network, collect_contents
    from tlopt.exports.write import check_target, write_export
    from tlopt.training.devices import choose_device

    check_target(folder, overwrite=overwrite)
    workspace = workspace.on_device(choose_device())
    trials = attributes.records_of(session.optuna_study())
    with study_threads(session):
        chosen = choose_network(workspace, verdict, session.weights_file)
    snapshot = session.snapshot()
    contents = collect_contents(
        workspace,
        session.file_text,
        verdict,
        trials,
        chosen.trained,
        runs=snapshot.runs,
        predictions=chosen.predictions,
    )
    write_export(folder, contents, weights_file=chosen.weights_file, overwrite=overwrite)


def export_front(
    session: Session, workspace: "Workspace", verdict: Verdict, folder: Path, *, overwrite: bool, onnx: bool
) -> list[Path]:
    """Write an export of each confirmed point of the front to its own folder in `folder`; returns them.

    Raises:
        NotReady: no point of the confirmation has a value.
        DataError: as `export`, or `folder` is an export itself, which could not be replaced any more.
        MissingExtra: as `export`.
    """
    if (folder / RESULT).exists():
        raise DataError(f"{folder} is itself an export: choose another folder for those of the front")
    if not verdict.front:
        raise NotReady(f"{verdict.study}: no point of its confirmation has a value, so there is no front")
    folders = front_folders(verdict, folder)
    for to in folders:
        check_targets(to, overwrite=overwrite)
    return [
        export(session, workspace, verdict.of(row), to, overwrite=overwrite, onnx=onnx, kind="front")
        for row, to in zip(verdict.front, folders, strict=True)
    ]


def front_folder(session: Session) -> Path:
    """The default folder of the exports of a front: exports/NAME-front, beside that of the chosen point."""
    folder = default_folder(session)
    return folder.with_name(f"{folder.name}-front")


def front_folders(verdict: Verdict, folder: Path) -> list[Path]:
    """The folders of the exports of a front, such as exports/NAME-front/trial-12."""
    return [folder / row.label.replace("/", "-").replace(" ", "-") for row in verdict.front]


def check_onnx(workspace: "Workspace") -> None:
    """Raise if a backbone of the study cannot be written as an ONNX file; called before training.

    Raises:
        MissingExtra: the packages are not installed.
        SpecError: a network cannot be converted; says why.
    """
    from tlopt.exports import onnx

    for weights in workspace.weights.values():
        onnx.check_convertible(weights, weights.resolution)


def train(
    config: Path, folder: Path, *, device: str = "auto", overwrite: bool = False, onnx: bool = False
) -> Iterator["Epoch"]:
    """Train an exported config on training and validation images and export it; yields each epoch.

    Args:
        config: an export's config.toml or its folder, or a study file without searched keys.
        folder: folder of the export, which is written after the last epoch.

    Raises:
        SpecError: a key is searched.
        DataError: `folder` exists and may not be replaced.
    """
    from tlopt.confirmation.held_out import train_on_all
    from tlopt.exports.contents import collect_contents, trained_of
    from tlopt.exports.onnx import write_onnx
    from tlopt.exports.read import read_export
    from tlopt.exports.write import check_target
    from tlopt.training.devices import choose_device
    from tlopt.trial.history import History
    from tlopt.trial.workspace import Workspace

    file = config / CONFIG if config.is_dir() else config
    check_target(folder, overwrite=overwrite)
    study = spec.load(file)
    with errors_of(str(file)):
        workspace = Workspace.open(study, choose_device(device), progress=True)
        if onnx:
            check_onnx(workspace)
        point = only_point(study, workspace.facts)
    run, training = train_on_all(workspace, point)
    epochs = []
    for epoch in training:
        epochs.append(epoch)
        yield epoch
    trained = trained_of(History.of(epochs), run.seed, "training and validation images")
    verdict = _verdict_beside(file, point, study, workspace.data.fingerprint)
    contents = collect_contents(workspace, read_text(file), verdict, (), trained)
    write_with(folder, contents, partial(workspace.save_weights, run), overwrite=overwrite)
    if onnx:
        write_onnx(read_export(folder), folder)


def write_with(
    folder: Path, contents: "ExportContents", save: Callable[[Path], None], *, overwrite: bool
) -> None:
    """Write an export whose tensors `save` writes to the file that it is given."""
    from tlopt.exports.write import write_export

    folder = Path(os.path.abspath(folder))
    weights_file = folder.with_name(f".{folder.name}.safetensors")
    try:
        save(weights_file)
        write_export(folder, contents, weights_file=weights_file, overwrite=overwrite)
    finally:
        weights_file.unlink(missing_ok=True)


def load_model(folder: Path, *, device: str = "auto") -> "Classifier":
    """The network of the export in `folder` as a `torch.nn.Module` in eval mode.

    Raises:
        NotReady: `folder` is not an export.
        DataError, WeightsError: a file in it is damaged.
    """
    from tlopt.exports.model import load_classifier
    from tlopt.training.devices import choose_device

    return load_classifier(folder, choose_device(device))


def predict_csv(
    folder: Path, images: Sequence[Path], output: Path | None, *, device: str = "auto"
) -> tuple[int, int]:
    """Write a CSV row for every image file to `output` or standard output.

    Returns the numbers of files that could be read and that could not.

    Raises:
        NotReady: `folder` is not an export.
        DataError: there is no image, or `output` cannot be written.
    """
    from tlopt.exports.predict import write_predictions_csv
    from tlopt.exports.read import read_export

    class_names = read_export(folder).class_names
    predictions = predict(folder, images, device=device, progress=True)
    if output is None:
        return write_predictions_csv(predictions, sys.stdout, class_names)
    try:
        file = output.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}") from error
    with file:
        return write_predictions_csv(predictions, file, class_names)


def predict(
    folder: Path, images: Sequence[Path], *, device: str = "auto", progress: bool = False
) -> Iterator["Prediction"]:
    """The predictions of the export in `folder` for image files, in their order."""
    from tlopt.exports import predict as predictions
    from tlopt.exports.read import read_export
    from tlopt.training.devices import choose_device

    return predictions.predict(read_export(folder), images, choose_device(device), progress=progress)


def _verdict_beside(config: Path, point: Point, study: spec.Study, fingerprint: str) -> Verdict:
    """The verdict of the export that contains `config`, if on the same images; otherwise an empty one."""
    if config.with_name(RESULT).is_file():
        try:
            verdict, stored = read_exported_verdict(config.parent), read_result(config.parent)
        except DataError as error:
            _logger.warning("%s", str(error).replace("export again", "its numbers are left out"))
        else:
            if verdict.chosen.point == point and stored["data"].get("fingerprint") == fingerprint:
                return verdict
    row = Confirmed(number=0, label="config", point=point, seeds=(), val=(), test=())
    return Verdict(
        study=study.name,
        objective=study.objective,
        direction=study.direction,
        rows=(row,),
        n_expected=0,
        n_finished=0,
        test_readings=0,
    )
