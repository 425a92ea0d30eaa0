"""The exported network's mistakes: rates by class, confused pairs, most confident mistakes, calibration."""

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlopt.analysis import mistakes as found
from tlopt.confirmation.predictions import Predictions
from tlopt.confirmation.verdict import SPLITS, SplitName
from tlopt.plots.colours import CELL_SHARE_MAX
from tlopt.plots.confused import CELL_TEXT_CLASSES_MAX, error_shares, short_names
from tlopt.reports import alt
from tlopt.reports import svg as plots
from tlopt.reports.data import Report
from tlopt.spec.objectives import percent_words
from tlopt.system.words import counted

CLASSES_MAX = 60  # rows of the table by class; those with the most mistakes are shown
PAIRS_MAX = 12
MISTAKES_MAX = 12
_NAME_CHARACTERS_MAX = 24


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One count of a confusion matrix; `shade` in [0, 1] is the intensity of its colour."""

    count: str
    shade: float
    right: bool  # on the diagonal


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A confusion matrix: true classes in rows, predicted ones in columns."""

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ListedMistake:
    """One mistake as listed on the page."""

    file: str
    caption: str
    picture: str  # data URI, or ""


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """The section on the network's mistakes."""

    opening: str
    matrix: Matrix | None
    matrix_note: str
    classes: tuple[tuple[str, ...], ...]
    classes_note: str
    pairs: tuple[tuple[str, ...], ...]
    pair_sizes: tuple[float, ...]  # number of images of each pair, for bars
    mistakes: tuple[ListedMistake, ...]
    mistakes_note: str
    figures: tuple[tuple[str, str], ...]  # SVG and caption
    calibration: str
    threshold: str


def missing_sentence(report: Report) -> str:
    """The reason why the section is missing, and the cure."""
    if report.confirmed is None:
        return "This is recorded once the confirmation is finished."
    return (
        "What each image was predicted as is not recorded on this machine: the study was confirmed elsewhere"
        " or by an earlier version. tlopt confirm records it for the validation images."
    )


def wrong(report: Report) -> Wrong | None:
    """The section: on test if predictions are recorded for it, else on validation, else None."""
    known = report.predictions
    rated = known.get("test") or known.get("val")
    if rated is None or not len(rated.labels):
        return None
    listed = known.get("val") or rated
    rates, curves = found.class_rates(rated), found.binary_curves(rated)
    n_wrong = int((rated.labels != rated.predicted).sum())
    return Wrong(
        opening=_opening(rated, n_wrong),
        matrix=_matrix(rated) if len(rates) <= CELL_TEXT_CLASSES_MAX else None,
        matrix_note=_matrix_note(len(rates)),
        classes=tuple(_class_rows(rates)),
        classes_note=_classes_note(len(rates)),
        pairs=tuple(_pair_rows(rated)),
        pair_sizes=tuple(float(pair.n) for pair in found.confused_pairs(rated, PAIRS_MAX)),
        mistakes=tuple(_listed(each) for each in found.mistakes(listed, MISTAKES_MAX)),
        mistakes_note=_mistakes_note(listed),
        figures=tuple(_figures(rated, curves)),
        calibration=_calibration(found.calibration(rated)),
        threshold=_threshold(known),
    )


def _words(split: str) -> str:
    return {"val": "validation", "test": "test"}[split]


def _opening(rated: Predictions, n_wrong: int) -> str:
    n, image = len(rated.labels), f"{_words(rated.split)} image"
    predicts = (
        f"{n_wrong:,} of {counted(n, image, form=',')} wrongly ({percent_words(n_wrong / n)})"
        if n_wrong
        else f"all {counted(n, image, form=',')} correctly"
    )
    return (
        f"The exported network predicts {predicts}. It is one of the confirmed runs, so its rates may"
        " differ a little from their mean."
    )


def _matrix(rated: Predictions) -> Matrix:
    counts = found.confusion(rated)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    errors = error_shares(counts)
    largest = float(errors.max()) or 1.0
    rows = tuple(
        tuple(
            Cell(
                count=f"{counts[r, c]:,}" if counts[r, c] else "",
                shade=float(CELL_SHARE_MAX * (shares[r, c] if r == c else errors[r, c] / largest)),
                right=r == c,
            )
            for c in range(len(counts))
        )
        for r in range(len(counts))
    )
    return Matrix(names=short_names(rated.class_names, _NAME_CHARACTERS_MAX), rows=rows)


def _matrix_note(n_classes: int) -> str:
    if n_classes > CELL_TEXT_CLASSES_MAX:
        return (
            f"{n_classes:,} classes are too many for a matrix with numbers: the most confused pairs follow."
        )
    return (
        "Images by true class (rows) and predicted class (columns). Mistakes have their own colour scale:"
        " the strongest colour is the largest share of a true class."
    )


def _class_rows(rates: tuple[found.ClassRates, ...]) -> Iterator[tuple[str, ...]]:
    shown = rates
    if len(rates) > CLASSES_MAX:
        shown = tuple(sorted(rates, key=lambda row: row.n_right - row.n)[:CLASSES_MAX])
    for row in shown:
        counts = (f"{row.n:,}", f"{row.n_right:,}", f"{row.n_predicted:,}")
        yield row.name, *counts, _rate(row.recall), _rate(row.precision)


def _rate(value: float | None) -> str:
    return "—" if value is None else percent_words(value)


def _classes_note(n_classes: int) -> str:
    definitions = (
        "Recall: the share of a class's images that are predicted as it. Precision: the share of the images"
        " predicted as a class that are of it."
    )
    if n_classes <= CLASSES_MAX:
        return definitions
    return f"The {CLASSES_MAX} of {n_classes:,} classes with the most mistakes. {definitions}"


def _pair_rows(rated: Predictions) -> Iterator[tuple[str, ...]]:
    for pair in found.confused_pairs(rated, PAIRS_MAX):
        yield pair.true, pair.predicted, f"{pair.n:,}", percent_words(pair.share)


def _listed(mistake: found.Mistake) -> ListedMistake:
    caption = f"{mistake.true}, predicted {mistake.predicted} at {percent_words(mistake.probability)}"
    return ListedMistake(
        # a file name may contain bytes that are not valid text, which a page cannot contain
        file=mistake.file.encode(errors="replace").decode(),
        caption=caption,
        picture="" if mistake.thumbnail is None else _data_uri(mistake.thumbnail),
    )


def _mistakes_note(listed: Predictions) -> str:
    if not (listed.labels != listed.predicted).any():
        return f"No {_words(listed.split)} image is predicted wrongly."
    if listed.split == "val":
        return (
            "Validation images that are predicted wrongly, surest first: wrong labels and images that show"
            " something else are often among them. Those of the test are listed by the export"
            " alone; whoever acts on them has used the test."
        )
    return "Test images that are predicted wrongly, surest first. Whoever acts on them has used the test."


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _calibration(at: found.Calibration) -> str:
    gap = at.confidence - at.accuracy
    which = "overconfident" if gap > 0 else "underconfident"
    return (
        f"On average the network gives its predicted class {percent_words(at.confidence)} and is right"
        f" {percent_words(at.accuracy)} of the time"
        + (f": it is {which}" if abs(gap) >= 0.02 else "")
        + f". Expected calibration error: {100 * at.ece:.1f} points over {found.BINS} bins; with few images"
        " chance alone makes some of it."
    )


def _threshold(known: Mapping[SplitName, Predictions]) -> str:
    chosen_on = known.get("val")
    curves = None if chosen_on is None else found.binary_curves(chosen_on)
    if chosen_on is None or curves is None:
        return ""
    at = found.best_threshold(curves)
    first, second = chosen_on.class_names
    text = f"Predicting {second} from a probability of {at:.3f} on gives the best mean recall on validation"
    for split in SPLITS:
        if split in known:
            low, high = found.recalls_at(known[split], at)
            rates = f"{percent_words(low)} of {first} and {percent_words(high)} of {second}"
            text += f"; on {_words(split)} it finds {rates}"
    return f"{text}. Where one mistake costs more than the other, choose another threshold from the curve."


def _figures(rated: Predictions, curves: found.BinaryCurves | None) -> Iterator[tuple[str, str]]:
    at, where = found.calibration(rated), _words(rated.split)
    bins = [each for each in at.bins if each.n]
    yield (
        plots.reliability_svg(
            np.array([each.confidence for each in bins]),
            np.array([each.accuracy for each in bins]),
            alt=alt.reliability_text(at, images=counted(len(rated.labels), f"{where} image", form=",")),
        ),
        f"Reliability on {counted(len(rated.labels), f'{where} image', form=',')}: above the dotted line the"
        " network is right more often than it says, below it less often.",
    )
    if curves is None:
        return
    yield (
        plots.rates_svg(
            curves.false_positive,
            curves.true_positive,
            labels=("false positive rate", "true positive rate"),
            alt=alt.roc_text(curves, where=where),
        ),
        f"ROC of {curves.positive} on {where}: area {curves.auc:.3f} under the curve; dotted: chance.",
    )
    yield (
        plots.rates_svg(
            curves.true_positive[1:],
            curves.precision,
            labels=("recall", "precision"),
            alt=alt.precision_text(curves, where=where),
            diagonal=False,
        ),
        f"Precision over recall of {curves.positive} on {where}: average precision"
        f" {curves.average_precision:.3f}.",
    )
