"""Studies with errors in their file, images or weights, or unlike the stored study of their name."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from looked import problem, problems, titled
from optuna.storages import BaseStorage, InMemoryStorage

from tlopt import spec
from tlopt.cache.folder import cache_root
from tlopt.doctor.finding import Finding, as_text, guarded
from tlopt.doctor.study import listing_file, study
from tlopt.doctor.weights import megabytes, unfetched
from tlopt.storage import attributes, studies
from tlopt.trial.workspace import Workspace

Text = Callable[..., str]


def look(target: str | Path, store: BaseStorage | None = None) -> list[Finding]:
    return list(guarded("study", study(str(target), store, progress=False)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "stripes.toml"


@pytest.fixture(scope="session")
def quick(study_text: Text) -> Text:
    """`study_text` with the smaller network."""

    def write(**changes: Any) -> str:
        return study_text(**{"backbone": "mobilenet_v3_small", **changes})

    return write


def stored(text: str, **changed: object) -> BaseStorage:
    """A database that has the study of the file `text`, with other fingerprints where some are `changed`."""
    decoded = spec.loads(text, "stripes.toml")
    fingerprints = {
        "semantics": spec.SEMANTICS_VERSION,
        **Workspace.open(decoded, torch.device("cpu")).fingerprints,
        **changed,
    }
    store = InMemoryStorage()
    made = optuna.create_study(storage=store, study_name=decoded.name)
    made.set_user_attr(attributes.STUDY_FILE, text)
    made.set_user_attr(attributes.DIGEST, decoded.digest)
    for name, value in fingerprints.items():
        made.set_user_attr(attributes.PREFIX + name, value)
    return store


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if anything looks up a host."""
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    yield
    assert asked == []


# What is well


@pytest.mark.usefixtures("_offline")
def test_a_study_with_good_images_and_weights_is_ok(file: Path, quick: Text) -> None:
    file.write_text(quick(trials=60))

    found = look(file)

    assert [finding for finding in found if finding.level == "problem"] == []
    assert found[0] == Finding("ok", "study", "stripes, 60 trials of at most 2 epochs")
    assert any("3 classes" in finding.detail for finding in titled(found, "images"))
    assert [finding.level for finding in titled(found, "weights")] == ["ok"]
    assert found[-1].detail == "the ranges fit the networks; there is no database to compare with"


def test_a_study_that_is_not_in_the_database_is_ok(file: Path, quick: Text) -> None:
    file.write_text(quick(name="new"))

    assert look(file, stored(quick()))[-1].detail.endswith(
        "it is not in the database yet; start it with tlopt run"
    )


def test_a_study_that_matches_the_stored_one_is_ok(file: Path, quick: Text) -> None:
    file.write_text(quick(trials=99))  # the budget changes no trial

    last = look(file, stored(quick(trials=4)))[-1]

    assert (last.level, last.title) == ("ok", "study")
    assert last.detail.endswith("are those of the stored study")


def test_a_study_may_be_given_by_its_name_in_the_database(quick: Text) -> None:
    found = look("stripes", stored(quick()))

    assert problems(found) == []
    assert found[-1].detail.endswith("are those of the stored study")


# Files


@pytest.mark.parametrize(
    ("before", "after", "signs"),
    [
        ("lr =", "learning_rate =", ("learning_rate", "lr")),
        ("batch_size = 8", 'batch_size = "eight"', ("batch_size",)),
        ("log = [1e-4, 1e-1]", "log = [1e-1, 1e-4]", ("lr",)),
        ("seed = 7", "seed = ", ("stripes.toml",)),
    ],
)
def test_a_wrong_key_ends_the_check_and_is_named(
    before: str, after: str, signs: tuple[str, ...], file: Path, quick: Text
) -> None:
    assert before in quick()
    file.write_text(quick().replace(before, after))

    (found,) = look(file)

    assert found.level == "problem"
    assert [sign for sign in signs if sign not in found.detail] == []


@pytest.mark.parametrize("target", ["absent.toml", "studies/absent"])
def test_a_file_that_does_not_exist_is_a_problem(target: str) -> None:
    (found,) = look(target)

    assert found.detail == f"{target}: there is no such study file; tlopt init FOLDER writes one"


def test_a_name_needs_a_database() -> None:
    (found,) = look("stripes")

    assert "no database in which a study could have this name" in found.detail


def test_the_problem_of_an_unknown_name_lists_the_studies(quick: Text) -> None:
    (found,) = look("strips", stored(quick()))

    assert "there are: stripes" in found.detail


# Images


def test_an_image_that_cannot_be_decoded_is_named_and_the_weights_are_checked_anyway(
    file: Path, quick: Text, image_folder: Path, tmp_path: Path
) -> None:
    for source in image_folder.rglob("*.png"):
        copy = tmp_path / "images" / source.parent.name / source.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes()[: 60 if source.name == "03.png" else None])
    file.write_text(quick(source=tmp_path / "images"))

    found = look(file)

    assert problem(found).title == "images"
    assert "03.png" in problem(found).detail
    assert "repair or remove them" in problem(found).detail
    assert [finding.level for finding in titled(found, "weights")] == ["ok"]


def test_a_missing_folder_of_images_is_a_problem(file: Path, quick: Text, tmp_path: Path) -> None:
    file.write_text(quick(source=tmp_path / "absent"))

    assert f"{tmp_path}/absent" in problem(look(file)).detail


@pytest.mark.usefixtures("_offline")
def test_an_absent_data_set_is_a_note_and_is_not_downloaded(file: Path, quick: Text) -> None:
    file.write_text(quick(source="torchvision:Flowers102"))

    found = look(file)

    assert problems(found) == []
    (note,) = titled(found, "images")
    assert note.level == "note"
    assert "run tlopt check" in note.cure
    assert str(cache_root() / "torchvision") in note.cure


def test_the_listing_of_a_data_set_has_the_expected_path() -> None:
    from tlopt.data.sources.builtin import list_samples

    list_samples("digits", progress=False)

    assert listing_file("digits").is_file()


# Weights


def test_a_missing_weights_file_is_a_problem_and_the_images_are_checked_anyway(
    file: Path, quick: Text, tmp_path: Path
) -> None:
    file.write_text(quick(weights=f"{tmp_path}/absent.pth"))

    found = look(file)

    assert problem(found) == Finding(
        "problem", "weights", f"{tmp_path}/absent.pth: there is no such weights file"
    )
    assert "ok" in [finding.level for finding in titled(found, "images")]


@pytest.mark.usefixtures("_offline")
def test_absent_weights_are_a_note_with_their_size_and_are_not_downloaded(
    file: Path, quick: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file.write_text(quick(backbone="resnet18", weights="IMAGENET1K_V1"))

    found = look(file)

    assert problems(found) == []
    (note,) = titled(found, "weights")
    # 11,689,512 parameters of 4 bytes
    assert note.detail == (
        "resnet18: resnet18-f37072fd.pth is not on this machine; the first command downloads it, about 47 MB"
    )
    assert 'weights = "path/to/file.pth"' in note.cure


@pytest.mark.usefixtures("_offline")
def test_downloaded_weights_are_read(
    file: Path, quick: Text, weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").symlink_to(weights_folder / "resnet18.pth")
    file.write_text(quick(backbone="resnet18", weights="IMAGENET1K_V1"))

    assert titled(look(file), "weights") == [
        Finding("ok", "weights", "resnet18: IMAGENET1K_V1, at 224 pixels")
    ]


def test_unknown_weights_are_a_problem_that_lists_the_known(file: Path, quick: Text) -> None:
    file.write_text(quick(backbone="resnet18", weights="IMAGENET"))

    assert "IMAGENET1K_V1" in problem(look(file)).detail


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18"])
def test_nothing_is_downloaded_for_no_weights_or_weights_in_a_package(backbone: str) -> None:
    weights = "none" if backbone == "resnet18" else "default"

    assert unfetched(backbone, weights) == ""


def test_weights_of_timm_are_looked_for_in_the_hubs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert unfetched("timm:resnet18", "a1_in1k") == "timm/resnet18.a1_in1k"

    kept = tmp_path / "models--timm--resnet18.a1_in1k"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0a1b")
    (kept / "snapshots" / "0a1b").mkdir(parents=True)
    (kept / "snapshots" / "0a1b" / "model.safetensors").touch()

    assert unfetched("timm:resnet18", "a1_in1k") == ""


def test_the_size_of_weights_is_that_of_their_tensors() -> None:
    # torchvision: 2,542,856 parameters
    assert megabytes("mobilenet_v3_small") == 10


# Ranges, and the stored study


def test_a_depth_beyond_the_network_is_a_problem(file: Path, quick: Text) -> None:
    file.write_text(quick(search="transfer_depth = { int = [0, 99] }"))

    found = problem(look(file))

    assert (found.title, "transfer_depth" in found.detail) == ("study", True)


def test_the_problem_of_a_changed_range_shows_both(file: Path, quick: Text) -> None:
    store = stored(quick())
    file.write_text(quick(search="lr = { log = [1e-4, 5e-2] }"))

    found = problem(look(file, store))

    assert "the file no longer matches the stored study 'stripes': search.lr" in found.detail
    cure, *lines = found.cure.splitlines()
    assert cure == "give this search another name, or restore what changed"
    assert lines[1:] == ['name = "stripes-2"', 'warm_start = "stripes"']
    assert str(as_text(found)).endswith('               warm_start = "stripes"')


@pytest.mark.parametrize(
    ("fact", "value"), [("data", "ffffffffffffffff"), ("weights", "ffffffffffffffff"), ("semantics", 0)]
)
def test_other_images_weights_or_semantics_than_the_stored_are_a_problem(
    fact: str, value: object, file: Path, quick: Text
) -> None:
    store = stored(quick(), **{fact: value})
    file.write_text(quick())

    assert f"{fact}: study has {value}, here is " in problem(look(file, store)).detail


def test_a_foreign_study_is_a_problem(file: Path, quick: Text) -> None:
    store = InMemoryStorage()
    optuna.create_study(storage=store, study_name="stripes").add_trial(optuna.create_trial(value=0.5))
    file.write_text(quick())

    assert "was not created by tlopt" in problem(look(file, store)).detail


def test_nothing_is_written_to_the_stored_study(file: Path, quick: Text) -> None:
    store = stored(quick())
    before = store.get_all_studies()
    file.write_text(quick(trials=99))

    look(file, store)

    assert store.get_all_studies() == before


def test_hours_that_are_over_are_a_note_with_the_cure(file: Path, quick: Text, tmp_path: Path) -> None:
    text = quick().replace("[budget]", "[budget]\nhours = 1.5")
    file.write_text(text)
    decoded, store = spec.loads(text, "x.toml"), studies.open_storage(f"sqlite:///{tmp_path}/tlopt.db")
    fingerprints = Workspace.open(decoded, torch.device("cpu")).fingerprints
    opened = studies.create_or_open(store, decoded, file_text=text, fingerprints=dict(fingerprints))
    opened.set_user_attr(attributes.BEGAN, 1000.0)

    last = look(file, store)[-1]

    assert last.level == "note"
    assert "budget.hours = 1.5 is over, with 0 of" in last.detail
    assert "raise budget.hours" in last.cure
