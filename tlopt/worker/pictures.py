"""Pictures of a trial for the dashboard: learning curves, confusion matrix, most confident mistakes.

A picture that cannot be drawn is left out with a note; it never fails the trial.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from tlopt.errors import StorageError
from tlopt.spec.objectives import is_better, percent_words
from tlopt.storage import leases
from tlopt.storage.leases import LeaseLost
from tlopt.storage.rdb import ServiceStorage
from tlopt.worker.claim import HeldTrial, StudyWork
from tlopt.worker.trial_log import TrialLog

if TYPE_CHECKING:
    from tlopt.trial.execution import Mistakes
    from tlopt.worker.objective import TrialResult

_logger = logging.getLogger(__name__)


def wants_pictures(value: float, label: str, work: StudyWork, storage: ServiceStorage) -> bool:
    """Return whether to draw pictures of a complete trial: if it has a label or the best value so far."""
    if label:
        return True
    best = storage.query(
        lambda executor: leases.best_value(executor, work.study_id, work.optuna_study.directions[0])
    )
    if best is None:
        return True
    return is_better(value, best, work.workspace.study.direction)


def add_pictures(held: HeldTrial, result: "TrialResult", log: TrialLog, notes: list[str]) -> None:
    """Draw a trial's pictures and attach them; note those that cannot be drawn in its notes and log.

    Raises:
        LeaseLost, StorageError: raised by the database, as for any write to the trial.
    """
    trial, work, label = held.trial, held.work, held.spec.label if held.spec else ""
    folder = work.folders.pictures / f"{trial.number:04d}"
    title = f"{held.study_name} #{trial.number}" + (f": {label}" if label else "")
    for name, draw in _pictures(result, work.workspace.data.class_names, title):
        file = folder / f"{name}.png"
        try:
            _attach(draw(file), held)
        except (LeaseLost, StorageError):
            raise
        except Exception as error:
            file.unlink(missing_ok=True)  # may be incomplete
            text = f"no picture {file.name}: {_cause(error)}"
            notes.append(text)
            log.note(text)
            if not isinstance(error, OSError):  # for a full disk the note is enough
                _logger.exception("trial %d: %s", trial.number, text)


def _cause(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def _pictures(
    result: "TrialResult", class_names: tuple[str, ...], title: str
) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Name and drawing function of each picture."""
    # matplotlib is slow to import
    from tlopt.plots.confusion import draw_confusion
    from tlopt.plots.training import draw_learning_curves, draw_mistakes

    rows = [epoch.val.as_dict() for epoch in result.epochs if epoch.val is not None]
    yield (
        "learning_curves",
        lambda file: draw_learning_curves(
            file,
            train_loss=[epoch.train_loss for epoch in result.epochs],
            val={name: [row[name] for row in rows] for name in rows[0]},
            title=title,
        ),
    )
    confusion = result.epochs[-1].confusion
    assert confusion is not None, "a trial always has validation images"
    yield (
        "confusion",
        lambda file: draw_confusion(
            file, counts=confusion, class_names=class_names, title=f"{title}, validation"
        ),
    )
    mistakes = result.mistakes
    if mistakes is not None and len(mistakes.labels):
        yield (
            "mistakes",
            lambda file: draw_mistakes(
                file,
                pictures=mistakes.pictures,
                captions=_captions(mistakes, class_names),
                title=f"{title}, surest mistakes on validation\ntrue class, below it the predicted one",
            ),
        )


def _captions(mistakes: "Mistakes", class_names: tuple[str, ...]) -> list[str]:
    return [
        f"{class_names[label]}\n{percent_words(probability)} {class_names[predicted]}"
        for label, predicted, probability in zip(
            mistakes.labels, mistakes.predicted, mistakes.probability, strict=True
        )
    ]


def _attach(file: Path, held: HeldTrial) -> None:
    folder = held.work.folders.artifacts
    folder.mkdir(parents=True, exist_ok=True)
    store = optuna.artifacts.FileSystemArtifactStore(folder)
    optuna.artifacts.upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=held.trial)
