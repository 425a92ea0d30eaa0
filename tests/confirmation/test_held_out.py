"""The test split is evaluated with the confirmation's networks, retrained bit for bit if they are lost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from finished import make_row, make_verdict

from tlopt.confirmation import held_out as reader
from tlopt.confirmation.held_out import read_test, record_validation, train_on_all, trained
from tlopt.confirmation.predictions import Predictions, Source, predictions_file
from tlopt.data.load import test_split as held_out_images
from tlopt.search.defaults import defaults
from tlopt.search.plan import confirm_plan, confirm_seed
from tlopt.search.race import Candidate, Race
from tlopt.training.loop import predict_logits
from tlopt.trial.history import history_file
from tlopt.worker.objective import run_trial


@pytest.fixture
def weights_file(tmp_path: Path) -> Callable[[int, int], Path]:
    return lambda number, replicate: tmp_path / f"{number}-{replicate}.safetensors"


@pytest.fixture
def candidate(workshop: tiny.Workshop) -> Candidate:
    point = defaults(workshop.workspace.study, workshop.facts)[1].point
    return Candidate(12, "trial 12", replace(point, epochs=1, mixup=0.2, head_layers=1, head_dropout=0.5))


@pytest.fixture
def confirmed(
    workshop: tiny.Workshop, candidate: Candidate, weights_file: Callable[[int, int], Path], tmp_path: Path
) -> None:
    """One run of the confirmation, of replicate 1, with its weights on this machine."""
    import optuna

    race = Race(candidates=(candidate,), seeds=3, direction="maximize")
    plan = confirm_plan(workshop.workspace.study, race, lambda _: 0, weights_file)
    task = plan.draw(optuna.trial.FixedTrial({"candidate": 12, "replicate": 1}))
    run_trial(optuna.create_study().ask(), task, workshop.workspace, context=tiny.context())


def logits(workshop: tiny.Workshop, candidate: Candidate, file: Path) -> np.ndarray:
    study, workspace = workshop.workspace.study, workshop.workspace
    run = trained(workspace, candidate.point, confirm_seed(study, 1), 1, file)
    return predict_logits(run, workspace.images(candidate.point), np.arange(len(workspace.data.labels)))


@pytest.mark.usefixtures("confirmed")
def test_a_network_whose_weights_are_lost_is_trained_again_to_the_same_bits(
    workshop: tiny.Workshop, candidate: Candidate, weights_file: Callable[[int, int], Path]
) -> None:
    kept, lost = weights_file(12, 1), weights_file(99, 1)

    from_file, again = logits(workshop, candidate, kept), logits(workshop, candidate, lost)

    assert np.array_equal(from_file, again)
    assert lost.exists()
    assert history_file(lost).read_text() == history_file(kept).read_text()


@pytest.mark.usefixtures("confirmed")
def test_a_network_whose_weights_are_here_is_not_trained_again(
    workshop: tiny.Workshop,
    candidate: Candidate,
    weights_file: Callable[[int, int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "train_epochs", None)

    assert logits(workshop, candidate, weights_file(12, 1)).shape[1] == 3


@pytest.mark.usefixtures("confirmed")
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_network_whose_file_is_damaged_is_trained_again_and_said(
    workshop: tiny.Workshop,
    candidate: Candidate,
    weights_file: Callable[[int, int], Path],
    caplog: pytest.LogCaptureFixture,
    suffix: str,
) -> None:
    file = weights_file(12, 1)
    whole = logits(workshop, candidate, file)
    damaged = file.with_suffix(suffix)
    damaged.write_bytes(damaged.read_bytes()[:20])

    again = logits(workshop, candidate, file)

    assert np.array_equal(whole, again)
    assert "is damaged" in caplog.text
    assert f"with {torch.get_num_threads()} CPU thread" in caplog.text


@pytest.mark.usefixtures("confirmed")
def test_the_exported_network_s_validation_predictions_are_written_once_beside_its_weights(
    workshop: tiny.Workshop,
    candidate: Candidate,
    weights_file: Callable[[int, int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workspace = workshop.workspace
    row = make_row("trial 12", (0.4, 0.6), point=candidate.point)
    verdict = make_verdict([replace(row, seeds=(0, confirm_seed(workspace.study, 1)))])

    record_validation(workspace, verdict, weights_file)

    found = Predictions.read(predictions_file(weights_file(12, 1), "val"))
    val = workspace.data.splits[1 % len(workspace.data.splits)].val
    assert found.source == Source.of(
        candidate.point, confirm_seed(workspace.study, 1), workspace.fingerprints
    )
    assert np.array_equal(found.labels, workspace.data.labels[val])
    assert len(found.files) == len(val)
    assert not any(Path(name).is_absolute() for name in found.files)
    assert len(found.thumbnails) == min(12, int((found.labels != found.predicted).sum()))
    monkeypatch.setattr(reader, "trained", None)
    record_validation(workspace, verdict, weights_file)  # reads no network any more


def test_every_row_is_measured_on_the_held_out_images_with_every_seed(
    workshop: tiny.Workshop, candidate: Candidate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked, held_out = [], held_out_images(workshop.workspace.study.data, seed=workshop.workspace.study.seed)

    def all_wrong(network: object, *_: object) -> np.ndarray:
        right = np.eye(3, dtype=np.float32)[held_out.labels]
        return right if network == ("seed 0", tmp_path / "12/0") else -right

    def remember(workspace: object, point: object, seed: int, replicate: int, file: Path) -> object:
        asked.append((point == candidate.point, seed, replicate))
        return SimpleNamespace(network=(f"seed {replicate}", file))

    monkeypatch.setattr(reader, "trained", remember)
    monkeypatch.setattr(reader, "exported_logits", all_wrong)
    row = make_row("trial 12", (0.5, 0.5), point=candidate.point)

    said = read_test(workshop.workspace, [row], lambda number, replicate: tmp_path / f"{number}/{replicate}")

    assert asked == [(True, row.seeds[0], 0), (True, row.seeds[1], 1)]
    assert [metrics["accuracy"] for metrics in said[12]] == [1.0, 0.0]
    written = [Predictions.read(tmp_path / "12" / f"{replicate}.test.npz") for replicate in (0, 1)]
    assert [(each.labels == each.predicted).all() for each in written] == [True, False]
    assert {each.split for each in written} == {"test"}


def test_no_image_of_the_search_is_held_out(workshop: tiny.Workshop) -> None:
    held_out = held_out_images(workshop.workspace.study.data, seed=workshop.workspace.study.seed)

    seen = {image.digest for image in workshop.workspace.data.images}
    assert len(held_out.images) == workshop.workspace.data.n_test > 0
    assert seen.isdisjoint(image.digest for image in held_out.images)


def test_the_final_training_sees_training_and_validation_images(
    workshop: tiny.Workshop, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(reader, "train_epochs", lambda *arguments: given.append(arguments[2:]))

    run, _ = train_on_all(workshop.workspace, candidate.point)

    ((train, val),) = given
    assert train.tolist() == list(range(len(workshop.workspace.data.labels)))
    assert val is None
    assert isinstance(run.network, torch.nn.Module)
