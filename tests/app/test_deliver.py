"""A damaged result.json is reported by every command that reads it, and never misread."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import tiny
from finished import STUDY_TEXT, planted
from typer.testing import CliRunner

import tlopt
from tlopt import spec
from tlopt.app import deliver
from tlopt.cli.main import app
from tlopt.confirmation import held_out
from tlopt.confirmation.verdict_json import as_dict
from tlopt.errors import DataError, SpecError
from tlopt.exports import contents, write
from tlopt.exports.result import RESULT, read_result
from tlopt.search.fixed_study import fixed_study
from tlopt.storage import attributes
from tlopt.trial.workspace import Workspace

STUDY = spec.loads(STUDY_TEXT.format(resize="crop", backbone="resnet18"), "flowers.toml")


def result() -> dict[str, Any]:
    """The tables of result.json that commands read."""
    verdict = planted()
    return {
        "format": 1,
        "study": {"digest": STUDY.digest},
        "point": verdict.chosen.point.as_dict(),
        "data": {"n_test": 30, "n_classes": 3, "fingerprint": "0a1b"},
        "weights": {"label": "none", "digest": "none"},
        "verdict": as_dict(verdict),
    }


def session() -> Any:
    """A study whose two trials have ended and whose confirmation is finished."""
    study = STUDY.model_copy(update={"budget": STUDY.budget.model_copy(update={"trials": 2})})
    given = {
        attributes.TRIAL_RESULT: {"outcome": "complete"},
        attributes.POINT: planted().chosen.point.as_dict(),
    }
    ended = optuna.create_trial(value=0.5, user_attrs=given)
    opened = SimpleNamespace(get_trials=lambda **_: [ended, ended], user_attrs={})
    return SimpleNamespace(study=study, verdict=planted, optuna_study=lambda: opened)


def without(key: str) -> str:
    return json.dumps({name: value for name, value in result().items() if name != key})


DAMAGED = {
    "empty": "",
    "cut": json.dumps(result())[:100],
    "a list": "[]",
    "no study": without("study"),
    "no verdict": without("verdict"),
    "a number for a table": json.dumps(result() | {"data": 3}),
    "no format": without("format"),
}


def test_a_finished_study_with_its_export_is_known(tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text(json.dumps(result()))

    assert deliver.known_verdict(session(), tmp_path) == planted()


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_result_is_refused_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text(text)

    with pytest.raises(DataError, match=r"result\.json.*(is damaged|format None)"):
        read_result(tmp_path)


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_study_with_a_damaged_result_is_exported_again(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / RESULT).write_text(text)

    assert deliver.known_verdict(session(), tmp_path) is None
    assert str(tmp_path / RESULT) in caplog.text


def taken(folder: Path) -> str:
    folder.mkdir()
    (folder / "thesis.tex").touch()
    return r"is not an export \(it contains thesis\.tex"


def in_a_file(folder: Path) -> str:
    folder.parent.rmdir()
    folder.parent.touch()
    return f"{folder.parent} is not a folder"


def beside_a_page(folder: Path) -> str:
    folder.with_name(f"{folder.name}.html").touch()
    return "exists and is not a report"


@pytest.mark.parametrize("occupy", [taken, in_a_file, beside_a_page])
def test_a_place_that_cannot_be_written_is_refused_before_images_are_read(
    occupy: Callable[[Path], str], tmp_path: Path
) -> None:
    file, place = tmp_path / "planted.toml", tmp_path / "exports" / "planted"
    place.parent.mkdir()
    file.write_text(tiny.text("lr = 0.01", backbone='"resnet18"'))  # its folder of images is not there
    said = occupy(place)

    command = ["run", str(file), "--output", str(place), "--storage", f"sqlite:///{tmp_path / 'new.db'}"]
    run = CliRunner().invoke(app, command)

    assert isinstance(run.exception, (DataError, SpecError))
    assert re.search(said, str(run.exception))
    if occupy is not beside_a_page:
        with pytest.raises(DataError, match=said):
            tlopt.export(file, place, storage=f"sqlite:///{tmp_path / 'new.db'}")


@pytest.mark.parametrize("fails", [True, False])
def test_training_leaves_no_weights_beside_its_export(
    fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(fixed_study(STUDY, planted().chosen.point, name="mine", exported=True))
    workspace = SimpleNamespace(
        facts=None,
        data=SimpleNamespace(fingerprint="0a1b"),
        save_weights=lambda run, path: path.write_bytes(b"tensors"),
    )

    def write_export(folder: Path, contents: object, *, weights_file: Path, overwrite: bool) -> None:
        assert weights_file.read_bytes() == b"tensors"
        if fails:
            raise DataError("the disk is full")

    monkeypatch.setattr(Workspace, "open", lambda *_, **__: workspace)
    monkeypatch.setattr(deliver, "only_point", lambda *_: planted().chosen.point)
    monkeypatch.setattr(
        held_out, "train_on_all", lambda *_: (SimpleNamespace(seed=1), iter([tiny.epoch(0, 0.5)]))
    )
    monkeypatch.setattr(contents, "collect_contents", lambda *_: None)
    monkeypatch.setattr(write, "write_export", write_export)

    ended = CliRunner().invoke(app, ["train", str(config), str(tmp_path / "final")])

    assert isinstance(ended.exception, DataError) == fails, ended.exception
    assert [file.name for file in tmp_path.iterdir()] == ["config.toml"]
