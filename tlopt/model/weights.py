"""Pretrained tensors of a backbone, checked against its shapes, and the images that they expect."""

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
from tlopt.model.weights_file import other_entries, read_file, without_prefix
from tlopt.spec.model_names import is_file_name, split_part, split_width
from tlopt.system.words import counted


@dataclass(frozen=True)
class Weights:
    """Pretrained tensors without the classifier's, and the images that they expect."""

    backbone: str
    label: str  # "IMAGENET1K_V2", "file.safetensors", "none"
    state: dict[str, Tensor]  # on the CPU, by the library's names; empty for "none"
    digest: str  # 16 hex digits of names, shapes, types and bytes; "none" for "none"
    mean: tuple[float, float, float]  # of pixels in [0, 1]
    std: tuple[float, float, float]
    resolution: int  # of the images they were trained on, pixels per side
    resolution_step: int  # others must be multiples: the side of a patch with position embeddings, else 1
    resolution_min: int


def load_weights(backbone: str, weights: str) -> Weights:
    """The pretrained tensors that `weights` names, without the classifier's.

    Pixel statistics and resolution belong to the named weights; for a file and for "none" they are those of
    the backbone's default weights at its usual width, except that position embeddings in a file give its
    resolution.

    Args:
        backbone: name of a supported backbone.
        weights: "default" (the library's choice), the name of weights in the library, the path of a .pth, .pt
            or .safetensors file, or "none".

    Raises:
        SpecError: the backbone is not supported.
        WeightsError: the weights do not exist, cannot be fetched or read, or do not fit the backbone.
        MissingExtra: an optional package is needed.
    """
    check_name(backbone)
    is_file = is_file_name(weights)
    label = weights
    name, width = split_width(backbone)
    if width != 1 and not is_file and weights != "none":
        raise WeightsError(
            f'model.weights = "{weights}": {backbone} has no pretrained weights, since its width is not the'
            ' usual one; write "none", or the path of weights that were trained at this width'
        )
    expected = sources.find_named(name, "default" if is_file or weights == "none" else weights)
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
        state = _matched(network, family, raw, f"{where} does not fit {backbone}")
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
    """A file's tensors under the backbone's names, and a label with the file's name and entry."""
    path, part = split_part(weights)
    tensors, entry = read_file(path, part)
    expected = network.net.state_dict().keys()
    renamed = {family.modern_name(name): tensor for name, tensor in tensors.items()}
    others = [] if part else other_entries(path, entry)
    label = path.name + (f"#{entry}" if part or others else "")
    return without_prefix(renamed, expected), label + (
        f" (also in it: {', '.join(others)})" if others else ""
    )


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


def _matched(network: Network, family: Family, raw: Mapping[str, Tensor], misfit: str) -> dict[str, Tensor]:
    """The backbone's tensors in `raw`, under the library's current names and in the network's dtypes."""
    dtypes = {name: tensor.dtype for name, tensor in network.net.state_dict().items()}
    _check_types(raw, dtypes, misfit)
    not_backbone = tuple(f"{name}." for name in (network.head_name, *family.auxiliary))
    kept = {
        family.modern_name(name): tensor for name, tensor in raw.items() if not name.startswith(not_backbone)
    }
    try:
        # Modules translate the names that their older versions saved.
        report = network.net.load_state_dict(kept, strict=False, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{misfit}: {_first_three(str(error).splitlines()[1:])}") from error
    missing = [name for name in report.missing_keys if not name.startswith(not_backbone)]
    if missing or report.unexpected_keys:
        raise WeightsError(
            f"{misfit}: missing are {_first_three(missing)};"
            f" unexpected are {_first_three(report.unexpected_keys)}"
        )
    return {
        name: tensor.detach().to(dtypes[name])
        for name, tensor in network.net.state_dict().items()
        if not name.startswith(not_backbone)
    }


def _check_types(raw: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype], misfit: str) -> None:
    """Raise for integers where the network has floats, and for negative variances."""
    whole = [n for n, t in raw.items() if n in dtypes and dtypes[n].is_floating_point > t.is_floating_point()]
    if whole:
        kinds = sorted({str(raw[name].dtype).removeprefix("torch.") for name in whole})
        raise WeightsError(
            f"{misfit}: whole numbers ({', '.join(kinds)}) in {counted(len(whole), 'tensor')}, the first"
            f" is {whole[0]}: quantized weights cannot be trained; use weights in float32"
        )
    negative = [n for n, t in raw.items() if n.endswith("running_var") and bool((t < 0).any())]
    if negative:
        raise WeightsError(
            f"{misfit}: the variances in {_first_three(negative)} are negative: the file is"
            " damaged; use another copy"
        )


def _image_size(network: Network, family: Family, raw: Mapping[str, Tensor], default: int) -> int:
    """Pixels per side of the images that the position embedding in `raw` was trained on."""
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


def _first_three(names: list[str]) -> str:
    first = ", ".join(name.strip() for name in names[:3]) or "none"
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
