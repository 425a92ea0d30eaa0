"""The report's section on mistakes names its split, or says why it is missing."""

from dataclasses import replace

from finished import planted
from predicted import make_predictions
from reported import report, trial
from test_report import Reader

from tlopt.confirmation.predictions import Predictions
from tlopt.reports.html import page

NAMES = ("daisy", "rose")
VAL = make_predictions([(0, 0, 0.9), (0, 1, 0.75), (1, 1, 0.8), (1, 1, 0.7)], class_names=NAMES)
TEST = make_predictions([(0, 0, 0.9), (1, 0, 0.95), (1, 1, 0.8)], class_names=NAMES, split="test")
TRIALS = [trial(0.5 + i / 100, minute=i, lr=0.01 * (i + 1)) for i in range(4)]


def said(**predictions: Predictions) -> str:
    made = replace(report(TRIALS, verdict=planted()), predictions=predictions)
    return Reader(page(made)).text


def test_rates_are_those_of_test_and_the_images_those_of_validation() -> None:
    text = said(val=VAL, test=TEST)

    assert "predicts 1 of 3 test images wrongly (33.3 %)" in text
    assert "rose 2 1 1 50.0 % 100.0 %" in text
    assert "rose daisy 1 50.0 %" in text
    assert "daisy, predicted rose at 75.0 % 1.png" in text
    assert "gives the best mean recall on validation" in text
    assert "Expected calibration error" in text


def test_validation_alone_is_named_as_such() -> None:
    assert "predicts 1 of 4 validation images wrongly (25.0 %)" in said(val=VAL)


def test_a_network_without_mistakes_has_the_section_too() -> None:
    perfect = make_predictions([(0, 0, 0.9), (1, 1, 0.8)], class_names=NAMES)

    text = said(val=perfect)

    assert "predicts all 2 validation images correctly." in text
    assert "No validation image is predicted wrongly." in text


def test_many_classes_are_listed_as_pairs() -> None:
    names = tuple(f"class{i}" for i in range(70))
    rows = [(i, (i + 1) % 70 if i < 3 else i, 0.6) for i in range(70)]

    text = said(val=make_predictions(rows, class_names=names))

    assert "70 classes are too many for a matrix" in text
    assert "The 60 of 70 classes with the most mistakes." in text
    assert "class0 class1 1 100.0 %" in text


def test_names_of_classes_may_break_so_that_numbers_stay_on_a_phone() -> None:
    name = "the common garden rose of the north " * 6
    predictions = make_predictions([(0, 1, 0.9), (1, 1, 0.8)], class_names=(name, "rose"))
    made = replace(report(TRIALS, verdict=planted()), predictions={"val": predictions})

    html = page(made)

    assert html.count(f'<td class="name">{name}</td>') == 2  # by class, and as a confused pair


def test_without_a_record_the_report_says_why() -> None:
    assert "is not recorded on this machine" in said()
    assert "once the confirmation is finished" in Reader(page(report(TRIALS))).text


def test_the_drop_to_test_and_the_point_are_said_in_words() -> None:
    text = said()

    assert "Test is 1.0 points worse than validation; some drop is to be expected" in text
    assert "In words: all blocks are fresh; the head and fresh blocks learn at the rate 0.1." in text
