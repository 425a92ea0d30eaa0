"""Reading exports: folders with a trained network and everything needed to use it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tlopt.compact.cost import InferenceCost, count
from tlopt.compact.surgery import resized
from tlopt.data.decode import Reading
from tlopt.data.rgb import FULL_BITS, Resize
from tlopt.errors import DataError, NotReady, SpecError, WeightsError
from tlopt.exports.result import FORMAT_COMPACT, FORMAT_ENSEMBLE, RESULT, read_json, read_result
from tlopt.model.build import blueprint, build
from tlopt.model.ensemble import Ensemble, separated
from tlopt.model.families import table as families
from tlopt.model.network import Network
from tlopt.model.weights import Weights, load_weights
from tlopt.model.weights_file import read_file
from tlopt.spec.model_names import TIMM, split_width
from tlopt.spec.point import Point
from tlopt.spec.search_keys import NECK_KEYS
from tlopt.system.words import counted

CONFIG, WEIGHTS, CLASSES = "config.toml", "weights.safetensors", "classes.txt"
PREPROCESSING = "preprocessing.json"
PROGRAM = "model.pt2"  # of a network that its library cannot build, for torch without tlopt
DECODING = "image_rgb.py"  # a copy of tlopt.data.rgb, which the card's code imports

# Values of preprocessing.json as every version writes them: a changed one would classify otherwise, silently.
_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "mean": ("three numbers from 0 to 1", lambda value: _are_three(value)),
    "std": ("three numbers above 0, up to 1", lambda value: _are_three(value) and min(value) > 0),
    "bits": ("a whole number from 8 to 16", lambda value: type(value) is int and 8 <= value <= FULL_BITS),
    "megapixels_max": (
        "a number from 0",
        lambda value: type(value) in (int, float) and 0 <= value < math.inf,
    ),
}
_SHORTENING_KEYS = ("backbone_depth", *NECK_KEYS)
_FORMER_NAMES = {"stretch": "squash"}  # values in preprocessing.json that all versions read

_PLAIN_TORCH = """\
from pathlib import Path

import torch
from image_rgb import open_rgb, square  # image_rgb.py of this folder; needs Pillow and NumPy
{imports}from torchvision import transforms

{network}

normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize({mean}, {std})])


def pixels(path):
    image = open_rgb(Path(path).read_bytes(), {size}{bits}).image
    return normalise(square(image, size={size}, resize="{resize}")[{start}:{end}, {start}:{end}])


class_names = Path("classes.txt").read_text(encoding="utf-8").split("\\n")
with torch.inference_mode():
    logits = net(pixels("image.jpg").unsqueeze(0))[0]
best = int(logits.argmax())
print(class_names[best], float(logits.softmax(0)[best]))"""

_IMPORTS = """\
import {library}
from safetensors.torch import load_file
from torch import nn
"""
_NETWORK = """\
net = {net}
net{head_at} = {head}
net.load_state_dict(load_file("weights.safetensors"))
net.eval()"""
_PROGRAM = f'net = torch.export.load("{PROGRAM}").module()'


@dataclass(frozen=True, kw_only=True)
class Export:
    """An export without the tensors of its network."""

    folder: Path
    point: Point
    class_names: tuple[str, ...]  # in the order of the logits
    reading: Reading
    store_size: int  # pixels per side of the resized image
    resolution: int  # pixels per side of the network's input, a centre crop
    mean: tuple[float, float, float]  # of pixels in [0, 1]
    std: tuple[float, float, float]
    weights_label: str  # of the pretrained weights: "IMAGENET1K_V2", "file.safetensors", "none"
    weights_digest: str  # of the pretrained tensors, 16 hex digits or "none"
    digest: str  # of the study, 16 hex digits
    is_compact: bool = False  # whether channels have been removed from the backbone
    members: tuple[Point, ...] = ()  # of an ensemble, the point of each network; empty for a single one

    @property
    def backbone(self) -> str:
        """The network's name."""
        return self.point.backbone

    @property
    def has_program(self) -> bool:
        """Whether the network is also written as a program, since its library has no such network."""
        changed = self.is_compact or self.point.is_shortened or families.is_beyond_library(self.backbone)
        return changed or bool(self.members)


def no_export(folder: Path | str, why: str) -> str:
    """The message on a path that is not an export."""
    return f"{folder} is not an export: {why}; tlopt export STUDY writes one"


def read_export(folder: Path) -> Export:
    """The export in `folder`.

    Raises:
        NotReady: a file of the export is missing; names it.
        DataError: a file is damaged or written by a newer tlopt.
        StorageError: the point in result.json is damaged.
    """
    for name in (WEIGHTS, CLASSES, PREPROCESSING, RESULT):
        if not (folder / name).is_file():
            why = f"it has no {name}" if folder.is_dir() else "there is no such folder"
            raise NotReady(no_export(folder, why))
    result, preprocessing = read_result(folder), read_json(folder / PREPROCESSING)
    try:
        return _export(folder, result, preprocessing)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder} is damaged ({type(error).__name__}: {error}); export again") from error


def preprocessing_json(export: Export) -> dict[str, Any]:
    """The content of preprocessing.json: values that `read_export` reads, and the steps in words."""
    reading = export.reading
    bits = {"bits": reading.bits} if reading.bits != FULL_BITS else {}
    allowed = {"megapixels_max": reading.megapixels_max} if reading.megapixels_max else {}
    return {
        "resize": _FORMER_NAMES.get(reading.resize, reading.resize),
        **bits,
        **allowed,
        "store_size": export.store_size,
        "resolution": export.resolution,
        "mean": list(export.mean),
        "std": list(export.std),
        "words": preprocessing_words(export),
    }


def preprocessing_words(export: Export) -> list[str]:
    """The steps from an image file to the network's input."""
    size, bits = export.store_size, export.reading.bits
    part = {"crop": "the largest centred square", "stretch": "the whole image"}[export.reading.resize]
    return [
        "decode the first frame to RGB, apply its EXIF orientation, and put transparent pixels on white;"
        f" 16-bit values times 255/{2**bits - 1}",
        f"halve a JPEG while decoding, as long as its shorter side stays at {2 * size} pixels or more",
        f"resample {part} to {size} x {size} pixels (Pillow, bicubic, antialiased)",
        f"crop the central {export.resolution} x {export.resolution} pixels",
        "divide by 255, subtract mean, divide by std (red, green, blue)",
    ]


def plain_torch_code(export: Export) -> str:
    """Python code that loads the network and classifies image.jpg without tlopt, in the export's folder."""
    imports, network = ("", _PROGRAM) if export.has_program else _construction(export)
    margin = (export.store_size - export.resolution) // 2
    return _PLAIN_TORCH.format(
        imports=imports,
        network=network,
        mean=list(export.mean),
        std=list(export.std),
        resize=export.reading.resize,
        bits=f", bits={export.reading.bits}" if export.reading.bits != FULL_BITS else "",
        size=export.store_size,
        start=margin,
        end=margin + export.resolution,
    )


def _construction(export: Export) -> tuple[str, str]:
    """The imports and the lines that build the network with its library."""
    network = _outline(export)
    library, net = _library_call(export, families.family_of(network.net, export.backbone))
    lines = _NETWORK.format(
        net=net,
        head_at="".join(f"[{p}]" if p.isdigit() else f".{p}" for p in network.head_name.split(".")),
        head=_expression(network.head),
    )
    return _IMPORTS.format(library=library), lines


def inference_cost(export: Export) -> InferenceCost:
    """Parameters, multiply-adds per image at the export's resolution, and size of its file of weights."""
    members = [_outline(each).net for each in _members(export)]
    return count(
        Ensemble(members) if export.members else members[0],
        export.resolution,
        weights_bytes=(export.folder / WEIGHTS).stat().st_size,
    )


def _members(export: Export) -> tuple[Export, ...]:
    """The members of an ensemble as exports of their own; a single network alone."""
    return tuple(replace(export, point=point, members=()) for point in export.members) or (export,)


def whole_cost(export: Export) -> InferenceCost:
    """The cost of the export's network if it had all blocks of its backbone and all channels."""
    return count(_outline(_whole(export)).net, export.resolution)


def whole_network(export: Export) -> nn.Module:
    """The network that `whole_cost` is of, with random weights, in eval mode on the CPU."""
    whole = _whole(export)
    return build(whole.point, n_classes=len(export.class_names), weights=_blank(export), seed=0).net.eval()


def _whole(export: Export) -> Export:
    values = export.point.as_dict()
    whole = Point.from_dict({key: value for key, value in values.items() if key not in _SHORTENING_KEYS})
    return replace(export, point=whole, is_compact=False)


def _blank(export: Export) -> Weights:
    """No pretrained weights, at the export's resolution."""
    return replace(load_weights(export.backbone, "none"), resolution=export.resolution)


def _outline(export: Export) -> Network:
    """The network of an export with its classifier, most tensors without storage."""
    network = blueprint(
        replace(export.point, resolution=export.resolution), n_classes=len(export.class_names)
    )
    if export.is_compact:
        state = read_file(export.folder / WEIGHTS)[0]
        return resized(network, {name: tensor.shape for name, tensor in state.items()})
    return network


def load_module(export: Export, device: torch.device) -> nn.Module:
    """What maps images to logits, in eval mode on `device`: the library's module, or an `Ensemble` of some.

    Raises:
        WeightsError, MissingExtra: as `load_network`.
    """
    if not export.members:
        return load_network(export, device).net
    states = separated(_read_tensors(export), len(export.members))
    nets = [_filled(each, state).net for each, state in zip(_members(export), states, strict=True)]
    return Ensemble(nets).to(device).eval()


def load_network(export: Export, device: torch.device) -> Network:
    """The trained network in eval mode on `device`; fetches no pretrained weights.

    Raises:
        SpecError: the export is an ensemble.
        WeightsError: the tensors cannot be read or do not fit the network.
        MissingExtra: the network's library is not installed.
    """
    if export.members:
        raise SpecError(
            f"{export.folder} is an ensemble of {counted(len(export.members), 'network')}, and this takes a"
            " single one; export one with tlopt export, without --ensemble"
        )
    return _filled(export, _read_tensors(export)).to(device).eval()


def _read_tensors(export: Export) -> dict[str, Tensor]:
    try:
        return read_file(export.folder / WEIGHTS)[0]
    except WeightsError as error:
        raise WeightsError(f"{error}; export again") from error


def _filled(export: Export, state: dict[str, Tensor]) -> Network:
    """The network of an export with the tensors `state`."""
    network = build(export.point, n_classes=len(export.class_names), weights=_blank(export), seed=0)
    try:
        if export.is_compact:
            network = resized(network, {name: tensor.shape for name, tensor in state.items()})
        network.net.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        path = export.folder / WEIGHTS
        raise WeightsError(f"{path} does not fit {export.backbone}: {error}; export again") from error
    return network


def _library_call(export: Export, family: families.Family) -> tuple[str, str]:
    """The library of the network, and the call that builds it."""
    (backbone, width), size = split_width(export.backbone), export.resolution
    options = {} if width == 1 else families.width_options(backbone, width)
    if backbone == families.LITE0 or backbone.startswith(TIMM):
        name = families.LITE0_IN_TIMM if backbone == families.LITE0 else backbone.removeprefix(TIMM)
        image_size = {"img_size": size} if family.positions else {}
        return (
            "timm",
            f'timm.create_model("{name}", {_arguments({"num_classes": 1000} | image_size | options)})',
        )
    name = families.class_name(backbone) if options else backbone
    if family.positions:
        options = options | {"image_size": size}
    if family.auxiliary:
        options = {"init_weights": False, "aux_logits": False, "transform_input": True}
    return "torchvision", f"torchvision.models.{name}({_arguments(options)})"


def _arguments(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _expression(head: nn.Module) -> str:
    if isinstance(head, nn.Sequential):
        return f"nn.Sequential({', '.join(_expression(layer) for layer in head)})"
    return f"nn.{head!r}"


def _export(folder: Path, result: dict[str, Any], preprocessing: dict[str, Any]) -> Export:
    point = Point.stored(result["point"], f"the export {folder}")
    _check_preprocessing(preprocessing, point)
    class_names = _read_classes(folder / CLASSES)
    if len(set(class_names)) < len(class_names):
        raise ValueError(f"{CLASSES} has a line twice")
    if len(class_names) != result["data"]["n_classes"]:
        raise ValueError(
            f"{CLASSES} has {counted(len(class_names), 'line')} for {result['data']['n_classes']} classes"
        )
    return Export(
        folder=folder,
        point=point,
        class_names=class_names,
        reading=_reading(preprocessing),
        store_size=preprocessing["store_size"],
        resolution=preprocessing["resolution"],
        mean=cast(tuple[float, float, float], tuple(preprocessing["mean"])),
        std=cast(tuple[float, float, float], tuple(preprocessing["std"])),
        weights_label=result["weights"]["label"],
        weights_digest=result["weights"]["digest"],
        digest=result["study"]["digest"],
        is_compact=result["format"] == FORMAT_COMPACT,
        members=_points_of_members(folder, result),
    )


def _points_of_members(folder: Path, result: dict[str, Any]) -> tuple[Point, ...]:
    """The points of an ensemble's networks; none for other exports."""
    if result["format"] != FORMAT_ENSEMBLE:
        return ()
    members = result["combined"]["members"]
    if not members:
        raise ValueError(f"{RESULT}: an ensemble without members")
    points = tuple(Point.stored(each["point"], f"the export {folder}") for each in members)
    if len({point.resolution for point in points}) > 1:
        raise ValueError(f"{RESULT}: the members of the ensemble have different resolutions")
    return points


def _check_preprocessing(preprocessing: dict[str, Any], point: Point) -> None:
    """Raise ValueError if a value of preprocessing.json is none that an export of `point` has."""
    size, resolution = preprocessing["store_size"], preprocessing["resolution"]
    if type(resolution) is not int or resolution != point.resolution:
        raise ValueError(
            f"{PREPROCESSING}: resolution = {resolution!r}, but the network has {point.resolution}"
        )
    if type(size) is not int or not resolution <= size <= 2 * resolution:
        raise ValueError(
            f"{PREPROCESSING}: store_size = {size!r} is not from {resolution} to {2 * resolution}"
        )
    for key, (allowed, is_allowed) in _ALLOWED.items():
        if key in preprocessing and not is_allowed(preprocessing[key]):
            raise ValueError(f"{PREPROCESSING}: {key} = {preprocessing[key]!r} is not {allowed}")


def _are_three(value: Any) -> bool:
    numbers = value if isinstance(value, list) else []
    return len(numbers) == 3 and all(type(each) in (int, float) and 0 <= each <= 1 for each in numbers)


def _reading(preprocessing: dict[str, Any]) -> Reading:
    resize_of: dict[str, Resize] = {"crop": "crop", "stretch": "stretch", "squash": "stretch"}
    return Reading(
        resize=resize_of[preprocessing["resize"]],
        bits=preprocessing.get("bits", FULL_BITS),
        megapixels_max=preprocessing.get("megapixels_max", 0.0),
    )


def _read_classes(path: Path) -> tuple[str, ...]:
    # In text mode, other line separators within a name would end a line, too.
    lines = path.read_bytes().decode().removesuffix("\n").split("\n")
    if all(line.endswith("\r") for line in lines):  # Git on Windows checks text files out with CRLF
        lines = [line.removesuffix("\r") for line in lines]
    return tuple(lines)
