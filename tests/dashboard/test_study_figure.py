"""A study's figure shows its trials, is updated at a bounded rate and stays one file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import tiny
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note
from PIL import Image

from tlopt.dashboard import note
from tlopt.dashboard.study_figure import FILE, TRIALS_MIN, address, is_due, update_figure
from tlopt.plots import effects
from tlopt.plots.effects import KeyPanel, draw_dependences
from tlopt.spec.folders import Folders
from tlopt.storage import attributes as study_attributes

STUDY = tiny.study("""
lr = { log = [1e-4, 1.0] }
l2_sp = { log = [1e-4, 1.0], zero = true }
freeze_depth = { int = [0, 17] }
""")


def add(opened: optuna.Study, value: float, backbone: str = "large", **point: Any) -> None:
    full = {"backbone": backbone, "transfer_depth": 17, "freeze_depth": 0, "lr": 0.01, "l2_sp": 0.0, **point}
    attributes = {
        study_attributes.POINT: full,
        study_attributes.TRIAL_RESULT: {"outcome": "complete", "metrics": {"log_loss": 1.0}},
    }
    opened.add_trial(create_trial(state=TrialState.COMPLETE, value=value, user_attrs=attributes))


@pytest.fixture
def opened() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    for index in range(TRIALS_MIN):
        add(study, 0.5 + index / 100, freeze_depth=index, l2_sp=0.001 * (index % 2))
    return study


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(root=tmp_path, study="planted")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each call that draws."""
    asked: list[dict[str, Any]] = []

    def draw(path: Path, **given: Any) -> Path:
        asked.append(given)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"picture {len(asked)}")
        return path

    monkeypatch.setattr(effects, "draw_dependences", draw)
    return asked


def test_keys_that_vary_are_drawn_with_the_best_trial_first(
    opened: optuna.Study, folders: Folders, drawn: list[dict[str, Any]]
) -> None:
    update_figure(opened, STUDY, folders)

    (given,) = drawn
    assert [(panel.label, panel.log) for panel in given["panels"]] == [
        ("freeze_depth, in blocks", False),
        ("l2_sp", True),
    ]
    np.testing.assert_array_equal(given["panels"][0].x, np.arange(TRIALS_MIN)[::-1])
    np.testing.assert_allclose(given["values"], 0.5 + np.arange(TRIALS_MIN)[::-1] / 100)
    assert given["title"] == f"planted: {TRIALS_MIN} complete trials"


def test_trials_without_norm_depth_are_drawn_at_zero(
    opened: optuna.Study, folders: Folders, drawn: list[dict[str, Any]]
) -> None:
    add(opened, 0.9, norm_depth=17)
    update_figure(opened, STUDY, folders)

    panels = {panel.label: panel.x.tolist() for panel in drawn[0]["panels"]}
    assert panels["norm_depth, in blocks"] == [17.0] + [0.0] * TRIALS_MIN


def test_linear_classifiers_are_left_out(
    opened: optuna.Study, folders: Folders, drawn: list[dict[str, Any]]
) -> None:
    add(opened, 0.99, classifier="svm", freeze_depth=17, l2_sp=0.0)
    update_figure(opened, STUDY, folders)

    assert drawn[0]["panels"][0].x.max() == TRIALS_MIN - 1
    assert len(drawn[0]["values"]) == TRIALS_MIN


def test_depths_of_another_backbone_are_left_out(
    opened: optuna.Study, folders: Folders, drawn: list[dict[str, Any]]
) -> None:
    add(opened, 0.1, backbone="small", freeze_depth=9)
    update_figure(opened, tiny.study("lr = 0.1", backbone='{ choice = ["large", "small"] }'), folders)

    assert drawn[0]["panels"][0].x.max() == TRIALS_MIN - 1
    assert drawn[0]["title"].endswith(f"{TRIALS_MIN} complete trials of large")


def test_too_few_trials_have_no_figure(folders: Folders, drawn: list[dict[str, Any]]) -> None:
    opened = optuna.create_study(direction="maximize")
    for index in range(TRIALS_MIN - 1):
        add(opened, 0.5, freeze_depth=index)
    update_figure(opened, STUDY, folders)

    assert (drawn, address(opened)) == ([], "")


def test_equal_trials_have_no_figure(folders: Folders, drawn: list[dict[str, Any]]) -> None:
    opened = optuna.create_study(direction="maximize")
    for _ in range(TRIALS_MIN):
        add(opened, 0.5)
    update_figure(opened, STUDY, folders)

    assert drawn == []
    assert not folders.artifacts.exists()


@pytest.mark.usefixtures("drawn")
def test_a_new_figure_replaces_the_old_one(opened: optuna.Study, folders: Folders) -> None:
    update_figure(opened, STUDY, folders)
    before = address(opened)
    update_figure(opened, STUDY, folders)

    assert address(opened) == before
    (file,) = folders.artifacts.iterdir()
    assert before == f"/artifacts/{opened._study_id}/{file.name}"
    assert file.read_text() == "picture 2"
    (meta,) = optuna.artifacts.get_all_artifact_meta(opened)
    assert (meta.filename, meta.mimetype) == (FILE, "image/png")


@pytest.mark.usefixtures("drawn")
def test_a_figure_that_was_removed_in_the_dashboard_is_uploaded_again(
    opened: optuna.Study, folders: Folders
) -> None:
    update_figure(opened, STUDY, folders)
    removed = address(opened).rpartition("/")[2]
    opened._storage.set_study_system_attr(opened._study_id, f"artifacts:{removed}", json.dumps(None))
    assert address(opened) == ""

    update_figure(opened, STUDY, folders)

    assert address(opened).rpartition("/")[2] not in ("", removed)


@pytest.mark.usefixtures("drawn")
def test_the_address_of_the_figure_in_the_note_changes_with_it(
    opened: optuna.Study, folders: Folders
) -> None:
    note.update_note(opened, STUDY, images="")
    assert "![" not in get_note(opened)
    update_figure(opened, STUDY, folders)
    note.update_note(opened, STUDY, images="")
    assert f"]({address(opened)}?trials={TRIALS_MIN})" in get_note(opened)
    add(opened, 0.9)
    note.update_note(opened, STUDY, images="")
    assert f"]({address(opened)}?trials={TRIALS_MIN + 1})" in get_note(opened)


def test_updates_are_due_often_at_first_and_rarely_later() -> None:
    due = [number + 1 for number in range(100_000) if is_due(number)]

    assert due[:5] == [10, 20, 30, 40, 50]
    for n in (640, 5_000, 50_000):
        assert 15 <= sum(n < at <= 2 * n for at in due) <= 33


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_figure_is_a_small_png(tmp_path: Path, direction: str) -> None:
    random = np.random.default_rng(7)
    lr = np.where(random.random(2000) < 0.2, 0.0, 10 ** random.uniform(-4, 0, 2000))
    path = draw_dependences(
        tmp_path / "deep" / "x.png",
        panels=[
            KeyPanel("freeze_depth", random.integers(0, 17, 2000).astype(float), log=False),
            KeyPanel("l2_sp", lr, log=True),
            KeyPanel("lr", np.exp(random.normal(size=2000)), log=True),
        ],
        values=np.sort(random.random(2000)),
        objective="macro_f1",
        direction=direction,
        title="planted: 2000 complete trials",
    )

    assert path.stat().st_size < 400_000
    with Image.open(path) as image:
        assert image.size[0] in range(900, 1100)
