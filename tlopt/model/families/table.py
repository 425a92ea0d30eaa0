"""The supported families of backbones, and the library's module for a backbone's name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, Literal

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from tlopt.errors import MissingExtra, SpecError
from tlopt.model.families import timm as timm_families
from tlopt.model.families import torchvision as torchvision_families
from tlopt.model.network import Block, Network
from tlopt.spec.model_names import TIMM, split_width

LITE0 = "efficientnet_lite0"
LITE0_IN_TIMM = "tf_efficientnet_lite0"


@dataclass(frozen=True)
class Positions:
    """The position embedding of a family, with one row for each patch."""

    embedding: str  # name of the parameter in the library's module
    sides: Callable[
        [Any], tuple[int, int]
    ]  # pixels and patches per side of an image, given the library's module


@dataclass(frozen=True, kw_only=True)
class Family:
    """The networks of one class of a library, and their division into blocks."""

    title: str
    library_class: str
    blocks: Callable[[Any], tuple[Block, ...]]
    head_name: str
    resolution_min: int = 8  # pixels per side; below it a feature map is empty
    positions: Positions | None = None  # None without a position embedding for each patch
    # of all blocks but the last: (N, C, H, W), (N, H, W, C) or (N, L, C), the patches being the last tokens
    outputs: Literal["maps", "maps_channels_last", "tokens"] = "maps"
    auxiliary: tuple[str, ...] = ()  # further classifiers in the library's weights, not loaded
    modern_name: Callable[[str], str] = str  # current name of a tensor, given its name in older files
    # the library's arguments for a factor of the channels, given its module; None: it has one width
    at_width: Callable[[Any, float], dict[str, Any]] | None = None
    # where arguments cannot give it: the module with a factor of the channels
    narrowed: Callable[[Any, float], nn.Module] | None = None


_tv, _timm = torchvision_families, timm_families

FAMILIES = (
    Family(
        title="ResNet, ResNeXt, Wide ResNet",
        library_class="torchvision.models.resnet.ResNet",
        blocks=_tv.resnet,
        head_name="fc",
    ),
    Family(
        title="DenseNet",
        library_class="torchvision.models.densenet.DenseNet",
        blocks=_tv.densenet,
        head_name="classifier",
        resolution_min=29,
        modern_name=_tv.modern_densenet_name,
        at_width=_tv.densenet_at_width,
    ),
    Family(
        title="VGG",
        library_class="torchvision.models.vgg.VGG",
        blocks=_tv.vgg,
        head_name="classifier.6",
        resolution_min=32,
        narrowed=_tv.vgg_narrowed,
    ),
    Family(
        title="MobileNetV2",
        library_class="torchvision.models.mobilenetv2.MobileNetV2",
        blocks=_tv.mobilenet_v2,
        head_name="classifier.1",
        at_width=_tv.mobilenet_v2_at_width,
    ),
    Family(
        title="MobileNetV3",
        library_class="torchvision.models.mobilenetv3.MobileNetV3",
        blocks=_tv.mobilenet_v3,
        head_name="classifier.3",
    ),
    Family(
        title="EfficientNet, EfficientNetV2",
        library_class="torchvision.models.efficientnet.EfficientNet",
        blocks=_tv.efficientnet,
        head_name="classifier.1",
    ),
    Family(
        title="ConvNeXt",
        library_class="torchvision.models.convnext.ConvNeXt",
        blocks=_tv.convnext,
        head_name="classifier.2",
        resolution_min=32,
    ),
    Family(
        title="RegNet X, RegNet Y",
        library_class="torchvision.models.regnet.RegNet",
        blocks=_tv.regnet,
        head_name="fc",
    ),
    Family(
        title="Vision Transformer",
        library_class="torchvision.models.vision_transformer.VisionTransformer",
        blocks=_tv.vision_transformer,
        head_name="heads.head",
        positions=Positions("encoder.pos_embedding", _tv.patch_sides),
        at_width=_tv.vision_transformer_at_width,
        outputs="tokens",
    ),
    Family(
        title="Swin, Swin v2",
        library_class="torchvision.models.swin_transformer.SwinTransformer",
        blocks=_tv.swin,
        head_name="head",
        outputs="maps_channels_last",
    ),
    Family(
        title="Inception v3",
        library_class="torchvision.models.inception.Inception3",
        blocks=_tv.inception_v3,
        head_name="fc",
        resolution_min=75,
        auxiliary=("AuxLogits",),
    ),
    Family(
        title="ResNet, ResNeXt, Wide ResNet",
        library_class="timm.models.resnet.ResNet",
        blocks=_timm.resnet,
        head_name="fc",
        at_width=_timm.resnet_at_width,
    ),
    Family(
        title="EfficientNet, EfficientNetV2, EfficientNet-Lite, MobileNetV2",
        library_class="timm.models.efficientnet.EfficientNet",
        blocks=_timm.efficientnet,
        head_name="classifier",
    ),
    Family(
        title="MobileNetV3",
        library_class="timm.models.mobilenetv3.MobileNetV3",
        blocks=_timm.mobilenet_v3,
        head_name="classifier",
    ),
    Family(
        title="ConvNeXt",
        library_class="timm.models.convnext.ConvNeXt",
        blocks=_timm.convnext,
        head_name="head.fc",
        resolution_min=32,
        at_width=_timm.convnext_at_width,
    ),
    Family(
        title="Vision Transformer, DeiT",
        library_class="timm.models.vision_transformer.VisionTransformer",
        blocks=_timm.vision_transformer,
        head_name="head",
        positions=Positions("pos_embed", _timm.patch_sides),
        at_width=_timm.vision_transformer_at_width,
        outputs="tokens",
    ),
)


def import_timm(backbone: str) -> ModuleType:
    """The module `timm`.

    Raises:
        MissingExtra: timm is not installed; names the extra that `backbone` needs.
    """
    try:
        import timm
    except ImportError as error:
        extra = "lite" if backbone == LITE0 else "timm"
        raise MissingExtra(f'{backbone} needs timm: pip install "tlopt[{extra}]"') from error
    module: ModuleType = timm
    return module


@lru_cache
def torchvision_names() -> dict[str, Family]:
    """The supported backbones of torchvision, by name, with their families."""
    by_class = {family.library_class: family for family in FAMILIES}
    found = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        built = torchvision.models.get_model_builder(name).__annotations__["return"]
        family = by_class.get(_qualified_name(built))
        if family is not None:
            found[name] = family
    return found


def supported() -> dict[str, tuple[str, ...]]:
    """Names of backbones by family, torchvision's first; a placeholder for the many names of timm."""
    names: dict[str, tuple[str, ...]] = {}
    for name, family in torchvision_names().items():
        names[family.title] = (*names.get(family.title, ()), name)
    names["EfficientNet-Lite (extra: lite)"] = (LITE0,)
    titles = [family.title for family in FAMILIES if family.library_class.startswith("timm.")]
    names["timm (extra: timm): " + "; ".join(titles)] = (f"{TIMM}NAME",)
    return names


def check_name(backbone: str) -> None:
    """Raise if `backbone` is not a supported name; builds nothing.

    Raises:
        SpecError: with similar names, or else the families; or its width is not allowed.
        MissingExtra: it needs timm, which is not installed.
    """
    backbone, _ = split_width(backbone)
    if backbone.startswith(TIMM):
        name = backbone.removeprefix(TIMM)
        timm = import_timm(backbone)
        architecture, _, tag = name.partition(".")
        if tag and timm.is_model(architecture):
            raise SpecError(f'model.backbone: write "{TIMM}{architecture}" and weights = "{tag}"')
        if not timm.is_model(name):
            known = [TIMM + known for known in timm.list_models()]
            raise SpecError(f"model.backbone: timm has no {name!r}; {_similar_names(backbone, known)}")
    elif backbone not in torchvision_names() and backbone != LITE0:
        known = [*torchvision_names(), LITE0]
        raise SpecError(f"model.backbone: {backbone!r} is not supported; {_similar_names(backbone, known)}")


def library_module(backbone: str, image_size: int | None = None) -> nn.Module:
    """The library's module, initialised from torch's global generator.

    Args:
        backbone: name of a supported backbone.
        image_size: pixels per side, for networks with position embeddings; None for the library's default.

    Raises:
        SpecError: as `check_name`, or the library cannot build the network at this width.
        MissingExtra: as `check_name`.
    """
    check_name(backbone)
    name, width = split_width(backbone)
    if is_beyond_library(backbone):
        return _narrowed(name, width)
    options = {} if width == 1 else width_options(name, width)
    net: nn.Module
    if name == LITE0 or name.startswith(TIMM):
        timm = import_timm(name)
        library_name = LITE0_IN_TIMM if name == LITE0 else name.removeprefix(TIMM)
        size = {} if image_size is None else {"img_size": image_size}
        net = timm.create_model(library_name, pretrained=False, num_classes=1000, **size, **options)
        return net
    size = {} if image_size is None else {"image_size": image_size}
    if options:
        # torchvision's functions for a name fix these arguments; its classes do not.
        net = getattr(torchvision.models, class_name(name))(**options | size)
        return net
    if torchvision_names()[name].auxiliary:
        # Rescale the input, as torchvision does for its own weights, whatever the weights.
        options = {"init_weights": True, "aux_logits": False, "transform_input": True}
    net = torchvision.models.get_model(name, weights=None, **size, **options)
    return net


@lru_cache
def width_options(name: str, width: float) -> dict[str, Any]:
    """Arguments with which the library builds the network `name` with `width` times its channels.

    Raises:
        SpecError: it cannot; lists the families for which it can.
    """
    net = skeleton(name).net
    family = family_of(net, name)
    if family.at_width is None:
        able = [
            f"{each.library_class.partition('.')[0]}'s {each.title}"
            for each in FAMILIES
            if each.at_width or each.narrowed
        ]
        raise SpecError(
            f'model.backbone: "{name}@{width:g}": {name} has one width only; others are possible for'
            f' {"; ".join(able)}, as in "timm:resnet18d@{width:g}"'
        )
    return family.at_width(net, width)


def is_beyond_library(backbone: str) -> bool:
    """Whether the backbone has a width that its library's arguments cannot give."""
    name, width = split_width(backbone)
    return width != 1 and name in torchvision_names() and torchvision_names()[name].narrowed is not None


def _narrowed(name: str, width: float) -> nn.Module:
    narrowed = torchvision_names()[name].narrowed
    assert narrowed is not None
    return narrowed(skeleton(name).net, width)


def class_name(name: str) -> str:
    """The name of the class of a torchvision network."""
    return torchvision_names()[name].library_class.rpartition(".")[2]


def family_of(net: nn.Module, backbone: str) -> Family:
    """The family of a library's module.

    Raises:
        SpecError: it is a timm model of an unsupported class; lists the families.
    """
    for family in FAMILIES:
        if family.library_class == _qualified_name(type(net)):
            return family
    titles = "; ".join(family.title for family in FAMILIES if family.library_class.startswith("timm."))
    raise SpecError(
        f"model.backbone: {backbone} is a {type(net).__name__}, which is not supported; supported families of"
        f" timm: {titles}"
    )


def as_network(net: nn.Module, backbone: str) -> Network:
    """`net` as a `Network`, with the library's classifier as its head.

    Raises:
        SpecError: as `family_of`.
    """
    family = family_of(net, backbone)
    classifier = net.get_submodule(family.head_name)
    assert isinstance(classifier, nn.Linear), f"{backbone}: {family.head_name} is not a Linear"
    return Network(net, family.blocks(net), family.head_name, classifier.in_features)


class _EmptyOnMeta(TorchFunctionMode):
    """A mode in which tensors from `torch.empty` have no storage.

    `with torch.device("meta")` would also apply to small tensors that constructors read (RegNet's widths).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        return func(*args, **(kwargs or {}))


def skeleton(backbone: str, image_size: int | None = None) -> Network:
    """The network of `backbone` with names, shapes and order only: fast, most tensors without storage."""
    with torch.random.fork_rng(devices=[]):
        try:
            with _EmptyOnMeta():
                net = library_module(backbone, image_size)
        except RuntimeError:
            # Some constructors run part of the network (timm's hybrids, to measure the output of their stem).
            net = library_module(backbone, image_size)
    return as_network(net, backbone)


def _qualified_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _similar_names(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
    if matches:
        return "similar names: " + ", ".join(matches)
    titles = dict.fromkeys(family.title for family in FAMILIES)
    return f'supported are torchvision\'s {"; ".join(titles)}; {LITE0}; and "{TIMM}NAME"'
