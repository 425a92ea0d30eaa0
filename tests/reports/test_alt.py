"""The alternative text of a figure states its finding, from the numbers drawn."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finished import COST, make_contents, planted
from predicted import make_predictions
from reported import report, text, trial

from tlopt.analysis.mistakes import binary_curves, calibration
from tlopt.dashboard import note
from tlopt.exports.card import ExportContents, model_card
from tlopt.exports.write import _describe
from tlopt.plots.series import Array
from tlopt.reports import alt
from tlopt.reports.html import page


def array(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def test_progress_says_where_the_best_was_reached() -> None:
    best = array(np.nan, 0.7, 0.7, 0.91, 0.91)

    said = alt.progress_text(array(1, 2, 3, 4, 5), best, label="finished trials", objective="accuracy")

    assert said == "Best validation accuracy so far: 70.0 % at first, 91.0 % from 4 of 5 finished trials on."


def test_progress_without_progress_says_so() -> None:
    said = alt.progress_text(array(0.5, 2.5), array(0.25, 0.25), label="hours of work", objective="log_loss")

    assert said == (
        "Best validation log-loss so far: 0.2500 from the first complete trial to the end, at 2.5 hours"
        " of work."
    )


def test_the_best_place_of_a_key_is_named_with_the_range_that_was_searched() -> None:
    said = alt.dependence_text(
        array(12, 3, 17), array(0.91, 0.5, 0.75), key="transfer_depth", off=False, objective="accuracy"
    )

    assert said == (
        "Validation accuracy reaches 91.0 % at transfer_depth 12, among 3 complete trials from 3 to 17."
    )


def test_the_median_is_read_at_its_ends_and_zero_is_off() -> None:
    x = np.repeat(array(0, 0.001, 0.1), 10)
    values = np.repeat(array(0.95, 0.6, 0.8), 10)

    said = alt.dependence_text(x, values, key="l2_sp", off=True, objective="accuracy")

    assert "95.0 % at l2_sp off, among 30 complete trials from off to 0.1." in said
    assert said.endswith("The running median is best at 0.1, 80.0 %, and worst at 0.001, 60.0 %.")


def test_less_is_better_of_a_log_loss() -> None:
    x, values = np.repeat(array(1, 2), 10), np.repeat(array(0.5, 1.25), 10)

    said = alt.dependence_text(x, values, key="freeze_depth", off=False, objective="log_loss")

    assert "reaches 0.5000 at freeze_depth 1" in said
    assert said.endswith("best at 1, 0.5000, and worst at 2, 1.250.")


def test_a_flat_median_is_called_flat() -> None:
    x, values = np.repeat(array(1, 2), 10), np.full(20, 0.5)

    said = alt.dependence_text(x, values, key="lr", off=False, objective="accuracy")

    assert said.endswith("The running median is 50.0 % all along.")


def test_curves_say_from_where_to_where() -> None:
    best = [np.array([(1, 0.5), (2, 0.9)]), np.array([(1, 0.4), (2, 0.8)])]
    pruned = [np.array([(1, 0.1)]), np.array([(1, 0.3)])]

    said = alt.curves_text(best, pruned, number=7, objective="accuracy")

    assert said == (
        "Validation accuracy: trial 7, the best, is at 50.0 % after epoch 1 and at 90.0 % after epoch 2;"
        " the next best (1) end at 80.0 %; pruned ones (2) end at 10.0 % to 30.0 %."
    )


ROWS = [(0, 0, 0.9), (0, 1, 0.6), (1, 1, 0.8), (1, 1, 0.7)]
TWO = make_predictions(ROWS, class_names=("daisy", "rose"))


def test_reliability_says_how_far_it_can_be_trusted() -> None:
    said = alt.reliability_text(calibration(TWO), images="4 test images")

    assert "on 4 test images: the mean probability of the predicted class is 75.0 %, and 75.0 %" in said


def test_the_curves_of_two_classes_have_their_areas_and_a_point() -> None:
    curves = binary_curves(TWO)
    assert curves is not None

    assert alt.roc_text(curves, where="test") == (
        "ROC of rose on test: area 1.000; at 10.0 % false positives 100.0 % true positives."
    )
    assert alt.precision_text(curves, where="test") == (
        "Precision over recall of rose on test: average precision 1.000; where 90.0 % are found, 100.0 % of"
        " those predicted are right."
    )


@pytest.mark.parametrize("objective", ["accuracy", "log_loss"])
def test_every_figure_of_a_report_states_a_value(objective: str) -> None:
    trials = [
        trial(0.5 + i / 100, curve=(0.4, 0.5 + i / 100), minute=i, lr=0.01 * (i + 1), transfer_depth=i % 9)
        for i in range(15)
    ]

    html = page(report(trials, file_text=text(objective=objective)))

    alts = re.findall(r'<svg [^>]*aria-label="([^"]*)"', html)
    assert len(alts) == html.count("<svg ") >= 5
    value = r"\d+\.\d %" if objective == "accuracy" else r"\d\.\d{4}"
    assert [said for said in alts if not re.search(value, said)] == []


def test_the_notes_picture_states_the_best_trial_and_its_place() -> None:
    made = report([trial(0.91, lr=0.01, transfer_depth=7), trial(0.5, lr=0.1, transfer_depth=3)])

    said = "\n".join(
        note.note_lines(made.study, made.snapshot.trials, images="", verdict=(), picture="/artifacts/0/1")
    )

    assert (
        r"![The best of 2 complete trials, trial 0, reaches 91.0 % at transfer\_depth 7, freeze\_depth 0,"
        r" l2\_sp 0, lr 0.01](/artifacts/0/1?trials=2)"
    ) in said


def test_the_cards_pictures_state_what_they_show() -> None:
    contents = make_contents(planted())

    card = card_of(contents)

    assert "![All 6 validation images are predicted correctly.](confusion.png)" in card
    assert (
        "![Over 2 epochs the training loss goes from 1.000 to 0.5000; validation accuracy ends at 90.0 %, its"
        " best is 90.0 % after epoch 2.](learning_curves.png)"
    ) in card


def test_the_cards_confusion_names_the_most_confused_pair() -> None:
    contents = make_contents(planted())
    counts = np.array([[8, 2, 0], [0, 9, 0], [0, 0, 1]])
    contents = replace(contents, trained=replace(contents.trained, confusion=counts))

    card = card_of(contents)

    assert r"![2 of 20 validation images are predicted wrongly (10.0 %), most often rose as tulip \|" in card
    assert "2, 20.0 % of the class.](confusion.png)" in card


def card_of(contents: ExportContents) -> str:
    return model_card(contents, _describe(Path("export"), contents), COST)
