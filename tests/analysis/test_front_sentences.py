"""Sentences on a front, as status, the report and `run` print them."""

from collections.abc import Sequence

import optuna
import pytest
import tiny

from tlopt.analysis.front import front_sentence, objective_words
from tlopt.search.defaults import defaults
from tlopt.spec import Study
from tlopt.spec.objectives import named_cost_words
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord


@pytest.fixture
def study() -> Study:
    one = tiny.study("lr = { log = [1e-4, 1.0] }")
    return one.model_copy(update={"objectives": ("accuracy", "parameters")})


def records(study: Study, rows: Sequence[tuple[float, ...]]) -> list[TrialRecord]:
    point = defaults(study, tiny.facts())[0].point.as_dict()
    found = []
    for number, values in enumerate(rows):
        trial = optuna.trial.create_trial(values=values, user_attrs={attributes.POINT: point})
        trial.number = number
        found.append(TrialRecord.from_frozen(trial))
    return found


def test_the_front_of_a_search_is_a_sentence_of_its_own(study: Study) -> None:
    several = records(study, [(0.5, 10.0), (0.4, 10.0), (0.25, 5.0)])

    assert front_sentence(study, several) == (
        "Trials 0, 2 form the front: no other trial beats them in accuracy and parameters at once."
        " They dominate 15.9 % of the space of objectives (hypervolume)."  # 1.75 of 11, counted by hand
    )
    assert front_sentence(study, several[:2]) == (
        "Trial 0 is the front: no other trial beats it in accuracy and parameters at once."
        " It dominates 4.5 % of the space of objectives (hypervolume)."
    )
    assert front_sentence(study, []) == ""


def test_objectives_are_listed_with_one_and(study: Study) -> None:
    three = study.model_copy(update={"objectives": ("accuracy", "parameters", "multiply_adds")})

    assert objective_words(study) == "accuracy on validation and parameters"
    assert objective_words(three) == "accuracy on validation, parameters and multiply-adds"
    assert objective_words(study.model_copy(update={"objectives": ()})) == "accuracy on validation"
    said = front_sentence(three, records(three, [(0.5, 10.0, 3.0)]))
    assert "in accuracy, parameters and multiply-adds at once." in said


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("parameters", 25.56e6, "25.56 M parameters"),
        ("multiply_adds", 300e6, "300 M multiply-adds"),
        ("bytes", 44.8e6, "44.8 MB"),
        ("latency_ms", 3.21, "3.21 ms"),
    ],
)
def test_a_count_says_what_is_counted(name: str, value: float, words: str) -> None:
    assert named_cost_words(name, value) == words
