"""One small network of every supported family, with five classes and random values in every tensor."""

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import nn
from torchvision.models import convnext, densenet, efficientnet, regnet, resnet, swin_transformer, vgg

from tlopt.model.families import table
from tlopt.model.network import Network

N_CLASSES = 5


def _vgg() -> nn.Module:
    with torch.device("meta"):  # the library's hidden layers have 119 million parameters
        net = vgg.VGG(vgg.make_layers([8, "M", 16, "M", 16, "M"], batch_norm=True), init_weights=False)
    net.features = vgg.make_layers([8, "M", 16, "M", 16, "M"], batch_norm=True)
    net.classifier = nn.Sequential(
        nn.Linear(16 * 7 * 7, 24),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(24, 24),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(24, N_CLASSES),
    )
    return net


def _efficientnet(fused: bool) -> nn.Module:
    first = efficientnet.FusedMBConvConfig if fused else efficientnet.MBConvConfig
    stages = [
        first(1, 3, 1, 16, 8, 2),
        efficientnet.MBConvConfig(4, 3, 2, 8, 16, 2, 1.0, 1.0),
    ]
    return efficientnet.EfficientNet(stages, dropout=0.2, last_channel=48, num_classes=N_CLASSES)


def _regnet(se_ratio: float | None) -> nn.Module:
    params = regnet.BlockParams.from_init_params(
        depth=6, w_0=16, w_a=10.0, w_m=2.0, group_width=8, se_ratio=se_ratio
    )
    return regnet.RegNet(params, num_classes=N_CLASSES, stem_width=8)


def _swin(version: int) -> nn.Module:
    block = {1: swin_transformer.SwinTransformerBlock, 2: swin_transformer.SwinTransformerBlockV2}[version]
    merging = {1: swin_transformer.PatchMerging, 2: swin_transformer.PatchMergingV2}[version]
    return swin_transformer.SwinTransformer(
        [4, 4], 24, [2, 1], [3, 3], [4, 4], num_classes=N_CLASSES, block=block, downsample_layer=merging
    )


def _vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=48,
        num_classes=N_CLASSES,
    )


def _convnext() -> nn.Module:
    stages = [convnext.CNBlockConfig(16, 32, 2), convnext.CNBlockConfig(32, None, 1)]
    return convnext.ConvNeXt(stages, layer_scale=0.5, num_classes=N_CLASSES)


def _timm(name: str, **options: int) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model(name, num_classes=N_CLASSES, **options)
    return net


def _bottlenecks(groups: int) -> nn.Module:
    return resnet.ResNet(
        resnet.Bottleneck, [1, 2, 1, 1], num_classes=N_CLASSES, groups=groups, width_per_group=32 // groups
    )


TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    "ResNet": partial(resnet.ResNet, resnet.BasicBlock, [1, 1, 1, 1], num_classes=N_CLASSES),
    "ResNet with bottlenecks": partial(_bottlenecks, 1),
    "ResNeXt": partial(_bottlenecks, 4),
    "DenseNet": partial(densenet.DenseNet, 8, (2, 2, 2, 2), 16, num_classes=N_CLASSES),
    "VGG": _vgg,
    "MobileNetV2": partial(torchvision.models.mobilenet_v2, num_classes=N_CLASSES, width_mult=0.25),
    "MobileNetV3": partial(torchvision.models.mobilenet_v3_small, num_classes=N_CLASSES, width_mult=0.5),
    "EfficientNet": partial(_efficientnet, False),
    "EfficientNetV2": partial(_efficientnet, True),
    "ConvNeXt": _convnext,
    "RegNet X": partial(_regnet, None),
    "RegNet Y": partial(_regnet, 0.25),
    "ViT": _vit,
    "Swin": partial(_swin, 1),
    "Swin v2": partial(_swin, 2),
    "Inception v3": partial(
        torchvision.models.inception_v3,
        num_classes=N_CLASSES,
        aux_logits=False,
        init_weights=False,
        transform_input=True,
    ),
}
TIMM: dict[str, Callable[[], nn.Module]] = {
    "EfficientNet-Lite": partial(_timm, "tf_efficientnet_lite0"),
    "timm ResNet": partial(_timm, "test_resnet"),
    "timm ResNet-D": partial(_timm, "resnet26d"),
    "timm EfficientNet": partial(_timm, "test_efficientnet"),
    "timm MobileNetV3": partial(_timm, "mobilenetv3_small_050"),
    "timm ConvNeXt": partial(_timm, "convnext_atto"),
    "timm ConvNeXt, overlapping stem": partial(_timm, "convnext_atto_ols"),
    "timm ViT": partial(_timm, "test_vit", img_size=32),
    "timm ViT with convolutions": partial(_timm, "test_vit4", img_size=32),
}
RESOLUTION = {"Inception v3": 75}  # pixels per side; 32 for the others


def make_network(family: str, *, seed: int = 0) -> Network:
    """The small network of a family, in double precision and eval mode; every tensor is random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = {**TORCHVISION, **TIMM}[family]()
        randomise(net)
    return table.as_network(net.double().eval(), family)


def randomise(net: nn.Module) -> None:
    """Move every tensor from its initial value: layer scales, heads of zeros and statistics, too."""
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand_like(tensor))
            elif tensor.is_floating_point():
                tensor.add_((0.3 if tensor.ndim == 1 else 0.03) * torch.randn_like(tensor))
