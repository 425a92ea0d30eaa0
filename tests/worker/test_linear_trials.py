"""Linear classifiers trained by a worker: their checkpoints and the resulting network."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from tlopt.app.deliver import load_model, train
from tlopt.model.linear_head import LinearFit
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import TrialSpec
from tlopt.storage.attributes import TrialRecord
from tlopt.training.checkpoint import apply, pack, unpack
from tlopt.training.loop import predict_logits
from tlopt.trial.execution import begin_training, training_events

ALL = 'classifier = { choice = ["network", "logistic", "svm"] }\nlr = { log = [1e-3, 1e-2] }\nresolution = 32'


@pytest.fixture
def place(
    study_text: Callable[..., str], workshop: tiny.Workshop, tmp_path: Path, request: pytest.FixtureRequest
) -> tiny.Place:
    """A study of four trials on the workshop's images, which are decoded for linear classifiers too."""
    text = tiny.lighter(study_text(name=request.node.name[:80].split("[")[0], trials=4, search=ALL))
    made = tiny.place(text, workshop, tmp_path)
    workspace = dataclasses.replace(made.workspace)
    return dataclasses.replace(made, workspace=workspace)


def point_of(place: tiny.Place, name: str) -> Point:
    return next(
        place.plan.trial_spec(index, params).point
        for index, params in enumerate(place.plan.initial_points([]))
        if params["classifier"] == name
    )


def test_a_worker_fits_each_once_without_pruning_and_records_how(place: tiny.Place) -> None:
    place.work()

    records = {
        row.point["classifier"]: row for row in map(TrialRecord.from_frozen, place.trials) if row.point
    }
    linear = {name: records[name] for name in ("logistic", "svm")}
    assert all((row.outcome, row.last_epoch) == ("complete", 0) for row in linear.values())
    assert linear["logistic"].label == "linear classifier"
    for trial in place.trials:
        fits = trial.user_attrs["tlopt:result"].get("linear", [])
        assert len(fits) == (trial.params["classifier"] != "network")
    assert any("cross-validation" in note for note in linear["svm"].notes)


@pytest.mark.parametrize("name", ["logistic", "svm"])
def test_the_same_seed_gives_the_same_network_and_frozen_blocks_stay(place: tiny.Place, name: str) -> None:
    spec = TrialSpec(point=point_of(place, name), seeds=(3,), splits=(0,), label="", prunable=False)
    runs = []
    for _ in range(2):
        training = begin_training(spec, place.workspace, n_micro_batches=1)
        (epoch,) = list(training_events(training))
        runs.append(training.runs[0])

    one, other = (run.network.net.state_dict() for run in runs)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert isinstance(epoch.linear[0], LinearFit)  # type: ignore[union-attr]


def test_a_checkpoint_of_a_fitted_one_holds_how_it_was_fitted(place: tiny.Place) -> None:
    spec = TrialSpec(point=point_of(place, "svm"), seeds=(3,), splits=(0,), label="", prunable=False)
    done, again = (begin_training(spec, place.workspace, n_micro_batches=1) for _ in range(2))
    list(training_events(done))

    found = unpack(pack(done.runs, done.epochs, identity="one", facts={}), identity="one")
    apply(found, again.runs)

    assert found.epochs[0].linear == done.epochs[0].linear
    assert list(training_events(dataclasses.replace(again, epochs=list(found.epochs)))) == []
    val = place.workspace.data.splits[0].val
    logits = [predict_logits(each.runs[0], each.images, val) for each in (done, again)]
    assert np.array_equal(*logits)


@pytest.mark.slow
def test_an_export_and_its_files_give_the_fitted_logits(
    study_text: Callable[..., str], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "one.toml"
    file.write_text(tiny.lighter(study_text(name="one", search='classifier = "svm"\nresolution = 32')))

    epochs = list(train(file, tmp_path / "out", device="cpu", onnx=True))

    assert len(epochs) == 1
    model = load_model(tmp_path / "out", device="cpu")
    views = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = model(views).numpy()
    assert load_file(next((tmp_path / "out").glob("*.safetensors")))
    session = onnxruntime.InferenceSession(next((tmp_path / "out").glob("*.onnx")))
    (given,) = session.run(None, {session.get_inputs()[0].name: views.numpy()})
    np.testing.assert_allclose(given, logits, atol=1e-3)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `classifier` | svm |" in card
    assert "`lr_ratio`" not in card
