"""A soup or an ensemble is an export like any other, with numbers of its own."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from finished import make_contents, make_point, make_row, make_verdict, planted, save_untrained
from safetensors.torch import load_file, save_file

import tlopt
from tlopt.app.compact.combine import summary
from tlopt.app.compact.cost import costs_of
from tlopt.app.compact.prune import PruneRequest, prune
from tlopt.confirmation import held_out as reader
from tlopt.confirmation.combined import Addition, Combined, Member
from tlopt.confirmation.combining import CombinedNetwork
from tlopt.confirmation.predictions import Predictions
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import DataError, SpecError
from tlopt.exports import result as results
from tlopt.exports.card import ExportContents
from tlopt.exports.combine import known_test, measure
from tlopt.exports.onnx import write_onnx
from tlopt.exports.predict import predict
from tlopt.exports.read import Export, inference_cost, load_module, load_network, read_export
from tlopt.exports.write import write_export
from tlopt.model.ensemble import Ensemble, joined
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import PruneGoal

CPU = torch.device("cpu")
BACKBONES = ("resnet18", "mobilenet_v3_small")
VAL, TEST = {"accuracy": 0.9412, "log_loss": 0.2}, {"accuracy": 0.9333, "log_loss": 0.3}


def member(replicate: int, point: Point, *, number: int = 12) -> Member:
    return Member(
        number=number, label=f"trial {number}", replicate=replicate, seed=11, point=point, value=0.9
    )


def combined_contents(combined: Combined) -> ExportContents:
    contents = make_contents(planted())
    trained = replace(contents.trained, train_loss=(), val={})
    return replace(contents, trained=trained, combined=combined)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """An ensemble of untrained networks of two backbones. Not to be changed."""
    folder = tmp_path_factory.mktemp("ensemble")
    points = [make_point(backbone) for backbone in BACKBONES]
    files = [save_untrained(point, folder / point.backbone, n_classes=3) for point in points]
    save_file(joined([load_file(file) for file in files]), folder / "both")
    found = Combined(
        kind="ensemble", members=tuple(member(i, p) for i, p in enumerate(points)), val=VAL, test=TEST
    )
    contents = combined_contents(found)
    return read_export(write_export(folder / "x", contents, weights_file=folder / "both", overwrite=False))


@pytest.fixture(scope="module")
def singles(ensemble: Export) -> list[torch.nn.Module]:
    """The networks of the ensemble, each from its own file."""
    found = []
    for backbone in BACKBONES:
        blank = make_contents(planted(make_point(backbone)))
        file = ensemble.folder.parent / backbone
        to = ensemble.folder.parent / f"{backbone}-export"
        written = write_export(to, blank, weights_file=file, overwrite=False)
        found.append(load_network(read_export(written), CPU).net)
    return found


def images(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(2).standard_normal((n, 3, 32, 32), dtype=np.float32))


@torch.inference_mode()
def mean_of(nets: list[torch.nn.Module], n: int) -> torch.Tensor:
    return torch.stack([net(images(n)).softmax(1) for net in nets]).mean(0)


def test_an_ensemble_read_back_has_the_mean_of_its_networks_probabilities(
    ensemble: Export, singles: list[torch.nn.Module]
) -> None:
    with torch.inference_mode():
        found = load_module(ensemble, CPU)(images(3)).softmax(1)

    torch.testing.assert_close(found, mean_of(singles, 3))
    assert [point.backbone for point in ensemble.members] == list(BACKBONES)


@pytest.fixture(scope="module")
def onnx_file(ensemble: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    return write_onnx(ensemble, tmp_path_factory.mktemp("onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3])
def test_its_onnx_file_and_its_program_give_the_same_for_any_batch(
    n: int, ensemble: Export, singles: list[torch.nn.Module], onnx_file: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])

    (logits,) = session.run(["logits"], {"pixels": images(n).numpy()})
    program = torch.export.load(ensemble.folder / "model.pt2").module()
    with torch.inference_mode():
        of_program = program(images(n)).softmax(1)

    torch.testing.assert_close(torch.from_numpy(logits).softmax(1), mean_of(singles, n), rtol=0, atol=1e-5)
    torch.testing.assert_close(of_program, mean_of(singles, n), rtol=0, atol=1e-6)


def test_predict_and_load_model_answer_alike(ensemble: Export, image_folder: Path) -> None:
    files = sorted((image_folder / "red").iterdir())[:3]
    classifier = tlopt.load_model(ensemble.folder, device="cpu")

    expected = [(row.label, row.probability) for row in predict(ensemble, files, CPU)]

    found = classifier.classify(files)
    assert [label for label, _ in found] == [label for label, _ in expected]
    assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-6)
    assert isinstance(classifier.net, Ensemble)
    assert repr(classifier).startswith("<Classifier 2 x resnet18: 32 px, 3 classes")


def test_its_cost_is_that_of_its_networks_together(ensemble: Export, singles: list[torch.nn.Module]) -> None:
    alone = [inference_cost(read_export(ensemble.folder.parent / f"{name}-export")) for name in BACKBONES]

    (row,) = costs_of([str(ensemble.folder)]).rows

    assert row.cost.parameters == sum(each.parameters for each in alone)
    assert row.cost.multiply_adds == sum(each.multiply_adds for each in alone)
    assert row.cost.weights_bytes == (ensemble.folder / "weights.safetensors").stat().st_size


def test_earlier_versions_refuse_an_ensemble_by_its_format_and_read_a_soup(
    ensemble: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    soup = Combined(kind="soup", members=(member(0, make_point()), member(1, make_point())), val=VAL)
    weights = save_untrained(make_point(), tmp_path / "w", n_classes=3)
    folder = write_export(tmp_path / "s", combined_contents(soup), weights_file=weights, overwrite=False)
    monkeypatch.setattr(results, "FORMAT_ENSEMBLE", 3)  # as 0.2 has it

    with pytest.raises(DataError, match=r"format 4 is unknown; this tlopt reads 1 to 3; upgrade tlopt"):
        results.read_result(ensemble.folder)
    assert results.read_result(folder)["format"] == 1


@pytest.mark.parametrize("damage", [{"members": []}, {}, {"members": [{"point": None}]}])
def test_a_damaged_ensemble_is_refused_in_words(damage: Any, ensemble: Export, tmp_path: Path) -> None:
    for file in ensemble.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    result = json.loads((tmp_path / "result.json").read_text()) | {"combined": damage}
    (tmp_path / "result.json").write_text(json.dumps(result))

    with pytest.raises((DataError, tlopt.errors.StorageError), match=re.escape(str(tmp_path))):
        read_export(tmp_path)


def test_what_takes_a_single_network_refuses_an_ensemble(ensemble: Export) -> None:
    goal = PruneGoal(
        quantity="parameters", share=0.5, criterion="l1", scope="uniform", n_rounds=1, loss_max=1.0
    )

    with pytest.raises(SpecError, match="is an ensemble of 2 networks, and this takes a single one"):
        load_network(ensemble, CPU)
    with pytest.raises(SpecError, match="is an ensemble, and tlopt prune takes one network"):
        next(prune(PruneRequest(folder=ensemble.folder), goal))


SOUP = Combined(
    kind="soup",
    members=(member(0, make_point()), member(2, make_point(), number=-1)),
    additions=(
        Addition(member=member(0, make_point()), value=0.93, kept=True),
        Addition(member=member(1, make_point()), value=0.91, kept=False),
        Addition(member=member(2, make_point(), number=-1), value=0.9412, kept=True),
    ),
    left_out=("trial 7, seed 1 of the confirmation: it was trained at 64 pixels, not at 32",),
    val=VAL,
    test=TEST,
)


def card_of(combined: Combined, tmp_path: Path) -> str:
    weights = save_untrained(make_point(), tmp_path / "w", n_classes=3)
    folder = write_export(tmp_path / "x", combined_contents(combined), weights_file=weights, overwrite=False)
    return (folder / "README.md").read_text()


def test_the_card_of_a_soup_has_its_own_numbers_and_every_run_that_was_tried(tmp_path: Path) -> None:
    card = card_of(SOUP, tmp_path)

    assert "the mean of the weights of 2 networks resnet18" in card
    assert "accuracy **93.3 %** (one measurement, 30 images); single networks of trial 12: 91.0 ±" in card
    assert "| → trial 12, seed 1 of the confirmation | 90.0 % | 93.0 % |" in card
    assert "| trial 12, seed 2 of the confirmation | 90.0 % | 91.0 % |" in card
    assert "| → trial -1, seed 3 of the confirmation | 90.0 % | 94.1 % |" in card
    assert "- trial 7, seed 1 of the confirmation: it was trained at 64 pixels, not at 32" in card
    assert "Validation accuracy of the whole: 94.1 %" in card
    assert "one of seed" not in card


def test_the_card_of_an_ensemble_has_the_code_that_runs_it(ensemble: Export) -> None:
    card = (ensemble.folder / "README.md").read_text()

    assert 'torch.export.load("model.pt2")' in card
    assert "the mean of the probabilities of 2 networks resnet18 and mobilenet_v3_small" in card


def test_a_soup_of_one_run_says_that_it_is_that_run(tmp_path: Path) -> None:
    alone = replace(SOUP, members=SOUP.members[:1])

    card = card_of(alone, tmp_path)

    assert "the network resnet18 of one run" in card
    assert "No mean was as good on validation, so this is the network of the first run." in card
    assert summary(alone, "accuracy") == (
        "soup of 1 of 3 runs: accuracy 94.1 % on validation, 93.3 % on test; no mean was as good on"
        " validation, so it is the network that is exported alone"
    )


def test_the_result_has_members_steps_and_numbers(ensemble: Export) -> None:
    found = json.loads((ensemble.folder / "result.json").read_text())

    assert found["format"] == 4
    assert found["combined"]["kind"] == "ensemble"
    assert [each["point"]["backbone"] for each in found["combined"]["members"]] == list(BACKBONES)
    assert (found["combined"]["val"], found["combined"]["test"]) == (VAL, TEST)


@pytest.fixture
def network(workshop: tiny.Workshop) -> CombinedNetwork:
    """A soup of two runs that are not there, with the network of an untrained one."""
    workspace = workshop.workspace
    point = make_point("mobilenet_v3_small")
    split = workspace.data.splits[0]
    net = workspace.start_run(point, seed=11, train=split.train).network.net
    members = (member(0, point), member(1, point))
    return CombinedNetwork(combined=Combined(kind="soup", members=members), net=net, val=split.val)


def test_it_is_measured_on_validation_and_once_on_test_images(
    workshop: tiny.Workshop,
    network: CombinedNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def file(number: int, replicate: int) -> Path:
        return tmp_path / f"{number}-{replicate}.safetensors"

    found = measure(workshop.workspace, network, file, None)
    monkeypatch.setattr(reader, "test_split", None)
    again = measure(workshop.workspace, network, file, found.combined.test)

    assert len(found.predictions.labels) == workshop.workspace.data.n_test  # type: ignore[union-attr]
    right = found.predictions.labels == found.predictions.predicted  # type: ignore[union-attr]
    assert found.combined.test["accuracy"] == pytest.approx(float(right.mean()))
    assert set(found.combined.val) == set(found.combined.test)
    assert again.combined == found.combined
    assert np.array_equal(again.predictions.predicted, found.predictions.predicted)  # type: ignore[union-attr]
    (kept,) = tmp_path.glob("soup-*.test.npz")
    assert Predictions.read(kept).source.point["kind"] == "soup"


def test_networks_of_several_splits_have_no_validation_result(
    workshop: tiny.Workshop, network: CombinedNetwork, tmp_path: Path
) -> None:
    found = measure(
        workshop.workspace, replace(network, val=network.val[:0]), lambda *_: tmp_path / "x", TEST
    )

    assert found.combined.val == {}
    assert found.trained.confusion is None


@pytest.mark.parametrize(
    ("combined", "known"),
    [(SOUP, None), (replace(SOUP, members=SOUP.members[:1]), {"accuracy": 0.90, "log_loss": 0.1})],
    ids=["two runs", "one run"],
)
def test_test_images_are_not_read_again_for_a_soup_of_one_run(combined: Combined, known: Any) -> None:
    verdict: Verdict = make_verdict([make_row("trial 12", (0.93, 0.92), (0.90, 0.91))])

    found = known_test(verdict, combined, None)

    assert (found is None) if known is None else found == pytest.approx(known)
