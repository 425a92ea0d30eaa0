"""Weights files of other programs are read where no tensor is missing; errors give the reason."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from tlopt.errors import WeightsError
from tlopt.model.weights import digest, load_weights
from tlopt.model.weights_file import WRAPPERS, without_prefix

NAN = float("nan")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A whole resnet18 of torchvision, classifier included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made: dict[str, Tensor] = torchvision.models.resnet18(weights=None, num_classes=7).state_dict()
    return made


@pytest.fixture(scope="module")
def expected(state: dict[str, Tensor]) -> str:
    """The digest of the tensors of `state`, without the classifier's."""
    return digest({name: tensor for name, tensor in state.items() if not name.startswith("fc.")})


def saved(folder: Path, content: Any) -> str:
    torch.save(content, folder / "weights.pth")
    return str(folder / "weights.pth")


def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        *(lambda state, name=name: {name: state, "epoch": 3} for name in WRAPPERS),
        *map(
            prefixed,
            ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "backbone."),
        ),
        lambda state: {name.replace("layer1.", "layer1._orig_mod."): t for name, t in state.items()},
        lambda state: {"n_averaged": torch.tensor(5), **prefixed("module.")(state)},
        lambda state: {**state, "mask_token": torch.zeros(1), "decoder_embed.weight": torch.zeros(2)},
        lambda state: {
            "teacher": {**prefixed("module.backbone.")(state), "module.head.mlp.0.weight": torch.zeros(3)}
        },
        lambda state: {"state_dict": prefixed("model.")(state), "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model": {"state_dict": state}},
    ],
)
def test_wrappers_and_prefixes_of_training_programs_are_removed(
    wrap: Callable[[dict[str, Tensor]], Any], state: dict[str, Tensor], expected: str, tmp_path: Path
) -> None:
    assert load_weights("resnet18", saved(tmp_path, wrap(state))).digest == expected


def test_the_file_s_name_selects_one_of_two_entries(
    state: dict[str, Tensor], expected: str, tmp_path: Path
) -> None:
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    path = saved(tmp_path, {"state_dict": state, "state_dict_ema": averaged})

    usual, chosen = load_weights("resnet18", path), load_weights("resnet18", f"{path}#state_dict_ema")

    assert usual.digest == expected != chosen.digest
    assert usual.label == "weights.pth#state_dict (also in it: state_dict_ema)"
    assert chosen.label == "weights.pth#state_dict_ema"
    assert torch.equal(chosen.state["conv1.weight"], averaged["conv1.weight"])


def test_the_error_for_a_missing_entry_lists_the_entries(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": state, "best": state, "epoch": 3})

    with pytest.raises(WeightsError, match="no tensors under 'ema'; keys with tensors: state_dict, best"):
        load_weights("resnet18", f"{path}#ema")


def test_a_larger_network_of_the_same_names_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, torchvision.models.resnet34(weights=None).state_dict())

    with pytest.raises(WeightsError, match=r"does not fit resnet18: .*unexpected are layer1\.2"):
        load_weights("resnet18", path)


def test_safetensors_are_recognised_by_their_bytes_not_by_their_suffix(
    state: dict[str, Tensor], expected: str, tmp_path: Path
) -> None:
    safetensors.torch.save_file(state, tmp_path / "weights.pth")

    assert load_weights("resnet18", str(tmp_path / "weights.pth")).digest == expected


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no weights at all", "it is in neither the format of torch.save nor safetensors"),
        (b"", "it is in neither the format of torch.save nor safetensors"),
        (b"<!DOCTYPE html><html></html>", "it is a web page"),
        (b"version https://git-lfs.example/spec/v1\noid sha256:0\n", "is a Git LFS pointer.*git lfs pull"),
        (b"PK\x03\x04 and no more", "cannot be read as weights, perhaps it is incomplete"),
        (b"\x80\x02 and no more", "cannot be read as weights"),
        (b"\x09\0\0\0\0\0\0\0{ and more", "cannot be read as weights, perhaps it is incomplete"),
    ],
)
def test_the_error_for_another_kind_of_file_says_what_it_is(
    suffix: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=f"weights{suffix}.*{message}") as caught:
        load_weights("resnet18", str(path))
    assert "weights_only" not in str(caught.value)


def test_objects_that_could_run_code_are_refused_without_advice_to_load_them(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"it contains an object of pathlib\S*, which could run code"
    ) as caught:
        load_weights("resnet18", saved(tmp_path, {"conv1.weight": Path("code")}))
    assert "weights_only" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "contains no tensors by name"),
        ({}, "contains no tensors by name"),
        ([1.0, 2.0], "contains a list, not tensors by name"),
    ],
)
def test_a_file_without_named_tensors_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        load_weights("resnet18", saved(tmp_path, content))


@pytest.mark.parametrize(
    "tensor",
    [torch.full((128, 64, 3, 3), NAN), torch.full((128, 64, 3, 3), 1e39, dtype=torch.float64)],
    ids=["NaN", "beyond float32"],
)
def test_a_tensor_that_is_not_finite_is_named(
    tensor: Tensor, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = saved(tmp_path, {**state, "layer2.0.conv1.weight": tensor})

    with pytest.raises(WeightsError, match=r"1 tensor, the first is layer2\.0\.conv1\.weight"):
        load_weights("resnet18", path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: (10 * t).to(torch.int8),
            r"whole numbers \(int8\) in \d+ tensors, the first is conv1\.weight",
        ),
        (lambda t: t.bool(), r"whole numbers \(bool\) in"),
        (lambda t: t.to(torch.complex64), r"complex values in \d+ tensors, the first is conv1"),
        (lambda t: t.to_sparse(), "sparse values in"),
        (lambda t: t.to("meta"), "no values"),
        (lambda t: t - 5, r"variances in bn1\.running_var, .* are negative"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_cannot_be_trained_are_refused_in_one_line(
    change: Callable[[Tensor], Tensor], message: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    others = {
        name: change(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    path = saved(tmp_path, others)

    with pytest.raises(WeightsError, match=message) as caught:
        load_weights("resnet18", path)
    assert len(str(caught.value)) < 300


@pytest.mark.timeout(20)
def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pth")

    with pytest.raises(WeightsError, match=r"weights\.pth: is a named pipe, not a weights file"):
        load_weights("resnet18", str(tmp_path / "weights.pth"))


def test_without_a_common_prefix_names_do_not_change() -> None:
    tensors = {"stem.weight": torch.zeros(1), "other.bias": torch.zeros(1)}

    assert without_prefix(tensors, {"conv.weight"}).keys() == tensors.keys()
