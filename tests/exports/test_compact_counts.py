"""What exports of pruned networks cost, counted by others: from shapes of tensors and an ONNX file."""

import json
import random
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import make_point
from safetensors import safe_open

from tlopt.compact.cost import count
from tlopt.compact.groups import channel_groups, removed_axes
from tlopt.compact.prune import PruningRound
from tlopt.compact.surgery import without
from tlopt.exports.compact import Pruned, write_compact
from tlopt.exports.onnx import write_onnx
from tlopt.exports.read import Export, load_network, read_export
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import PruneGoal
from tlopt.training.metrics import Metrics

Exporter = Callable[[Point, str], Export]
NETWORKS = [
    "vgg11_bn@0.125",
    "mobilenet_v3_small",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "resnet18",
            "densenet121",
            "mobilenet_v2",
            "efficientnet_b0",
            "convnext_tiny",
            "regnet_y_400mf",
            "vit_b_16",
            "swin_t",
            "efficientnet_lite0",
            "timm:resnet26d",
            "timm:convnext_atto",
        )
    ),
]
SIDE = 32  # pixels
METRICS = Metrics(accuracy=0.5, balanced_accuracy=0.5, macro_f1=0.5, log_loss=1.0)


@pytest.fixture(scope="module", params=NETWORKS)
def compact(
    request: pytest.FixtureRequest, exporter: Exporter, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    """The export of a network without a third of the units of each of its groups, drawn at random."""
    if "timm" in request.param:
        pytest.importorskip("timm")
    source = exporter(make_point(request.param, resolution=SIDE), "crop")
    network, draw = load_network(source, torch.device("cpu")), random.Random(1)
    groups = channel_groups(network.net, SIDE)
    removed = [draw.sample(range(group.n_units), group.n_units // 3) for group in groups]
    smaller = without(network, removed_axes(groups, removed))
    before, after = (
        PruningRound(index=index, cost=count(each.net, SIDE), val=METRICS, within=True, loss=0.0)
        for index, each in enumerate((network, smaller))
    )
    pruned = Pruned(
        goal=PruneGoal(quantity="parameters", share=0.7, n_rounds=1),
        rounds=(before, after),
        kept=after,
        network=smaller,
        epochs=1,
        n_val=10,
        identity="0123456789abcdef",
    )
    folder = tmp_path_factory.mktemp("compact") / "best"
    return read_export(write_compact(folder, source, pruned, overwrite=False))


def stated(export: Export) -> dict[str, Any]:
    """What the export says of itself."""
    network: dict[str, Any] = json.loads((export.folder / "result.json").read_text())["network"]
    return network


def test_parameters_and_bytes_are_those_of_the_file(compact: Export) -> None:
    file = compact.folder / "weights.safetensors"
    with safe_open(file, framework="pt") as tensors:
        names = list(tensors.keys())
        shapes = {name: tensors.get_slice(name).get_shape() for name in names}
    no_parameters = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index")

    assert stated(compact)["weights_bytes"] == file.stat().st_size
    assert stated(compact)["parameters"] == sum(
        prod(shape) for name, shape in shapes.items() if not name.endswith(no_parameters)
    )


def test_whoever_may_read_one_file_may_read_all(compact: Export) -> None:
    assert len({path.stat().st_mode for path in compact.folder.iterdir()}) == 1


def test_multiply_adds_are_those_of_its_onnx_file(compact: Export, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    model = onnx.load(write_onnx(compact, tmp_path))
    products = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    others = {node.op_type for node in model.graph.node} & {"Attention", "ConvTranspose", "Einsum"}
    shapes = shapes_of(model, {name for node in products for name in (*node.input, *node.output)}, onnx)

    assert not others
    assert stated(compact)["multiply_adds"] == sum(
        prod(shapes[node.output[0]]) * depth_of(node, shapes) for node in products
    )


def shapes_of(model: Any, names: set[str], onnx: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of these tensors as they are when the file is run with one image."""
    runtime = pytest.importorskip("onnxruntime")
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    known = {each.name for each in (*model.graph.input, *model.graph.output)}
    wanted = sorted(names - stored.keys() - {"pixels", ""})  # "": an argument that is left out
    for name in sorted(set(wanted) - known):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.zeros((1, 3, SIDE, SIDE), dtype=np.float32)
    found = session.run(wanted, {"pixels": pixels})
    return stored | {"pixels": pixels.shape} | {name: a.shape for name, a in zip(wanted, found, strict=True)}


def depth_of(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Products that are added up for each number of the node's output."""
    match node.op_type:
        case "Conv":
            return prod(shapes[node.input[1]][1:])
        case "Gemm":
            transposed = any(each.name == "transB" and each.i for each in node.attribute)
            return shapes[node.input[1]][1 if transposed else 0]
        case _:
            return shapes[node.input[0]][-1]
