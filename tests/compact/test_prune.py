"""Pruning reaches its goal in rounds, stops at its bound, and leaves an export that works like any other."""

import json
import re
import shutil
import sys
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import SEEDS
from PIL import Image
from trained_export import write_trained
from typer.testing import CliRunner

import tlopt
from tlopt.cli.main import app
from tlopt.compact import prune as compact
from tlopt.compact.prune import (
    Pruning,
    PruningRound,
    Recipe,
    begin_pruning,
    prune,
    pruning_events,
)
from tlopt.data.training_set import some_images
from tlopt.errors import DataError, Diverged, NotReady, SpecError
from tlopt.exports.read import inference_cost, load_network, read_export, whole_cost
from tlopt.exports.result import read_result
from tlopt.model.families.table import as_network, library_module
from tlopt.model.network import Network
from tlopt.spec.point import Point, seed_for
from tlopt.spec.trial_spec import Criterion, PruneGoal, Quantity
from tlopt.training.loop import train_epochs
from tlopt.trial.workspace import Workspace


def goal(share: float, *, quantity: Quantity = "parameters", loss_max: float = 1.0, **more: Any) -> PruneGoal:
    return PruneGoal(quantity=quantity, share=share, loss_max=loss_max, **more)


def rounds_of(network: Network, recipe: Recipe, wanted: PruneGoal) -> list[PruningRound]:
    return [event for event in prune(network, recipe, wanted) if isinstance(event, PruningRound)]


def ended(pruning: Pruning) -> Pruning:
    """The pruning after all of its events."""
    deque(pruning_events(pruning), maxlen=0)
    return pruning


@pytest.mark.parametrize("criterion", ["l1", "batch_norm", "taylor", "history"])
def test_each_criterion_reaches_the_goal_in_rounds(
    criterion: Criterion, network: Network, recipe: Recipe
) -> None:
    before = {name: tensor.clone() for name, tensor in network.net.state_dict().items()}

    start, first, last = rounds_of(network, recipe, goal(0.49, criterion=criterion, n_rounds=2))

    shares = [each.cost.parameters / start.cost.parameters for each in (first, last)]
    assert 0.66 < shares[0] <= 0.7
    assert 0.46 < shares[1] <= 0.49
    assert all(torch.equal(before[name], tensor) for name, tensor in network.net.state_dict().items())


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_multiply_adds_are_a_goal_too(scope: Any, network: Network, recipe: Recipe) -> None:
    start, last = rounds_of(network, recipe, goal(0.5, quantity="multiply_adds", scope=scope, n_rounds=1))

    assert 0.45 < last.cost.multiply_adds / start.cost.multiply_adds <= 0.5


def test_the_same_seed_gives_the_same_network(network: Network, recipe: Recipe) -> None:
    one, other = (ended(begin_pruning(network, recipe, goal(0.6, n_rounds=1))).network for _ in range(2))

    state = other.net.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in one.net.state_dict().items())


def test_rounds_train_on_the_images_of_the_run_that_is_pruned(network: Network, recipe: Recipe) -> None:
    labels, n = recipe.images.labels, len(recipe.train) // 2
    drawn = some_images(recipe.train, labels, n, seed=seed_for(recipe.seed, "train_images"))
    some = replace(recipe, point=replace(recipe.point, train_images=n))
    given = replace(recipe, train=drawn)

    one, other = (ended(begin_pruning(network, each, goal(0.5, n_rounds=2))) for each in (some, given))

    expected = other.network.net.state_dict()
    assert all(torch.equal(each, expected[name]) for name, each in one.network.net.state_dict().items())


def test_pruning_ends_after_the_round_that_loses_too_much(
    network: Network, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.9, 0.88, 0.879, 0.5])
    measure = compact.compute_metrics

    def planted(*given: Any) -> Any:
        return replace(measure(*given), accuracy=next(accuracies))

    monkeypatch.setattr(compact, "compute_metrics", planted)

    rounds = rounds_of(network, recipe, goal(0.5, n_rounds=4, loss_max=0.02))

    assert [(each.index, each.within) for each in rounds] == [(0, True), (1, True), (2, False)]


@pytest.mark.slow
def test_a_training_that_diverges_leaves_the_rounds_before_it(
    export_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, n_trained = compact.steps, iter(range(9))

    def planted(*given: Any) -> Any:
        if next(n_trained) == 1:
            raise Diverged("epoch 1: the mean training loss is nan")
        return real(*given)

    monkeypatch.setattr(compact, "steps", planted)
    options = ["--parameters", "0.5", "--rounds", "2", "--epochs", "1", "--loss-max", "100"]
    out = tmp_path / "out"

    shown = CliRunner().invoke(app, ["prune", str(export_folder), str(out), *options, "--device", "cpu"])

    assert shown.exit_code == 0, shown.output
    assert "the goal was not reached: the network of round 1 was kept" in shown.stdout
    assert [row["kept"] for row in read_result(out)["pruned"]["rounds"]] == [False, True]
    assert "The goal was not reached" in (out / "README.md").read_text()


def test_a_goal_out_of_reach_is_refused_with_what_is_possible(network: Network, recipe: Recipe) -> None:
    with pytest.raises(SpecError, match=r"parameters cannot fall to [\d,]+: all that may be removed leaves"):
        rounds_of(network, recipe, goal(0.0001, n_rounds=1))


def test_a_network_that_is_split_at_fixed_places_is_refused(recipe: Recipe) -> None:
    pytest.importorskip("timm")
    mixed = as_network(library_module("timm:mixnet_s"), "timm:mixnet_s")  # splits channels by kernel size

    with pytest.raises(SpecError, match="fixed places"):
        rounds_of(mixed.eval(), recipe, goal(0.5, quantity="multiply_adds", n_rounds=1))


def test_a_network_whose_smaller_version_computes_something_else_is_refused(
    network: Network, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: Network, removed: Any) -> Network:
        twin = compact_without(network, removed)
        if next(twin.parameters()).device.type != "meta":
            torch.nn.init.ones_(twin.net.get_parameter("classifier.3.bias"))
        return twin

    compact_without = compact.without
    monkeypatch.setattr(compact, "without", wrong)

    with pytest.raises(SpecError, match="cannot be pruned"):
        rounds_of(network, recipe, goal(0.5, n_rounds=1))


# The command


@pytest.fixture(scope="module")
def pruned_folder(export_folder: Path) -> Path:
    """What the command makes of the export. Not to be changed."""
    options = [
        "--parameters",
        "0.5",
        "--rounds",
        "2",
        "--epochs",
        "1",
        "--loss-max",
        "100",
        "--device",
        "cpu",
    ]

    shown = CliRunner().invoke(app, ["prune", str(export_folder), *options])

    assert shown.exit_code == 0, shown.output
    assert "round 2 of 2: " in shown.stdout
    return export_folder.with_name("stripes-compact")


def pixels(folder: Path) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "image.jpg")
    return folder / "image.jpg"


def test_the_smaller_export_works_like_any_other(pruned_folder: Path, export_folder: Path) -> None:
    export = read_export(pruned_folder)
    classifier = tlopt.load_model(pruned_folder, device="cpu")
    whole, smaller = inference_cost(read_export(export_folder)), inference_cost(export)
    image = pixels(pruned_folder)
    (found,) = tlopt.predict(pruned_folder, [image], device="cpu")

    assert export.is_compact
    assert 0.46 < smaller.parameters / whole.parameters <= 0.5
    assert smaller.weights_bytes < 0.6 * whole.weights_bytes
    assert sum(p.numel() for p in classifier.parameters()) == smaller.parameters
    assert found.label == classifier.classify([image])[0][0]


def test_its_result_and_card_account_for_the_pruning(pruned_folder: Path) -> None:
    result, card = read_result(pruned_folder), (pruned_folder / "README.md").read_text()

    assert (result["format"], result["pruned"]["criterion"], result["pruned"]["share"]) == (3, "taylor", 0.5)
    assert [row["kept"] for row in result["pruned"]["rounds"]] == [False, False, True]
    assert result["network"]["parameters"] == result["pruned"]["rounds"][2]["parameters"]
    assert f"It has {result['network']['parameters']:,} parameters" in card
    assert "The test images were not used" in card
    assert "`tlopt train config.toml ../trained`" in card
    assert 'torch.export.load("model.pt2")' in card


def test_its_card_compares_its_costs_with_those_of_the_network_before(
    pruned_folder: Path, export_folder: Path
) -> None:
    before, here = read_result(pruned_folder)["costs"]
    card = (pruned_folder / "README.md").read_text()

    assert (before["network"], here["network"]) == ("before", "here")
    assert before.items() >= asdict(inference_cost(read_export(export_folder))).items()
    assert here.items() >= asdict(inference_cost(read_export(pruned_folder))).items()
    assert before["latency_ratio"] == 1
    assert here["latency_ms"] > 0
    quotient = before["parameters"] / here["parameters"]
    assert f"| this network | {here['parameters']:,} (÷ {quotient:.2f}) | {here['multiply_adds']:,} (" in card


def test_its_program_gives_the_same_logits_without_tlopt(
    pruned_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pixels(pruned_folder)
    classifier = tlopt.load_model(pruned_folder, device="cpu")
    (block,) = re.findall(r"```python\n(.*?)```", (pruned_folder / "README.md").read_text(), flags=re.DOTALL)
    assert "tlopt" not in block
    monkeypatch.chdir(pruned_folder)
    monkeypatch.syspath_prepend(str(pruned_folder))
    monkeypatch.delitem(sys.modules, "image_rgb", raising=False)
    names: dict[str, Any] = {}
    exec(block, names)

    with torch.inference_mode():
        expected = classifier(classifier.transform(image).unsqueeze(0))[0]
    torch.testing.assert_close(names["logits"], expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_shortened_network_is_pruned_like_any_other(
    workspace: Workspace, point: Point, study_file: str, tmp_path: Path
) -> None:
    short = replace(
        point,
        backbone_depth=6,
        neck_layers=1,
        neck_width=32,
        transfer_depth=6,
        anchor_depth=6,
        freeze_depth=6,
    )
    split = workspace.data.splits[0]
    run = workspace.start_run(short, seed=SEEDS[0], train=split.train)
    epochs = list(train_epochs(run, workspace.images(short), split.train, split.val))
    folder = write_trained(workspace, run, epochs, study_file, tmp_path)

    options = ("--multiply-adds", "0.6", "--rounds", "1", "--epochs", "1", "--loss-max", "100")
    shown = CliRunner().invoke(app, ["prune", str(folder), *options])

    assert shown.exit_code == 0, shown.output
    smaller = read_export(tmp_path / "stripes-compact")
    left, before = inference_cost(smaller), inference_cost(read_export(folder))
    assert left.multiply_adds <= 0.6 * before.multiply_adds
    assert smaller.point.neck_layers == 1
    whole, *_, here = read_result(smaller.folder)["costs"]
    assert whole.items() >= asdict(whole_cost(smaller)).items()
    assert here["parameters"] < before.parameters < whole["parameters"]
    image = pixels(smaller.folder)
    classifier = tlopt.load_model(smaller.folder, device="cpu")
    (found,) = tlopt.predict(smaller.folder, [image], device="cpu")
    assert found.label == classifier.classify([image])[0][0]


@pytest.mark.slow
def test_it_is_written_as_onnx_like_any_other(pruned_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from tlopt.exports.onnx import write_onnx

    export = read_export(pruned_folder)
    file = write_onnx(export, tmp_path)
    views = np.random.default_rng(2).standard_normal((3, 3, 32, 32), dtype=np.float32)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": views})

    with torch.inference_mode():
        expected = load_network(export, torch.device("cpu"))(torch.from_numpy(views)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_what_cannot_be_pruned_is_refused_in_words(
    export_folder: Path, pruned_folder: Path, tmp_path: Path
) -> None:
    def refused(kind: type[Exception], folder: Path, *options: str) -> str:
        shown = CliRunner().invoke(app, ["prune", str(folder), str(tmp_path / "out"), *options])
        assert isinstance(shown.exception, kind), shown.output
        return str(shown.exception)

    half = ("--parameters", "0.5", "--device", "cpu")
    assert "is pruned already" in refused(SpecError, pruned_folder, *half)
    assert "--parameters or --multiply-adds" in refused(SpecError, export_folder)
    assert "--parameters 1.5: expected a share between 0 and 1" in refused(
        SpecError, export_folder, "--parameters", "1.5"
    )

    again = tmp_path / "again"
    shutil.copytree(export_folder, again)
    result = json.loads((again / "result.json").read_text())
    (again / "result.json").write_text(json.dumps({**result, "network": {"seed": 99}}))
    assert "trained on the validation images, too" in refused(SpecError, again, *half)
    data = {**result["data"], "fingerprint": "0" * 16}
    (again / "result.json").write_text(json.dumps({**result, "data": data}))
    assert "the images are not those" in refused(DataError, again, *half)
    linear = {**result["point"], "classifier": "logistic"}
    (again / "result.json").write_text(json.dumps({**result, "point": linear}))
    assert "fitted on features" in refused(SpecError, again, *half)


def test_nothing_is_written_if_the_first_round_loses_too_much(
    export_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.9, 0.1])
    measure = compact.compute_metrics
    monkeypatch.setattr(
        compact, "compute_metrics", lambda *given: replace(measure(*given), accuracy=next(accuracies))
    )
    options = ["--parameters", "0.5", "--epochs", "1", "--device", "cpu"]

    shown = CliRunner().invoke(app, ["prune", str(export_folder), str(tmp_path / "out"), *options])

    assert isinstance(shown.exception, NotReady)
    assert "(90.0 % before, 10.0 % after)" in str(shown.exception)
    assert not (tmp_path / "out").exists()


def test_costs_and_prunings_are_functions_too(
    export_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, Any]] = []
    monkeypatch.setattr("tlopt.app.compact.prune.prune", lambda *given: iter([asked.append(given)]))

    counted = tlopt.cost(export_folder, "resnet18", resolution=64)
    written = tlopt.prune(export_folder, parameters=0.5, n_rounds=2, loss_max=5, epochs=1)
    tlopt.prune(export_folder, tmp_path, multiply_adds=0.4, criterion="l1", scope="global")

    assert [row.resolution for row in counted.rows] == [32, 64]
    assert counted.rows[0].cost.parameters == inference_cost(read_export(export_folder)).parameters
    assert written == export_folder.with_name("stripes-compact")
    (request, first), (other, second) = asked
    assert (request.folder, request.epochs, other.to) == (export_folder, 1, tmp_path)
    assert first == PruneGoal(quantity="parameters", share=0.5, n_rounds=2, loss_max=0.05)
    assert (second.quantity, second.criterion, second.scope) == ("multiply_adds", "l1", "global")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give either parameters or multiply_adds"),
        ({"parameters": 0.5, "multiply_adds": 0.5}, "give either parameters or multiply_adds"),
        ({"parameters": 1.5}, "parameters 1.5: expected a share between 0 and 1"),
        ({"parameters": 0.5, "criterion": "size"}, "criterion 'size': expected one of l1, batch_norm"),
        ({"parameters": 0.5, "n_rounds": 0}, "n_rounds 0: expected at least 1"),
        ({"parameters": 0.5, "loss_max": -1}, "loss_max -1: expected 0 to 100 points"),
    ],
)
def test_wrong_arguments_of_the_function_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=re.escape(said)):
        tlopt.prune("absent", **given)
