"""All screens show the same winner and the same numbers for one finished study."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stored
from optuna.trial import create_trial
from stored import BEST_VALUE, INFEASIBLE, VIOLATION

from tlopt.analysis import table
from tlopt.app import deliver
from tlopt.app.handle import Session
from tlopt.storage import leases, optuna_private, studies
from tlopt.storage.attributes import TrialRecord, violation_words


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    root = tmp_path_factory.mktemp("stored")
    return stored.build(f"sqlite:///{root}/studies.db", root / "flowers.toml")


@pytest.fixture(scope="module")
def screens(session: Session) -> dict[str, str]:
    return dict(stored.screens(session))


# One form of a number

DECIMAL = re.compile(r"(?<![\w.])\d+\.(\d+)(?:e[+-]?\d+)?(?![\w.]*\.\d)")


def readable(screen: str) -> str:
    """The words of a screen, alternative texts included; without listings, styles and coordinates."""
    screen = re.sub(r"<(pre|style)\b.*?</\1>|```.*?```", " ", screen, flags=re.DOTALL)
    alternatives = re.findall(r'(?:aria-label|alt)="([^"]*)"', screen)
    return re.sub(r"<[^>]*>", " ", screen) + "\n".join(alternatives)


def significant(number: str) -> int:
    """The number of significant digits of a decimal number."""
    return len(re.sub(r"e.*|\.", "", number).lstrip("0"))


def test_significant_digits_are_counted() -> None:
    text = "79.0 %, 0.0123, 1.235e+09, 0.7902097902, version 2.14.1, v1.23456x"

    assert [significant(each[0]) for each in DECIMAL.finditer(text)] == [3, 3, 4, 10]


def test_no_screen_has_a_number_of_more_than_four_digits(screens: dict[str, str]) -> None:
    found = {
        name: [each[0] for each in DECIMAL.finditer(readable(said)) if significant(each[0]) > 4]
        for name, said in screens.items()
    }

    assert {name: numbers for name, numbers in found.items() if numbers} == {}


def test_the_chosen_value_looks_the_same_on_every_screen(screens: dict[str, str]) -> None:
    test, val = "78.3 ± 0.5 %", "83.9 ± 0.7 %"

    for name in ("status", "report", "card", "verdict in a notebook"):
        assert test in screens[name], name
        assert val in screens[name], name
    assert test in screens["verdict"]
    for name in ("view", "view in a notebook"):
        assert val in screens[name], name
    for name in ("progress", "note"):
        assert "83.9 %" in screens[name], name


def test_training_says_percent_and_nats_and_counts_epochs_from_one(screens: dict[str, str]) -> None:
    assert screens["training"] == "epoch 1: training loss 1.235, training accuracy 33.3 %, 14.3 s\n"


def floats(value: Any) -> Iterator[float]:
    """Every float in a JSON value but those of points."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from () if name == "point" else floats(each)
    elif isinstance(value, list):
        for each in value:
            yield from floats(each)


def test_programs_get_six_digits_and_exact_points(session: Session) -> None:
    seen = stored.as_json(session)

    measured = list(floats(seen))
    assert 0.839161 in measured  # 120 / 143
    assert [each for each in measured if float(f"{each:.6g}") != each] == []
    assert seen["chosen"]["point"]["lr"] == stored.LR


def test_a_table_of_trials_has_six_digits_and_exact_points(session: Session) -> None:
    file = io.StringIO()
    table.write_csv(table.rows(session.snapshot().trials), file)

    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert rows[3]["value"] == "0.839161"
    assert rows[3]["point.lr"] == str(stored.LR)
    assert rows[INFEASIBLE]["violation.flops"] == "0.314159"


# A trial that breaks a constraint


def test_no_screen_shows_the_value_of_an_infeasible_trial_as_the_best(screens: dict[str, str]) -> None:
    best = f"{100 * BEST_VALUE:.1f} %"

    assert [name for name, said in screens.items() if best in said] == []


def test_the_infeasible_trial_and_its_violation_are_named(screens: dict[str, str]) -> None:
    said = violation_words({"flops": VIOLATION})

    assert said == "breaks flops by 0.314"
    for name in ("status", "report", "note"):
        assert said in screens[name], name
        assert "infeasible" in screens[name], name


def test_programs_are_told_the_violation_and_another_best_trial(session: Session) -> None:
    seen = stored.as_json(session)

    assert seen["best"]["trial"] == stored.optuna_best(session) == 3
    assert seen["outcomes"]["infeasible"] == 1
    row = seen["trials"][INFEASIBLE]
    assert (row["outcome"], row["state"]) == ("infeasible", "complete")
    assert row["violations"] == pytest.approx({"flops": VIOLATION}, abs=1e-6)


def test_tables_of_all_trials_have_a_column_for_the_violation(session: Session) -> None:
    rows = table.rows(session.snapshot().trials)

    assert [row["violation.flops"] for row in rows] == [
        VIOLATION if row["number"] == INFEASIBLE else None for row in rows
    ]


def test_an_infeasible_trial_is_no_config_and_uses_up_budget(session: Session) -> None:
    assert INFEASIBLE not in [row.trial for row in deliver.best_points(session)]
    assert session.snapshot().trials[INFEASIBLE].counts


def test_new_leaders_are_measured_by_feasible_trials(session: Session) -> None:
    opened = session.optuna_study()
    service = studies.service_of(session.store)
    study_id = optuna_private.study_id(opened)

    best = service.query(lambda at: leases.best_value(at, study_id, opened.direction))

    assert best == pytest.approx(120 / stored.N_VAL)


@pytest.mark.parametrize(
    ("constraints", "outcome", "broken"),
    [
        ({}, "added", {}),
        ({"flops": 0.0, "size": -1.0}, "added", {}),
        (
            {"flops": 0.5, "size": -1.0, "time": float("inf")},
            "infeasible",
            {"flops": 0.5, "time": float("inf")},
        ),
    ],
)
def test_a_trial_is_feasible_up_to_zero(
    constraints: dict[str, float], outcome: str, broken: dict[str, float]
) -> None:
    record = TrialRecord.from_frozen(create_trial(value=1.0, constraints=constraints))

    assert (record.outcome, record.violations) == (outcome, broken)


def test_the_report_renders_where_every_trial_is_infeasible(tmp_path: Path) -> None:
    from reported import report, trial

    from tlopt.reports.html import page

    ended = [trial(0.5 + k / 10, lr=0.01 * (k + 1)) for k in range(3)]
    for k, each in enumerate(ended):
        each.set_constraint("flops", 0.1 * (k + 1))

    html = page(report(ended))

    assert "they break flops by 0.1 to 0.3" in html
    assert "No trial is complete" in html
