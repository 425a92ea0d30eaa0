"""Tensors out of files that people bring: .safetensors, .pth and .pt, as training programs wrap them."""

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

# Under which training programs keep a network's tensors, the usual one first.
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
# Of DataParallel and torch.compile, in any order and at any depth.
_PREFIXES = re.compile(r"(^|\.)(?:module\.|_orig_mod\.)+")
# Of averaging, of masked autoencoders and of self-supervised heads: no part of a backbone.
_BESIDE = ("n_averaged", "decoder_", "decoder.", "mask_token", "projector.", "projection_head.", "predictor.")
_PICKLE, _ZIP = b"\x80", b"PK"  # what torch.save writes begins so
_GIT_LFS = b"version https://git-lfs"
_LEGACY_ERRORS = (KeyError, IndexError, ValueError, TypeError, AttributeError)  # of a file cut or mixed up


def read_file(path: Path, part: str = "") -> tuple[dict[str, Tensor], str]:
    """The tensors in a weights file by name, and the entry they were in ("" for a file of tensors alone).

    Nothing in the file is executed. The prefixes of parallel and of compiled training are removed.

    Args:
        part: the entry to take; "" takes the first of `WRAPPERS` that is there.

    Raises:
        WeightsError: the file cannot be read, or holds anything else; says which entries there are.
    """
    if not path.is_file():
        kind = kind_at(path)
        what = f"is {kind} and no weights file" if kind else "there is no such weights file"
        raise WeightsError(f"{path}: {what}")
    loaded, entry = _unwrapped(_load(path), path, part)
    if not all(isinstance(value, Tensor) for value in loaded.values()) or not loaded:
        known = ", ".join(f'"{name}"' for name in WRAPPERS)
        raise WeightsError(f"{path}: holds no tensors by name, alone or under one of {known}")
    tensors = {_PREFIXES.sub(r"\1", name): tensor for name, tensor in loaded.items()}
    _check_plain(tensors, path)
    _check_finite(tensors, path)
    return tensors, entry


def other_entries(path: Path, entry: str) -> list[str]:
    """Entries beside `entry` that hold tensors too, such as averaged ones."""
    if not entry or path.suffix == ".safetensors":
        return []
    loaded = _load(path)
    return [name for name in WRAPPERS if name != entry and _holds_tensors(loaded.get(name))]


def aligned(tensors: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """`tensors` without the prefix under which another module holds the backbone, such as "backbone.".

    Of all prefixes the one is taken that leaves most names of `expected`; tensors outside it, and those known
    to be no part of a backbone, are left out. Without such a prefix names stay as they are.
    """
    prefixes = {""} | {
        name[: -len(want)] for name in tensors for want in expected if name.endswith(f".{want}")
    }
    counts = {p: sum(n.startswith(p) and n[len(p) :] in expected for n in tensors) for p in sorted(prefixes)}
    prefix = max(counts, key=lambda p: (counts[p], -len(p)))
    found = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {
        name: tensor for name, tensor in found.items() if name in expected or not name.startswith(_BESIDE)
    }


def _load(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        head = file.read(64)
    try:
        if len(head) >= 9 and head[8:9] == b"{":  # eight bytes of length, then a header in JSON
            loaded: Any = safetensors.torch.load_file(path)
        elif head.startswith((_PICKLE, _ZIP)):
            # timm and others keep their options beside the tensors, as a plain record
            with torch.serialization.safe_globals([argparse.Namespace]):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
        else:
            _refuse_other(path, head)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: cannot be read as weights: {_what_else(str(error))}") from error
    except (OSError, RuntimeError, EOFError, safetensors.SafetensorError, *_LEGACY_ERRORS) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{path}: cannot be read as weights, perhaps it is incomplete: {reason}"
        ) from error
    if not isinstance(loaded, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(loaded).__name__} and no tensors by name; save the network's state_dict()"
        )
    return loaded


def _refuse_other(path: Path, head: bytes) -> NoReturn:
    if head.startswith(_GIT_LFS):
        raise WeightsError(f"{path}: is a Git LFS pointer and not the weights; fetch them with: git lfs pull")
    what = "a web page" if head.lstrip()[:1] == b"<" else "neither a file of torch.save nor of safetensors"
    raise WeightsError(f"{path}: cannot be read as weights: it is {what}")


def _what_else(message: str) -> str:
    """Words for torch's refusal to load objects, without its advice to load them all the same."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    what = f"an object of {found[1]}" if found else "objects other than tensors"
    return f"it holds {what}, which could run code; save the network's state_dict() alone and name that file"


def _unwrapped(loaded: Mapping[str, Any], path: Path, part: str) -> tuple[Mapping[str, Any], str]:
    if part:
        if not _holds_tensors(loaded.get(part)):
            there = [str(name) for name, value in loaded.items() if _holds_tensors(value)]
            raise WeightsError(
                f"{path}#{part}: no tensors are under {part!r}; they are under {', '.join(there) or 'none'}"
            )
        return loaded[part], part
    entry = next((name for name in WRAPPERS if _holds_tensors(loaded.get(name))), "")
    if not entry:
        return loaded, ""
    inner, _ = _unwrapped(loaded[entry], path, "")
    return inner, entry


def _holds_tensors(value: object) -> bool:
    """Whether `value` is a dictionary with tensors in it, or one that holds such a dictionary."""
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(item, Tensor) for item in value.values()) or any(
        _holds_tensors(value.get(name)) for name in WRAPPERS
    )


def _check_plain(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that no network can start from, whatever their names."""
    kinds: dict[str, Callable[[Tensor], bool]] = {
        "no values (they were saved on the device meta)": lambda tensor: tensor.is_meta,
        "quantized values": lambda tensor: tensor.is_quantized,
        "sparse values": lambda tensor: tensor.layout != torch.strided,
        "complex values": torch.is_complex,
    }
    for what, holds in kinds.items():
        if odd := [name for name, tensor in tensors.items() if holds(tensor)]:
            raise WeightsError(
                f"{path}: {what} in {counted(len(odd), 'tensor')}, the first is {odd[0]}: save the"
                " state_dict() of the network in float32"
            )


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    # as the network takes them: float64 reaches beyond float32
    bad = [name for name, tensor in floats.items() if not bool(torch.isfinite(tensor.float()).all())]
    if bad:
        raise WeightsError(
            f"{path}: NaN or infinity in {counted(len(bad), 'tensor')}, the first is {bad[0]}: no trial could"
            " train from them; take weights of an earlier epoch"
        )
