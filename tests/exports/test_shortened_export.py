"""Exports of shortened networks work like any other, with and without tlopt."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import CLASS_NAMES, make_contents, make_point, planted
from PIL import Image
from safetensors.torch import load_file, save_file

from tlopt import spec
from tlopt.app.compact.cost import costs_of
from tlopt.compact.groups import channel_groups, removed_axes
from tlopt.compact.surgery import masked, resized, without
from tlopt.errors import WeightsError
from tlopt.exports.card import model_card
from tlopt.exports.model import load_classifier
from tlopt.exports.onnx import write_onnx
from tlopt.exports.predict import predict
from tlopt.exports.read import Export, inference_cost, load_network, read_export, whole_cost
from tlopt.exports.write import write_export
from tlopt.model.build import build, n_blocks
from tlopt.model.facts import BackboneFacts
from tlopt.model.weights import load_weights
from tlopt.search.fixed_study import only_point
from tlopt.spec.point import Point

Exporter = Callable[[Point, str], Export]
CPU = torch.device("cpu")
SHORT = make_point(
    backbone_depth=3,
    neck_layers=1,
    neck_width=8,
    neck_convolution="separable",
    activation="silu",
    head_layers=1,
    head_width=6,
)
EVERY = [
    SHORT,
    make_point(backbone_depth=5, neck_layers=0),
    make_point("mobilenet_v3_small", backbone_depth=4, neck_layers=2, neck_width=8, activation="tanh"),
    *(
        pytest.param(make_point(name, **changes), marks=pytest.mark.slow)
        for name, changes in {
            "swin_t": {"backbone_depth": 3, "neck_layers": 1, "neck_width": 8, "activation": "gelu"},
            "vit_b_16": {"backbone_depth": 2, "neck_layers": 1, "neck_width": 8, "activation": "elu"},
            "densenet121": {"backbone_depth": 20, "neck_layers": 1, "neck_width": 8},
        }.items()
    ),
]


@pytest.fixture
def short(exporter: Exporter) -> Export:
    """The export of `SHORT`. Not to be changed."""
    return exporter(SHORT, "crop")


def noise() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("at", EVERY, ids=lambda at: at.backbone)
def test_the_network_is_read_back_with_the_logits_that_were_trained(exporter: Exporter, at: Point) -> None:
    export = exporter(at, "crop")
    trained = build(at, n_classes=3, weights=load_weights(at.backbone, "none"), seed=7)
    trained.net.load_state_dict(load_file(export.folder / "weights.safetensors"))
    trained.eval()

    assert export.point == at
    with torch.inference_mode():
        assert torch.equal(load_network(export, CPU)(noise()), trained(noise()))
        assert torch.equal(load_classifier(export.folder, CPU)(noise()), trained(noise()))


@pytest.mark.parametrize("at", EVERY, ids=lambda at: at.backbone)
def test_the_code_of_the_card_needs_torch_alone(
    exporter: Exporter, at: Point, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exporter(at, "crop").folder
    image = tmp_path / "image.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(image)
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    assert "torchvision.models" not in block
    (predicted,) = predict(read_export(folder), [image], CPU)

    code = block.replace('"model.pt2"', repr(str(folder / "model.pt2")))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_bytes((folder / "classes.txt").read_bytes())
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "image_rgb", raising=False)
    names: dict[str, Any] = {}
    exec(code, names)

    assert names["class_names"][names["best"]] == predicted.label
    assert names["logits"].softmax(0).tolist() == pytest.approx(predicted.probabilities, abs=1e-4)


def test_its_config_is_the_same_network(short: Export) -> None:
    config = spec.load(short.folder / "config.toml")
    facts = BackboneFacts(
        n_blocks={"resnet18": n_blocks("resnet18")},
        transferable=False,
        resolution={"resnet18": 32},
        batch_norm={"resnet18": True},
        plain_lr={"resnet18": {"sgd": 0.01, "adamw": 0.001}},
    )

    assert only_point(config, facts) == SHORT


def test_cost_and_card_tell_what_is_left(short: Export) -> None:
    # the first three blocks as in tests/model/test_shortened.py; depthwise, 1×1, hidden layer, logits
    body = 3 * 64 * 49 + 128 + 2 * 2 * (64 * 64 * 9 + 128)
    parameters = body + 64 * 9 + 128 + 64 * 8 + 16 + (8 * 6 + 6) + (6 * 3 + 3)
    multiply_adds = 256 * 3 * 64 * 49 + 64 * 4 * 64 * 64 * 9 + 64 * (64 * 9 + 64 * 8) + 8 * 6 + 6 * 3

    (row,) = costs_of([str(short.folder)]).rows
    card = (short.folder / "README.md").read_text()
    whole = whole_cost(short)

    assert (row.cost.parameters, row.cost.multiply_adds) == (parameters, multiply_adds)
    assert f"It has {parameters:,} parameters, {multiply_adds:,} multiply-adds per image" in card
    assert (whole.parameters, whole.multiply_adds) == (
        11_176_512 + 512 * 6 + 6 + 21,
        37_011_456 + 512 * 6 + 18,
    )
    assert "uses 3 blocks and a neck of 1 layer (separable, 3×3, 8 channels) of the backbone's 9:" in card
    assert f"{100 * parameters / whole.parameters:.1f} % of the parameters" in card
    assert "| `backbone_depth` | 3 of 9 |" in card


def test_the_card_of_a_whole_network_has_no_such_words(export: Export) -> None:
    card = model_card(make_contents(planted()), export, inference_cost(export))

    assert "of the whole network" not in card
    assert "| `backbone_depth` | 9 of 9 |" in card
    assert not (export.folder / "model.pt2").exists()


def test_weights_of_a_whole_network_do_not_fit(short: Export, tmp_path: Path) -> None:
    contents = make_contents(planted(SHORT))
    folder = write_export(
        tmp_path / "x", contents, weights_file=short.folder / "weights.safetensors", overwrite=False
    )
    whole = build(make_point(), n_classes=3, weights=load_weights("resnet18", "none"), seed=1)
    save_file(whole.net.state_dict(), folder / "weights.safetensors")

    with pytest.raises(WeightsError, match="does not fit resnet18"):
        load_network(read_export(folder), CPU)


@pytest.mark.parametrize("at", EVERY, ids=lambda at: at.backbone)
def test_its_channels_can_be_removed(at: Point) -> None:
    """Half of the neck's channels go, and the logits are those with these channels at zero."""
    network = build(at, n_classes=3, weights=load_weights(at.backbone, "none"), seed=7).double().eval()
    groups = channel_groups(network.net, at.resolution)
    removed = removed_axes(groups, [range(0, group.n_units - 1, 2) for group in groups])

    smaller = without(network, removed)
    images = noise().double()

    with torch.no_grad():
        torch.testing.assert_close(
            smaller.net(images), masked(network, removed).net(images), rtol=0, atol=1e-9
        )
    if at.neck_layers:
        assert any(name.startswith("neck.") for name, _ in removed)
    shapes = {name: tensor.shape for name, tensor in smaller.net.state_dict().items()}
    again = resized(network, shapes)
    again.net.load_state_dict(smaller.net.state_dict())
    with torch.no_grad():
        assert torch.equal(again.net(images), smaller.net(images))


@pytest.mark.slow
def test_onnx_gives_the_networks_logits(short: Export, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")

    file = write_onnx(short, tmp_path)

    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": noise().numpy()})
    with torch.inference_mode():
        expected = load_network(short, CPU)(noise()).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    assert len(CLASS_NAMES) == logits.shape[1]
