"""Pretrained tensors of a backbone, checked against its shapes, with what they expect of images."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tlopt.errors import WeightsError
from tlopt.model import sources
from tlopt.model.families.table import Family, check_name, family_of, skeleton
from tlopt.model.network import Network
from tlopt.model.weights_file import aligned, other_entries, read_file
from tlopt.spec.weights_file import is_file_name, split_part
from tlopt.system.words import counted


@dataclass(frozen=True)
class Weights:
    """Pretrained tensors without a classifier, and the images they expect."""

    backbone: str
    label: str  # "IMAGENET1K_V2", "file.safetensors", "none"
    state: dict[str, Tensor]  # on the CPU, by the library's names; empty for "none"
    digest: str  # 16 hex digits of names, shapes, types and bytes; "none" for "none"
    mean: tuple[float, float, float]  # of pixels in [0, 1]
    std: tuple[float, float, float]
    resolution: int  # pixels per side that the weights expect
    resolution_step: int  # other resolutions are multiples of it: a patch's side where positions are embedded
    resolution_min: int


def load_weights(backbone: str, weights: str) -> Weights:
    """The pretrained tensors that `weights` names, without the classifier's.

    Pixel statistics and resolution are those of the named weights; a file and "none" have those of the
    backbone's default weights, but a file's position embeddings decide the resolution.

    Args:
        backbone: a supported name.
        weights: "default" (what the library prefers), one of the backbone's named weights, the path of a
            .pth, .pt or .safetensors file, or "none".

    Raises:
        SpecError: the backbone is not supported.
        WeightsError: there are no such weights, they cannot be fetched or read, or do not fit the backbone.
        MissingExtra: an optional package is needed.
    """
    check_name(backbone)
    is_file = is_file_name(weights)
    label = weights
    expected = sources.source(backbone, "default" if is_file or weights == "none" else weights)
    resolution = expected.resolution
    network = skeleton(backbone)
    family = family_of(network.net, backbone)
    state: dict[str, Tensor] = {}
    if weights != "none":
        if is_file:
            where = weights
            raw, label = _from_file(weights, network, family)
        else:
            where = label = expected.label
            raw = sources.fetch(backbone, label)
        resolution = _image_size(network, family, raw, resolution) if is_file else resolution
        if family.positions:
            network = skeleton(backbone, resolution)
        state = _fit(network, family, raw, f"{where} does not fit {backbone}")
    return Weights(
        backbone=backbone,
        label=label,
        state=state,
        digest=digest(state),
        mean=expected.mean,
        std=expected.std,
        resolution=resolution,
        resolution_step=_patch_side(network, family),
        resolution_min=family.resolution_min,
    )


def _from_file(weights: str, network: Network, family: Family) -> tuple[Mapping[str, Tensor], str]:
    """A file's tensors under the backbone's names, and the words for where they come from."""
    path, part = split_part(weights)
    tensors, entry = read_file(path, part)
    expected = network.net.state_dict().keys()
    renamed = {family.modern_name(name): tensor for name, tensor in tensors.items()}
    others = [] if part else other_entries(path, entry)
    label = path.name + (f"#{entry}" if part or others else "")
    return aligned(renamed, expected), label + (f" (also in it: {', '.join(others)})" if others else "")


def digest(state: Mapping[str, Tensor]) -> str:
    """Sixteen hex digits over names, shapes, types and bytes, sorted by name; "none" for no tensors."""
    if not state:
        return "none"
    hashed = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()[:16]


def _fit(network: Network, family: Family, raw: Mapping[str, Tensor], complaint: str) -> dict[str, Tensor]:
    """The backbone's tensors of `raw` under today's names and in the network's types."""
    dtypes = {name: tensor.dtype for name, tensor in network.net.state_dict().items()}
    _check_types(raw, dtypes, complaint)
    others = tuple(f"{name}." for name in (network.head_name, *family.auxiliary))
    kept = {family.modern_name(name): tensor for name, tensor in raw.items() if not name.startswith(others)}
    try:
        # The modules rename what older versions of themselves have saved.
        report = network.net.load_state_dict(kept, strict=False, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{complaint}: {_first(str(error).splitlines()[1:])}") from error
    missing = [name for name in report.missing_keys if not name.startswith(others)]
    if missing or report.unexpected_keys:
        raise WeightsError(
            f"{complaint}: missing are {_first(missing)}; unexpected are {_first(report.unexpected_keys)}"
        )
    return {
        name: tensor.detach().to(dtypes[name])
        for name, tensor in network.net.state_dict().items()
        if not name.startswith(others)
    }


def _check_types(raw: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], complaint: str) -> None:
    """Refuse whole numbers in the place of weights, and variances below 0, of which no root can be taken."""
    whole = [n for n, t in raw.items() if n in dtypes and dtypes[n].is_floating_point > t.is_floating_point()]
    if whole:
        kinds = sorted({str(raw[name].dtype).removeprefix("torch.") for name in whole})
        raise WeightsError(
            f"{complaint}: whole numbers ({', '.join(kinds)}) in {counted(len(whole), 'tensor')}, the first"
            f" is {whole[0]}: quantized weights cannot be trained on; take those in float32"
        )
    negative = [n for n, t in raw.items() if n.endswith("running_var") and bool((t < 0).any())]
    if negative:
        raise WeightsError(
            f"{complaint}: the variances in {_first(negative)} are below 0: the file is damaged"
        )


def _image_size(network: Network, family: Family, raw: Mapping[str, Tensor], default: int) -> int:
    """Pixels per side that the position embedding in `raw` was trained at."""
    if family.positions is None:
        return default
    ours, embedding = (tensors.get(family.positions.embedding) for tensors in (network.net.state_dict(), raw))
    if ours is None or embedding is None or embedding.dim() != 3:
        return default
    _, side = family.positions.sides(network.net)
    n_before = ours.shape[1] - side**2  # class and other tokens
    return math.isqrt(max(embedding.shape[1] - n_before, 0)) * _patch_side(network, family)


def _patch_side(network: Network, family: Family) -> int:
    if family.positions is None:
        return 1
    pixels, patches = family.positions.sides(network.net)
    return pixels // patches


def _first(names: list[str]) -> str:
    shown = ", ".join(name.strip() for name in names[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
