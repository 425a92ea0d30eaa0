"""Tensors from weights files (.safetensors, .pth, .pt), without the wrappers of training programs."""

import argparse
import pickle
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tlopt.errors import WeightsError
from tlopt.system.files import kind_at
from tlopt.system.words import counted

# Keys under which training programs save a network's tensors, the most common first.
WRAPPERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "network",
    "teacher",
    "state_dict_ema",
    "model_ema",
    "ema",
)
# Prefixes from DataParallel and torch.compile, in any order and at any depth.
_PREFIXES = re.compile(r"(^|\.)(?:module\.|_orig_mod\.)+")
# From weight averaging, masked autoencoders and self-supervised heads.
_NOT_BACKBONE = (
    "n_averaged",
    "decoder_",
    "decoder.",
    "mask_token",
    "projector.",
    "projection_head.",
    "predictor.",
)
_PICKLE, _ZIP = b"\x80", b"PK"  # first bytes of what torch.save writes
_GIT_LFS = b"version https://git-lfs"
_LEGACY_ERRORS = (
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
)  # from truncated or corrupt files


def read_file(path: Path, part: str = "") -> tuple[dict[str, Tensor], str]:
    """The tensors in a weights file by name, and the key they were under ("" at the top level).

    Nothing in the file is executed. Prefixes from parallel and compiled training are removed.

    Args:
        part: key of the tensors to read; "" for the first of `WRAPPERS` in the file.

    Raises:
        WeightsError: the file cannot be read, has no tensors under `part` (lists the keys), or has tensors
            that cannot be trained.
    """
    if not path.is_file():
        kind = kind_at(path)
        what = f"is {kind}, not a weights file" if kind else "there is no such weights file"
        raise WeightsError(f"{path}: {what}")
    loaded, entry = _unwrapped(_load(path), path, part)
    if not all(isinstance(value, Tensor) for value in loaded.values()) or not loaded:
        known = ", ".join(f'"{name}"' for name in WRAPPERS)
        raise WeightsError(f"{path}: contains no tensors by name, neither at the top level nor under {known}")
    tensors = {_PREFIXES.sub(r"\1", name): tensor for name, tensor in loaded.items()}
    _check_plain(tensors, path)
    _check_finite(tensors, path)
    return tensors, entry


def other_entries(path: Path, entry: str) -> list[str]:
    """Other keys of the file with tensors under them, such as averaged ones."""
    if not entry or path.suffix == ".safetensors":
        return []
    loaded = _load(path)
    return [name for name in WRAPPERS if name != entry and _has_tensors(loaded.get(name))]


def without_prefix(tensors: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """`tensors` without the prefix that an enclosing module gives the backbone, such as "backbone.".

    The prefix is the one that most names in `expected` have in `tensors`, possibly none. Tensors without it,
    and those known to belong to no backbone, are left out.
    """
    prefixes = {""} | {
        name[: -len(want)] for name in tensors for want in expected if name.endswith(f".{want}")
    }
    counts = {p: sum(n.startswith(p) and n[len(p) :] in expected for n in tensors) for p in sorted(prefixes)}
    prefix = max(counts, key=lambda p: (counts[p], -len(p)))
    found = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {
        name: tensor
        for name, tensor in found.items()
        if name in expected or not name.startswith(_NOT_BACKBONE)
    }


def _load(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        head = file.read(64)
    try:
        if len(head) >= 9 and head[8:9] == b"{":  # eight bytes of length, then a header in JSON
            loaded: Any = safetensors.torch.load_file(path)
        elif head.startswith((_PICKLE, _ZIP)):
            # timm and others save their options with the tensors, as a Namespace
            with torch.serialization.safe_globals([argparse.Namespace]):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        else:
            _refuse_other(path, head)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: cannot be read as weights: {_refused_objects(str(error))}") from error
    except (OSError, RuntimeError, EOFError, safetensors.SafetensorError, *_LEGACY_ERRORS) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{path}: cannot be read as weights, perhaps it is incomplete: {reason}"
        ) from error
    if not isinstance(loaded, Mapping):
        raise WeightsError(
            f"{path}: contains a {type(loaded).__name__}, not tensors by name; save the network's"
            " state_dict()"
        )
    return loaded


def _refuse_other(path: Path, head: bytes) -> NoReturn:
    if head.startswith(_GIT_LFS):
        raise WeightsError(f"{path}: is a Git LFS pointer, not the weights; fetch them with: git lfs pull")
    what = (
        "a web page" if head.lstrip()[:1] == b"<" else "in neither the format of torch.save nor safetensors"
    )
    raise WeightsError(f"{path}: cannot be read as weights: it is {what}")


def _refused_objects(message: str) -> str:
    """The reason why torch refuses to load objects, without its advice to load them anyway."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    what = f"an object of {found[1]}" if found else "objects other than tensors"
    return (
        f"it contains {what}, which could run code; save the network's state_dict() alone and use that file"
    )


def _unwrapped(loaded: Mapping[str, Any], path: Path, part: str) -> tuple[Mapping[str, Any], str]:
    if part:
        if not _has_tensors(loaded.get(part)):
            there = [str(name) for name, value in loaded.items() if _has_tensors(value)]
            raise WeightsError(
                f"{path}#{part}: there are no tensors under {part!r}; keys with tensors:"
                f" {', '.join(there) or 'none'}"
            )
        return loaded[part], part
    entry = next((name for name in WRAPPERS if _has_tensors(loaded.get(name))), "")
    if not entry:
        return loaded, ""
    inner, _ = _unwrapped(loaded[entry], path, "")
    return inner, entry


def _has_tensors(value: object) -> bool:
    """Whether `value` is a dictionary with tensors, directly or under one of `WRAPPERS`."""
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(item, Tensor) for item in value.values()) or any(
        _has_tensors(value.get(name)) for name in WRAPPERS
    )


def _check_plain(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise for tensors that no network can be trained from."""
    kinds: dict[str, Callable[[Tensor], bool]] = {
        "no values (they were saved on the device meta)": lambda tensor: tensor.is_meta,
        "quantized values": lambda tensor: tensor.is_quantized,
        "sparse values": lambda tensor: tensor.layout != torch.strided,
        "complex values": torch.is_complex,
    }
    for what, applies in kinds.items():
        if bad := [name for name, tensor in tensors.items() if applies(tensor)]:
            raise WeightsError(
                f"{path}: {what} in {counted(len(bad), 'tensor')}, the first is {bad[0]}; save the"
                " network's state_dict() in float32"
            )


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    # in float32, as in the network: finite float64 values may overflow
    bad = [name for name, tensor in floats.items() if not bool(torch.isfinite(tensor.float()).all())]
    if bad:
        raise WeightsError(
            f"{path}: NaN or infinity in {counted(len(bad), 'tensor')}, the first is {bad[0]}: training"
            " cannot start from them; use weights of an earlier epoch"
        )
