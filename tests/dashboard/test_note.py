"""The study's note is complete and current, and text that users wrote stays."""

from typing import Any

import optuna
import pytest
import tiny
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note, save_note

from tlopt import spec
from tlopt.dashboard import note
from tlopt.dashboard.note import MARKER, update_note
from tlopt.storage import attributes as study_attributes

IMAGES = "photos/: 300 to train, 100 for validation, 100 held out for the test, 5 classes"
SEARCH = """
lr_ratio = { log = [0.01, 1.0] }
label_smoothing = { log = [0.01, 0.1], zero = true }
freeze_depth = { int = [0, 17] }
optimizer = { choice = ["sgd", "adamw"] }
"""
STUDY = tiny.study(SEARCH)


def add(
    opened: optuna.Study, value: float, freeze: int, label: str = "", classifier: str = "network"
) -> None:
    point: dict[str, Any] = {"transfer_depth": 17, "freeze_depth": freeze, "lr": 0.0012, "lr_ratio": 0.1}
    point["classifier"] = classifier
    attributes = {
        study_attributes.POINT: point,
        study_attributes.TRIAL_RESULT: {"outcome": "complete", "metrics": {"log_loss": 1.0}},
    }
    if label:
        attributes[study_attributes.LABEL] = label
    opened.add_trial(create_trial(state=TrialState.COMPLETE, value=value, user_attrs=attributes))


@pytest.fixture
def opened() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    add(study, 0.5, 17, "linear probe")
    add(study, 0.625, 0, "plain fine-tuning")
    for value, freeze in ((0.75, 8), (0.875, 9), (0.25, 16), (0.8125, 4)):
        add(study, value, freeze)
    return study


def shown(opened: optuna.Study, study: spec.Study = STUDY, **more: Any) -> str:
    """The note, without the spaces between columns."""
    update_note(opened, study, images=IMAGES, **more)
    return get_note(opened).replace("&emsp;", "")


def test_the_note_has_goal_images_search_space_and_a_caveat(opened: optuna.Study) -> None:
    text = shown(opened)

    assert "**accuracy on validation**" in text
    assert "photos/: 300 to train" in text
    assert "lr\\_ratio 0.01 to 1; label\\_smoothing 0 or 0.01 to 0.1; freeze\\_depth 0 to 17" in text
    assert "optimizer sgd or adamw" in text
    assert "not confirmed yet" in text


@pytest.mark.parametrize("key", ["summary", "said"])  # "said" in studies begun with 0.2.0
def test_the_note_says_how_networks_fit_once_it_is_measured(opened: optuna.Study, key: str) -> None:
    before = shown(opened)
    opened.set_user_attr(study_attributes.FIT, {key: "resnet18: linear probe 81.0 % on its last block"})

    assert "fit before training" not in before
    assert "- fit before training: resnet18: linear probe 81.0 % on its last block" in shown(opened)


@pytest.mark.parametrize("name", ["planted", "planted.confirm"])
def test_limited_costs_are_columns_of_search_and_confirmation(name: str) -> None:
    limited = tiny.study(SEARCH, more="[constraints]\nmultiply_adds = 50e6")
    opened = optuna.create_study(direction="maximize", study_name=name)
    result = {"outcome": "complete", "inference_cost": {"multiply_adds": 37_123_456}}
    attributes = {study_attributes.POINT: {"lr": 0.1}, study_attributes.TRIAL_RESULT: result}
    opened.add_trial(create_trial(state=TrialState.COMPLETE, value=0.5, user_attrs=attributes))

    text = shown(opened, limited)

    assert "accuracy | multiply-adds |" in text
    assert "50.0 % | 37.12 M |" in text


def test_the_best_trials_come_first_and_the_defaults_are_always_listed(opened: optuna.Study) -> None:
    rows = [line for line in shown(opened).splitlines() if line.startswith("|")]

    names = [row.split("|")[1].strip() for row in rows[2:7]]
    assert names == ["3", "5", "2", "1 plain fine-tuning", "0 linear probe"]
    assert rows[2].split("|")[2:6] == [" 87.5 % ", " 17 ", " 9 ", " 0.0012 "]


def test_the_note_says_which_of_its_trials_it_lists(opened: optuna.Study) -> None:
    assert "The 3 best of 6 complete trials, and the defaults:" in shown(opened)

    few = optuna.create_study(direction="maximize")
    add(few, 0.5, 17, "linear probe")
    assert "complete trial" not in shown(few)


def test_the_note_of_a_confirmation_refers_to_that_of_its_search() -> None:
    confirmation = optuna.create_study(direction="maximize", study_name=f"{STUDY.name}.confirm")
    add(confirmation, 0.5, 17, "linear probe")
    add(confirmation, 0.75, 0, "trial 8")
    text = shown(confirmation)

    assert f"result: in the note of the study {STUDY.name}" in text
    assert "| trial 8 | 75.0 % |" in text
    assert "not confirmed" not in text
    assert "budget" not in text


def test_the_depth_table_has_the_best_of_each_quarter(opened: optuna.Study) -> None:
    text = shown(opened)

    assert "| freeze_depth | best accuracy | trials |" in text
    assert "| 0 to 3 | 62.5 % | 1 |" in text
    assert "| 4 to 8 | 81.2 % | 2 |" in text
    assert "| 9 to 13 | 87.5 % | 1 |" in text
    assert "| 14 to 17 | 50.0 % | 2 |" in text
    assert "| transfer_depth | best" not in text


def test_a_linear_classifier_has_no_depths_and_rates_in_the_note(opened: optuna.Study) -> None:
    before = shown(opened).splitlines()
    add(opened, 0.9375, 17, "linear classifier", classifier="logistic")
    lines = shown(opened).splitlines()

    (row,) = [line for line in lines if "linear classifier" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "93.8 %"
    assert set(cells[2:]) == {"—"}
    at = next(i for i, line in enumerate(lines) if line.startswith("| freeze_depth | best"))
    assert lines[at:] == before[-len(lines[at:]) :]  # the table of depths is that of the networks


def test_depths_of_kept_statistics_are_shown_where_they_are_searched(opened: optuna.Study) -> None:
    searched = tiny.study(SEARCH + "norm_depth = { int = [0, 17] }")
    point = {"transfer_depth": 17, "freeze_depth": 0, "norm_depth": 17, "lr": 0.01, "lr_ratio": 0.3}
    opened.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            value=0.9375,
            user_attrs={
                study_attributes.POINT: point,
                study_attributes.TRIAL_RESULT: {"outcome": "complete", "metrics": {"log_loss": 1.0}},
            },
        )
    )

    text = shown(opened, searched)

    rows = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    assert [rows[0][5], rows[2][5], rows[3][5]] == [" norm_depth ", " 17 ", " 0 "]
    assert "| norm_depth | best accuracy | trials |" in text
    assert "| 13 to 17 | 93.8 % | 1 |" in text or "| 14 to 17 | 93.8 % | 1 |" in text
    assert "norm_depth" not in shown(opened).split("---")[0].splitlines()[-1]


def test_columns_are_spaced_and_every_row_has_as_many(opened: optuna.Study) -> None:
    update_note(opened, STUDY, images=IMAGES)
    rows = [line for line in get_note(opened).splitlines() if line.startswith("| ")]

    assert rows[0].startswith("| trial&emsp; | accuracy&emsp; | transfer_depth&emsp; | ")
    assert {row.count("|") for row in rows} == {10, 4}
    assert {row.count("&emsp; |") for row in rows if "---" not in row} == {8, 2}


def test_text_of_users_stays(opened: optuna.Study) -> None:
    save_note(opened, "Ask *Ada* before you stop it.")
    first = shown(opened)
    save_note(opened, first + "\nAnd Bob.")
    add(opened, 0.9375, 3)

    second = shown(opened)

    assert first.endswith(f"{MARKER}\n\nAsk *Ada* before you stop it.")
    assert second.endswith(f"{MARKER}\n\nAsk *Ada* before you stop it.\nAnd Bob.")
    assert "| 6 | 93.8 % |" in second


def test_an_unchanged_note_is_not_written(opened: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    shown(opened)
    monkeypatch.setattr("optuna_dashboard.save_note", lambda *_: pytest.fail("written again"))

    shown(opened)


def test_the_verdict_replaces_the_caveat(opened: optuna.Study) -> None:
    text = shown(opened, verdict=["Gain over plain fine-tuning: +3.0 ± 1.0 points."])

    assert "not confirmed yet" not in text
    assert "- Gain over plain fine-tuning: +3.0 ± 1.0 points." in text


def test_a_study_without_complete_trials_has_a_note(opened: optuna.Study) -> None:
    assert "not confirmed yet" in shown(optuna.create_study(direction="maximize"))


def test_names_are_escaped_in_markdown(opened: optuna.Study) -> None:
    update_note(opened, STUDY, images="<b>my_photos</b>: [x](y)")

    assert "\\<b\\>my\\_photos\\</b\\>: \\[x\\](y)" in get_note(opened)


def test_the_best_log_loss_in_the_note_is_the_lowest() -> None:
    text = tiny.text(SEARCH).replace("seed = 7", 'seed = 7\nobjective = "log_loss"')
    opened = optuna.create_study(direction="minimize")
    for value, freeze in ((0.5, 2), (0.25, 9)):
        add(opened, value, freeze)

    trials = [study_attributes.TrialRecord.from_frozen(trial) for trial in opened.trials]
    lines = note.note_lines(spec.loads(text, "x.toml"), trials, images="", verdict=(), picture="")

    assert (
        next(line for line in lines if line.startswith("| 1&emsp;"))
        .replace("&emsp;", "")
        .startswith("| 1 | 0.2500 |")
    )


def test_what_to_search_next_is_listed_once_it_is_known(opened: optuna.Study) -> None:
    assert "To search next" not in shown(opened)

    text = shown(opened, explained=["lr extended: 5 of 6 above 0.005.", "No effect can be told for l2."])

    assert "**To search next**\n\n- lr extended: 5 of 6 above 0.005.\n- No effect can be told for l2" in text
