"""The ONNX file computes what the network computes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from finished import make_point

from tlopt.errors import MissingExtra, SpecError
from tlopt.exports import onnx
from tlopt.exports.onnx import check_convertible, write_onnx
from tlopt.exports.read import Export, load_network
from tlopt.model.families.table import FAMILIES, family_of, skeleton
from tlopt.model.weights import load_weights
from tlopt.spec.point import Point

# the smallest network of each family, and of some families one of another kind
NETWORKS = [
    ("resnet18", 32),
    ("densenet121", 32),
    ("vgg11_bn", 32),
    ("mobilenet_v2", 32),
    ("mobilenet_v3_small", 32),
    ("efficientnet_b0", 32),
    ("convnext_tiny", 32),
    ("regnet_y_400mf", 32),
    ("vit_b_16", 32),
    ("swin_t", 32),
    ("inception_v3", 75),
    ("efficientnet_lite0", 32),
    ("timm:resnet26d", 32),
    ("timm:mixnet_s", 32),
    ("timm:mobilenetv3_small_050", 32),
    ("timm:convnext_atto", 32),
    ("timm:vit_tiny_patch16_224", 32),
]


@pytest.fixture(scope="module")
def file(export: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    return write_onnx(export, tmp_path_factory.mktemp("onnx"))


def test_one_file_is_written(file: Path) -> None:
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("n_images", [1, 3])
def test_onnx_gives_the_networks_logits_for_any_batch(n_images: int, file: Path, export: Export) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pixels = np.random.default_rng(2).standard_normal((n_images, 3, 32, 32), dtype=np.float32)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": pixels})
    with torch.inference_mode():
        expected = load_network(export, torch.device("cpu"))(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "resolution"), NETWORKS)
def test_onnx_gives_the_logits_of_every_family(
    backbone: str, resolution: int, exporter: Callable[[Point, str], Export], tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    export = exporter(make_point(backbone, resolution=resolution), "crop")
    pixels = np.random.default_rng(3).standard_normal((5, 3, resolution, resolution), dtype=np.float32)

    session = runtime.InferenceSession(str(write_onnx(export, tmp_path)), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixels": pixels})

    with torch.inference_mode():
        expected = load_network(export, torch.device("cpu"))(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_every_family_is_among_the_networks_that_are_converted() -> None:
    pytest.importorskip("timm")

    assert {family_of(skeleton(name).net, name) for name, _ in NETWORKS} == set(FAMILIES)


@pytest.mark.slow
def test_the_error_for_a_network_that_torch_cannot_convert_names_the_operation() -> None:
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript")

    # the number of groups of its convolutions is the number of images
    with pytest.raises(SpecError) as refused:
        check_convertible(load_weights("timm:tf_efficientnet_cc_b0_4e", "none"), 32)

    said = str(refused.value)
    assert said.startswith("timm:tf_efficientnet_cc_b0_4e cannot be written as an ONNX file: torch ")
    assert "has no ONNX form for its operation aten.conv2d" in said
    assert said.endswith("leave out --onnx or use another backbone")


def test_a_network_is_converted_before_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(onnx, "_convert", lambda net, resolution, file, name: seen.append((name, resolution)))

    check_convertible(load_weights("mobilenet_v3_small", "none"), 64)

    assert seen == [("mobilenet_v3_small", 64)]


def test_the_error_without_onnx_names_the_extra(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"tlopt\[onnx\]"):
        write_onnx(export, tmp_path)
