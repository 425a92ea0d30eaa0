"""The rates at which people usually fine-tune a whole pretrained network."""

from torch import nn

from tlopt.model import families

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def usual_lr(backbone: str) -> dict[str, float]:
    """The usual learning rate of plain fine-tuning, by optimiser.

    Networks with batch-norm bear ten times the rate of those without (transformers, ConvNeXt, plain VGG), as
    the recipes of torchvision's references and timm have it.
    """
    net = families.skeleton(backbone).net
    normalised = any(isinstance(module, _BATCH_NORMS) for module in net.modules())
    return {"sgd": 0.01, "adamw": 0.001} if normalised else {"sgd": 0.001, "adamw": 0.0001}
