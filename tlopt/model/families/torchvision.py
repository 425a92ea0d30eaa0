"""torchvision's families as ordered blocks. Only this module and `families.timm` use names of layers."""

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.vgg import VGG, make_layers

from tlopt.model.network import Block, ForwardStep, block

flatten = partial(torch.flatten, start_dim=1)


def children(net: nn.Module, *paths: str) -> list[str]:
    """Qualified names of the direct children of the modules at `paths`, in order."""
    return [f"{path}.{name}" for path in paths for name, _ in net.get_submodule(path).named_children()]


def scaled(channels: int, width: float, *, multiple: int = 1) -> int:
    """The multiple of `multiple`, at least one, that is next to `width` times `channels`."""
    return max(1, round(channels * width / multiple)) * multiple


def stem_and_units(
    net: nn.Module,
    stem: tuple[str | ForwardStep, ...],
    units: Iterable[str | tuple[str, ...]],
    *tail: str | ForwardStep,
) -> tuple[Block, ...]:
    """A stem block, then one block for each of `units`; the last one also runs `tail`.

    A unit is one module or several that run in sequence; the last one gives the block its name.
    """
    *body, last = [(unit,) if isinstance(unit, str) else unit for unit in units]
    return (
        block(net, "stem", *stem),
        *(block(net, unit[-1], *unit) for unit in body),
        block(net, last[-1], *last, *tail),
    )


def resnet(net: Any) -> tuple[Block, ...]:
    """ResNet, ResNeXt, Wide ResNet: stem, then each residual block."""
    units = children(net, "layer1", "layer2", "layer3", "layer4")
    return stem_and_units(net, ("conv1", "bn1", "relu", "maxpool"), units, "avgpool", flatten)


def densenet(net: Any) -> tuple[Block, ...]:
    """DenseNet: stem, then each dense layer and each transition; the final norm belongs to the last layer."""
    stem = tuple(f"features.{name}" for name in ("conv0", "norm0", "relu0", "pool0"))
    blocks = [block(net, "stem", *stem)]
    for name in children(net, "features"):
        if "denseblock" in name:
            blocks += [_dense_layer(net, layer) for layer in children(net, name)]
        elif "transition" in name:
            blocks.append(block(net, name, name))
    relu = partial(functional.relu, inplace=True)
    pool = partial(functional.adaptive_avg_pool2d, output_size=(1, 1))
    last = blocks[-1]
    tail = block(net, last.name, last.forward, "features.norm5", relu, pool, flatten, owns=last.members)
    return (*blocks[:-1], tail)


def densenet_at_width(net: Any, width: float) -> dict[str, Any]:
    """Arguments of a DenseNet with `width` times the channels of the stem and of each layer."""
    stages = [name for name in children(net, "features") if "denseblock" in name]
    layers = [children(net, name) for name in stages]
    return {
        "growth_rate": scaled(net.get_submodule(layers[0][0]).conv2.out_channels, width),
        "block_config": tuple(map(len, layers)),
        "num_init_features": scaled(net.features.conv0.out_channels, width),
    }


def _dense_layer(net: nn.Module, name: str) -> Block:
    return block(net, name, partial(_append_features, net.get_submodule(name)), owns=(name,))


def _append_features(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([x, layer(x)], 1)


def vgg(net: Any) -> tuple[Block, ...]:
    """VGG: each convolution with its norm, ReLU and pooling; the two hidden layers belong to the last one."""
    groups: list[list[str | ForwardStep]] = []
    for name in children(net, "features"):
        if isinstance(net.get_submodule(name), nn.Conv2d):
            groups.append([])
        groups[-1].append(name)
    groups[-1] += ["avgpool", flatten, *children(net, "classifier")[:-1]]
    return tuple(block(net, str(group[0]), *group) for group in groups)


def vgg_narrowed(net: Any, width: float) -> nn.Module:
    """A VGG with `width` times the channels and hidden units, initialised as torchvision initialises it.

    torchvision's own class fixes the widths of the classifier's layers.
    """
    layers = list(net.features)
    config = [
        scaled(layer.out_channels, width) if isinstance(layer, nn.Conv2d) else "M"
        for layer in layers
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d))
    ]
    channels = next(size for size in reversed(config) if isinstance(size, int))
    hidden, n_classes = scaled(net.classifier[0].out_features, width), net.classifier[-1].out_features
    with torch.device("meta"):  # a classifier of the usual width has 120 million parameters
        narrow: nn.Module = VGG(nn.Identity(), init_weights=False)
    narrow.features = make_layers(config, batch_norm=any(isinstance(each, nn.BatchNorm2d) for each in layers))
    narrow.classifier = nn.Sequential(
        *(nn.Linear(channels * 7 * 7, hidden), nn.ReLU(inplace=True), nn.Dropout()),
        *(nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout()),
        nn.Linear(hidden, n_classes),
    )
    for layer in narrow.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return narrow


def mobilenet_v2(net: Any) -> tuple[Block, ...]:
    """MobileNetV2: stem, then each inverted residual; the last 1×1 convolution belongs to the last one."""
    stem, *units, last = children(net, "features")
    pool = partial(functional.adaptive_avg_pool2d, output_size=(1, 1))
    return stem_and_units(net, (stem,), units, last, pool, flatten, "classifier.0")


def mobilenet_v2_at_width(_net: Any, width: float) -> dict[str, Any]:
    """Arguments of a MobileNetV2 with about `width` times the channels, in multiples of eight."""
    return {"width_mult": width}


def mobilenet_v3(net: Any) -> tuple[Block, ...]:
    """MobileNetV3: stem, then each inverted residual; last convolution and hidden layer are in the last."""
    stem, *units, last = children(net, "features")
    hidden = children(net, "classifier")[:-1]
    return stem_and_units(net, (stem,), units, last, "avgpool", flatten, *hidden)


def efficientnet(net: Any) -> tuple[Block, ...]:
    """EfficientNet and V2: stem, then each MBConv; the last 1×1 convolution belongs to the last one."""
    stem, *stages, last = children(net, "features")
    return stem_and_units(net, (stem,), children(net, *stages), last, "avgpool", flatten, "classifier.0")


def convnext(net: Any) -> tuple[Block, ...]:
    """ConvNeXt: stem, then each block; the final norm belongs to the last one."""
    stem, units = _staged(net)
    return stem_and_units(net, (stem,), units, "avgpool", "classifier.0", "classifier.1")


def swin(net: Any) -> tuple[Block, ...]:
    """Swin v1 and v2: patch embedding, then each transformer block; the final norm is in the last."""
    stem, units = _staged(net)
    return stem_and_units(net, (stem,), units, "norm", "permute", "avgpool", "flatten")


def _staged(net: nn.Module) -> tuple[str, list[tuple[str, ...]]]:
    """The stem, and the blocks of all stages; a downsampling between stages belongs to the block after it."""
    stem, *rest = children(net, "features")
    units: list[tuple[str, ...]] = []
    between: tuple[str, ...] = ()
    for stage, downsampling in zip(rest[::2], [*rest[1::2], ""], strict=True):
        first, *others = children(net, stage)
        units += [(*between, first), *((name,) for name in others)]
        between = (downsampling,)
    return stem, units


def regnet(net: Any) -> tuple[Block, ...]:
    """RegNet X and Y: stem, then each residual block."""
    units = children(net, *children(net, "trunk_output"))
    return stem_and_units(net, ("stem",), units, "avgpool", flatten)


def vision_transformer(net: Any) -> tuple[Block, ...]:
    """ViT: patches with class token and positions, then each encoder layer; the final norm is in the last."""
    tokens = ("conv_proj", "class_token", "encoder.pos_embedding", "encoder.dropout")
    *body, last = children(net, "encoder.layers")
    return (
        block(net, "stem", partial(_tokens, net), owns=tokens),
        *(block(net, name, name) for name in body),
        block(net, last, last, "encoder.ln", _class_token),
    )


def vision_transformer_at_width(net: Any, width: float) -> dict[str, Any]:
    """Arguments of a ViT with `width` times the features, in as many heads."""
    layers = list(net.encoder.layers)
    heads = layers[0].num_heads
    return {
        "image_size": net.image_size,
        "patch_size": net.patch_size,
        "num_layers": len(layers),
        "num_heads": heads,
        "hidden_dim": scaled(net.hidden_dim, width, multiple=heads),
        "mlp_dim": scaled(net.mlp_dim, width),
    }


def _tokens(net: Any, x: Tensor) -> Tensor:
    x = net._process_input(x)
    x = torch.cat([net.class_token.expand(x.shape[0], -1, -1), x], dim=1)
    embedded: Tensor = net.encoder.dropout(x + net.encoder.pos_embedding)
    return embedded


def patch_sides(net: Any) -> tuple[int, int]:
    """Pixels and patches per side of an image."""
    return net.image_size, net.image_size // net.patch_size


def _class_token(x: Tensor) -> Tensor:
    return x[:, 0]


def inception_v3(net: Any) -> tuple[Block, ...]:
    """Inception v3: each convolution of the stem with its pooling, then each mixed block."""
    mixed = [name for name, _ in net.named_children() if name.startswith("Mixed_")]
    return (
        block(net, "Conv2d_1a_3x3", net._transform_input, "Conv2d_1a_3x3"),
        block(net, "Conv2d_2a_3x3", "Conv2d_2a_3x3"),
        block(net, "Conv2d_2b_3x3", "Conv2d_2b_3x3", "maxpool1"),
        block(net, "Conv2d_3b_1x1", "Conv2d_3b_1x1"),
        block(net, "Conv2d_4a_3x3", "Conv2d_4a_3x3", "maxpool2"),
        *(block(net, name, name) for name in mixed[:-1]),
        block(net, mixed[-1], mixed[-1], "avgpool", "dropout", flatten),
    )


def modern_densenet_name(name: str) -> str:
    """The current name of a tensor in torchvision's DenseNet files, which have norm.1 for norm1."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name)
