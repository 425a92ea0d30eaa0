"""Commands act on the study that was named and on its own confirmation, even if names are reused."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import tiny
from optuna.trial import TrialState
from rich.console import Console
from typer.testing import CliRunner

from tlopt.app import workflow
from tlopt.app.handle import Session, open_session
from tlopt.cli.main import app
from tlopt.confirmation.candidates import add_candidates
from tlopt.confirmation.companion import open_companion
from tlopt.confirmation.evidence import ODDS_MIN
from tlopt.errors import NotReady, SpecError, StorageError, StudyChanged
from tlopt.search.defaults import defaults
from tlopt.search.race import Candidate
from tlopt.storage import attributes, commands, studies, workers
from tlopt.storage.commands import Command

SEARCH = "lr = { log = [1e-4, 1e-1] }"
POINT = defaults(tiny.study(SEARCH), tiny.facts())[1].point
TEXT = tiny.text(SEARCH)
STUDY = tiny.study(SEARCH)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


def search(url: str) -> optuna.Study:
    """A search with one complete trial."""
    opened = studies.create_or_open(studies.open_storage(url), STUDY, file_text=TEXT, fingerprints={})
    opened.add_trial(
        optuna.create_trial(
            value=0.5, user_attrs={attributes.POINT: POINT.as_dict()}, state=TrialState.COMPLETE
        )
    )
    return opened


def confirmation(url: str, of: optuna.Study) -> optuna.Study:
    opened = open_companion(
        studies.open_storage(url),
        STUDY,
        name="planted.confirm",
        list_of=attributes.CANDIDATES,
        search=of,
        file_text=TEXT,
        fingerprints={},
    )
    add_candidates(opened, [Candidate(0, "trial 0", POINT)], STUDY, odds=ODDS_MIN)
    return opened


def rename(url: str, old: str, new: str) -> None:
    """As optuna-dashboard renames a study: copy, then delete."""
    optuna.copy_study(from_study_name=old, from_storage=url, to_storage=url, to_study_name=new)
    optuna.delete_study(study_name=old, storage=url)


def named(name: str, url: str) -> Session:
    return open_session(name, storage_url=url)


def invoke(*arguments: Any, answer: str = "") -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


# Names


def test_a_copied_study_is_the_one_that_is_acted_on(url: str) -> None:
    search(url)
    optuna.copy_study(from_study_name="planted", from_storage=url, to_storage=url, to_study_name="copied")

    assert "copied is cancelled" in invoke("cancel", "copied", "--storage", url)

    assert commands.command_of(named("copied", url).optuna_study()) == Command("cancelled")
    assert commands.command_of(named("planted", url).optuna_study()) == Command("open")


def test_a_renamed_study_keeps_its_trials_and_its_confirmation(url: str) -> None:
    confirmation(url, search(url))
    rename(url, "planted", "renamed")

    session = named("renamed", url)

    assert session.study.name == "renamed"
    assert len(session.optuna_study().trials) == 1
    assert session.confirmation().study_name == "planted.confirm"
    assert "renamed: 1 of 60 trials" in invoke("status", "renamed", "--storage", url)


def test_a_copy_has_no_part_in_the_confirmation_of_the_study_it_was_copied_from(url: str) -> None:
    confirmation(url, search(url))
    optuna.copy_study(from_study_name="planted", from_storage=url, to_storage=url, to_study_name="copied")

    with pytest.raises(NotReady, match="'copied' has no confirmation yet; first: tlopt confirm copied"):
        named("copied", url).confirmation()


def test_a_study_whose_file_was_moved_is_named_as_the_database_has_it(url: str) -> None:
    search(url)

    with pytest.raises(SpecError, match=r"old/planted\.toml: .* a study planted: give that name"):
        named("old/planted.toml", url)
    assert named("planted", url).study.name == "planted"
    with pytest.raises(SpecError, match=r"other\.toml: there is no such study file; tlopt init"):
        named("other.toml", url)


def test_a_name_that_files_cannot_have_is_refused(url: str) -> None:
    search(url)
    rename(url, "planted", "../elsewhere")

    with pytest.raises(SpecError, match=r"'\.\./elsewhere' has a name that tlopt cannot use for files"):
        named("../elsewhere", url)
    with pytest.raises(SpecError, match=r"\.\./elsewhere\.toml: there is no such study file"):
        named("../elsewhere.toml", url)
    rename(url, "../elsewhere", "my flowers")
    with pytest.raises(SpecError, match="'my flowers' has a name that tlopt cannot use for files"):
        named("my flowers", url)


def test_the_name_of_a_study_that_has_not_begun_may_be_that_of_its_folder_of_images(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos.toml").write_text(TEXT)
    no_database, other_study = f"sqlite:///{tmp_path}/none.db", search(url)

    for place in (no_database, url):
        with pytest.raises(NotReady, match=r"no study 'photos' in the database yet; .* photos\.toml"):
            open_session("photos", storage_url=place)
    assert open_session(other_study.study_name, storage_url=url)


def test_a_name_without_the_suffix_of_the_file_beside_it_is_hinted_at(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmation(url, search(url))
    (tmp_path / "flowers.toml").write_text(TEXT.replace('"planted"', '"flowers"'))
    monkeypatch.chdir(tmp_path)

    with pytest.raises(
        NotReady, match=r"\(there are: planted\); there is a study file flowers\.toml: name it"
    ):
        named("flowers", url)
    with pytest.raises(NotReady, match=r"there is a study file flowers\.toml"):
        named("flowers", f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(
        NotReady, match=r"'flowers' of flowers\.toml has not been started .*tlopt run flowers\.toml"
    ):
        named("flowers.toml", url).snapshot()


# Confirmations of another search


def test_the_confirmation_of_a_deleted_search_is_not_that_of_the_next(url: str) -> None:
    confirmation(url, search(url))
    optuna.delete_study(study_name="planted", storage=url)
    again = search(url)
    again.add_trial(optuna.create_trial(value=0.75, user_attrs={attributes.POINT: POINT.as_dict()}))
    session = named("planted", url)

    with pytest.raises(StudyChanged, match=r"tlopt delete planted\.confirm"):
        session.confirmation()
    assert session.verdict() is None
    assert "note: planted.confirm confirms another search" in " ".join(
        invoke("status", "planted", "--storage", url).split()
    )


def test_a_search_is_refused_at_its_start_where_an_older_confirmation_has_its_name(
    url: str, tmp_path: Path
) -> None:
    confirmation(url, search(url))
    optuna.delete_study(study_name="planted", storage=url)
    file = tmp_path / "planted.toml"
    file.write_text(TEXT)

    with pytest.raises(StudyChanged, match=r"tlopt delete planted\.confirm"):
        open_session(file, storage_url=url).refuse_foreign_confirmation()


def test_a_confirmation_of_an_earlier_version_goes_on(url: str) -> None:
    old = search(url)
    store = studies.open_storage(url)
    earlier = studies.create_or_open(
        store, STUDY.model_copy(update={"name": "planted.confirm"}), file_text=TEXT, fingerprints={}
    )
    earlier.set_user_attr(
        attributes.CANDIDATES, [{"number": 0, "label": "trial 0", "point": POINT.as_dict()}]
    )

    assert named("planted", url).confirmation().study_name == "planted.confirm"
    assert old.study_name == "planted"


# Deleting


def test_a_study_is_deleted_with_its_confirmation_and_no_other(url: str, tmp_path: Path) -> None:
    confirmation(url, search(url))
    optuna.create_study(study_name="theirs", storage=url)

    said = invoke("delete", "planted", "--yes", "--storage", url, "--runs", tmp_path / "runs")

    assert "deleted planted.confirm (0 trials) and planted (1 trial)" in said
    assert optuna.get_all_study_names(url) == ["theirs"]


def test_a_confirmation_is_deleted_alone_by_its_name(url: str) -> None:
    confirmation(url, search(url))

    invoke("delete", "planted.confirm", "--yes", "--storage", url)

    assert optuna.get_all_study_names(url) == ["planted"]


def test_a_confirmation_whose_search_is_gone_is_deleted_by_the_name_of_either(url: str) -> None:
    confirmation(url, search(url))
    optuna.delete_study(study_name="planted", storage=url)

    invoke("delete", "planted", "--yes", "--storage", url)

    assert optuna.get_all_study_names(url) == []


def test_nothing_is_deleted_without_a_yes(url: str) -> None:
    search(url)

    invoke("delete", "planted", "--storage", url, answer="n\n")

    assert optuna.get_all_study_names(url) == ["planted"]


def test_a_study_of_others_is_not_deleted(url: str) -> None:
    studies.open_storage(url)
    optuna.create_study(study_name="theirs", storage=url)

    with pytest.raises(StorageError, match="was not created by tlopt"):
        invoke("delete", "theirs", "--yes", "--storage", url)


def test_workers_are_named_before_their_study_is_deleted(url: str) -> None:
    search(url)
    store = studies.open_storage(url)
    service = studies.service_of(store)
    me = workers.this_process()
    service.query(
        lambda executor: workers.register(executor, service.engine, me, device="cpu", studies="planted")
    )

    said = invoke("delete", "planted", "--storage", url, answer="n\n")

    assert f"workers that will lose their trials: {me.name}" in said
    assert optuna.get_all_study_names(url) == ["planted"]


# Commands that are printed


def test_a_printed_command_names_the_database_that_was_given(url: str, tmp_path: Path) -> None:
    search(url)
    file = tmp_path / "my flowers.toml"
    file.write_text(TEXT)

    said = invoke("pause", "planted", "--storage", url)

    assert f"continue with: tlopt resume planted --storage {url}" in said
    assert open_session(file, storage_url=url).command("run") == f"tlopt run '{file}' --storage {url}"


# Watching


def test_watching_waits_for_a_study_that_has_not_begun(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    naps = iter([lambda: None, lambda: search(url)])

    def nap(seconds: float) -> None:
        try:
            next(naps)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("tlopt.cli.service.time.sleep", nap)
    shown: list[str] = []

    class Screen:
        def __init__(self, **_: object) -> None:
            pass

        def __enter__(self) -> "Screen":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, renderable: Any, *, refresh: bool) -> None:
            text = Console(file=io.StringIO(), width=200, record=True)
            text.print(renderable)
            shown.append(text.export_text())

    monkeypatch.setattr("rich.live.Live", Screen)
    invoke("status", "planted", "--watch", "--storage", url)

    assert [text.split(":")[0] for text in shown] == ["waiting for planted", "waiting for planted", "planted"]
    assert "1 of 60 trials" in shown[-1]


# Changed images


@pytest.mark.parametrize(
    ("n_train", "fingerprint", "said"),
    [
        (90, "there", "here are 90 train, 20 validation and 10 test images in 2 classes"),
        (80, "there", "80 train, 20 validation and 10 test images in 2 classes (as many: files were"),
        (90, "here", ""),
    ],
)
def test_changed_images_are_told_with_their_numbers(n_train: int, fingerprint: str, said: str) -> None:
    stored = {"n_train": 80, "n_val": 20, "n_test": 10, "n_classes": 2}
    attrs = {attributes.IMAGES: stored, attributes.PREFIX + "data": fingerprint}
    session: Any = SimpleNamespace(optuna_study=lambda: SimpleNamespace(user_attrs=attrs))
    split = SimpleNamespace(train=range(n_train), val=range(20))
    counts = {"n_trial_splits": 1, "n_confirm_splits": 0, "n_test": 10}
    data = SimpleNamespace(splits=[split], class_names=("a", "b"), **counts)
    workspace: Any = SimpleNamespace(data=data, fingerprints={"data": "here"})

    told = workflow._counts_that_differ(session, workspace)

    assert said in told
    assert bool(told) is bool(said)


def test_the_files_of_a_renamed_studys_confirmation_stay_where_they_are(url: str, tmp_path: Path) -> None:
    confirmation(url, search(url))
    rename(url, "planted", "renamed")

    session = open_session("renamed", storage_url=url, runs=tmp_path)

    assert session.weights_file(3, 1) == tmp_path / "planted.confirm/weights/candidate3-seed1.safetensors"
    assert session.folders.logs == tmp_path / "renamed" / "trials"
