"""Commands reach a study and its confirmation; studies of earlier versions are upgraded."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import tiny
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import TrialState
from typer.testing import CliRunner

from tlopt import spec
from tlopt.app import admin
from tlopt.app.handle import list_studies, open_session
from tlopt.cli.main import app
from tlopt.errors import NotReady, StorageError, StudyChanged
from tlopt.spec.study import CONFIRM_SUFFIX
from tlopt.storage import attributes as study_attributes
from tlopt.storage import commands, studies
from tlopt.storage.commands import Command, State

SEARCH = "lr = { log = [1e-4, 1e-1] }"
EARLIEST: dict[str, Any] = {
    study_attributes.SEMANTICS: 1
}  # before records had a format and studies a birthday
NOTHING = "nothing to do"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


def made(url: str, name: str = "planted", **versions: Any) -> optuna.Study:
    """A study of ours by its records; without `versions` as this tlopt writes them."""
    text = tiny.text(SEARCH).replace('"planted"', f'"{name.removesuffix(CONFIRM_SUFFIX)}"')
    opened = optuna.create_study(storage=studies.open_storage(url), study_name=name, direction="maximize")
    current = {
        study_attributes.SEMANTICS: spec.SEMANTICS_VERSION,
        study_attributes.RECORD_FORMAT: study_attributes.FORMAT_VERSION,
    }
    written = {study_attributes.STUDY_FILE: text, study_attributes.DIGEST: spec.loads(text, "x.toml").digest}
    for key, value in {**written, **(versions or {**current, study_attributes.BEGAN: 1.0})}.items():
        opened.set_user_attr(key, value)
    return opened


def attributes(url: str, name: str = "planted") -> dict[str, Any]:
    return optuna.load_study(study_name=name, storage=studies.open_storage(url)).user_attrs


# Orders


@pytest.mark.parametrize("state", ["paused", "cancelled", "archived"])
def test_an_order_is_kept_and_taken_back(url: str, state: State) -> None:
    made(url)
    session = open_session("planted", storage_url=url)

    admin.command(session, state)
    assert commands.command_of(session.optuna_study()) == Command(state)
    admin.command(session, "open")
    assert commands.command_of(session.optuna_study()) == Command("open")


def test_an_order_is_for_the_confirmation_too(url: str) -> None:
    made(url)
    confirmation = made(url, "planted" + CONFIRM_SUFFIX)

    admin.command(open_session("planted", storage_url=url), "paused")

    assert commands.command_of(confirmation) == Command("paused")


def test_an_archived_study_leaves_the_list_until_it_is_resumed(url: str) -> None:
    made(url, "kept")
    made(url, "old")
    session = open_session("old", storage_url=url)

    admin.command(session, "archived")
    assert [row.name for row in list_studies(url)] == ["kept"]
    admin.command(session, "open")
    assert [row.name for row in list_studies(url)] == ["kept", "old"]


def test_a_damaged_study_leaves_the_others_in_the_list(url: str, caplog: pytest.LogCaptureFixture) -> None:
    made(url, "kept")
    made(url, "damaged").set_user_attr(study_attributes.CONTROL, 5)
    made(url, "unread").set_user_attr(study_attributes.STUDY_FILE, "no TOML")

    assert [row.name for row in list_studies(url)] == ["kept"]
    assert "left out: the study 'damaged' is damaged: something other than tlopt has set" in caplog.text
    assert "left out: study unread" in caplog.text


def test_a_list_without_studies_says_what_to_do(url: str) -> None:
    made(url, "old")
    admin.command(open_session("old", storage_url=url), "archived")

    shown = CliRunner().invoke(app, ["status", "--storage", url])

    assert (shown.exit_code, shown.stdout) == (
        0,
        "no study here yet but archived ones; tlopt run FILE begins one\n",
    )


@pytest.mark.parametrize("command", ["pause", "resume", "cancel", "archive", "upgrade"])
def test_a_study_that_is_not_there_is_named_beside_those_that_are(url: str, command: str) -> None:
    made(url, "kept")

    caught = CliRunner().invoke(app, [command, "absent", "--storage", url]).exception

    assert isinstance(caught, NotReady)
    assert "there is no study 'absent' in this storage (there are: kept)" in str(caught)


# Upgrades


def test_a_study_of_the_first_version_is_brought_along_once(url: str) -> None:
    made(url, **EARLIEST)

    (first,) = admin.upgrade(url, "planted")
    upgraded = attributes(url)
    (second,) = admin.upgrade(url, "planted")

    assert first.startswith("planted: records 1 to 2; dropout and mixup are drawn anew")
    assert second == f"planted: {NOTHING}"
    assert attributes(url) == upgraded
    assert upgraded[study_attributes.RECORD_FORMAT] == study_attributes.FORMAT_VERSION
    assert upgraded[study_attributes.SEMANTICS] == spec.SEMANTICS_VERSION
    assert upgraded[study_attributes.BEGAN] > 0


def test_trials_that_ran_without_a_lease_wait_and_the_others_stay(url: str) -> None:
    old = made(url, **EARLIEST)
    complete, running, waiting = (old.ask() for _ in range(3))
    complete.report(0.5, 0)
    old.tell(complete, 0.5)
    running.report(0.25, 0)
    studies.service_of(old._storage).set_trial_state_values(waiting._trial_id, TrialState.WAITING)

    (line,) = admin.upgrade(url, None)

    assert "trial 1 waits to be run again" in line
    trials = optuna.load_study(study_name="planted", storage=studies.open_storage(url)).trials
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE,
        TrialState.WAITING,
        TrialState.WAITING,
    ]
    assert trials[0].value == 0.5
    assert trials[1].intermediate_values == {0: 0.25}


def test_an_upgraded_study_is_opened_by_its_file_and_refused_before(url: str) -> None:
    made(url, **EARLIEST)
    text = tiny.text(SEARCH)

    def open_by_file() -> optuna.Study:
        store = studies.open_storage(url)
        return studies.create_or_open(store, spec.loads(text, "x.toml"), file_text=text, fingerprints={})

    with pytest.raises(StudyChanged, match="tlopt upgrade planted"):
        open_by_file()
    list(admin.upgrade(url, None))
    assert open_by_file().study_name == "planted"


def test_one_name_brings_the_study_and_its_confirmation_and_no_other(url: str) -> None:
    for name in ("other", "planted", "planted" + CONFIRM_SUFFIX):
        made(url, name, **EARLIEST)

    lines = list(admin.upgrade(url, "planted"))

    assert [line.split(":")[0] for line in lines] == ["planted", "planted" + CONFIRM_SUFFIX]
    assert study_attributes.RECORD_FORMAT not in attributes(url, "other")


def test_a_study_that_is_not_ours_is_left_alone(url: str) -> None:
    theirs = optuna.create_study(storage=studies.open_storage(url), study_name="theirs")
    theirs.add_trial(optuna.create_trial(value=0.5))

    assert list(admin.upgrade(url, None)) == []
    assert attributes(url, "theirs") == {}
    with pytest.raises(StorageError, match="was not created by tlopt"):
        list(admin.upgrade(url, "theirs"))


@pytest.mark.parametrize("key", [study_attributes.RECORD_FORMAT, study_attributes.SEMANTICS])
def test_a_study_of_a_later_version_is_refused_and_unchanged(url: str, key: str) -> None:
    later = made(url)
    later.set_user_attr(key, 99)
    before = attributes(url)

    with pytest.raises(StorageError, match="created by a newer tlopt"):
        list(admin.upgrade(url, None))
    assert attributes(url) == before


def test_a_file_that_is_read_no_longer_is_said_with_its_study(url: str) -> None:
    made(url).set_user_attr(study_attributes.STUDY_FILE, tiny.text("momentun = 0.9"))

    with pytest.raises(StorageError, match=r"planted: its study file can no longer be read: .*momentun"):
        list(admin.upgrade(url, None))


def test_another_way_of_digesting_is_caught_up_with(url: str) -> None:
    made(url).set_user_attr(study_attributes.DIGEST, "an earlier version's")

    assert list(admin.upgrade(url, None)) == ["planted: digest updated"]
    assert attributes(url)[study_attributes.DIGEST] == spec.loads(tiny.text(SEARCH), "x.toml").digest


# Deletion


def test_what_a_deleted_study_leaves_on_disk_is_named(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened, other = made(url), made(url, "other")
    opened.add_trial(optuna.create_trial(value=0.5))
    artifacts = tmp_path / "runs" / "artifacts"
    for folder in (artifacts, tmp_path / "runs" / "planted", tmp_path / "runs" / "checkpoints" / "planted"):
        folder.mkdir(parents=True)
    store, file = FileSystemArtifactStore(artifacts), tmp_path / "picture.png"
    file.touch()
    for owner in (opened, opened.ask(), other):
        upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=owner)

    shown = CliRunner().invoke(app, ["delete", "planted", "--storage", url, "--yes"])

    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines() == [
        "deleted planted (2 trials)",
        f"left: {tmp_path / 'runs' / 'planted'}",
        f"left: {tmp_path / 'runs' / 'checkpoints' / 'planted'}",
        f"left: 2 pictures for the dashboard in {artifacts}",
    ]
    assert optuna.get_all_study_names(studies.open_storage(url)) == ["other"]
