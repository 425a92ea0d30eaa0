"""The rates at which people usually fine-tune a whole pretrained network."""

from functools import lru_cache

from tlopt.model.families import table as families
from tlopt.model.norms import batch_norms


def usual_lr(backbone: str) -> dict[str, float]:
    """The usual learning rate of plain fine-tuning, by optimiser.

    Networks with batch-norm bear ten times the rate of those without (transformers, ConvNeXt, plain VGG), as
    the recipes of torchvision's references and timm have it.
    """
    return {"sgd": 0.01, "adamw": 0.001} if has_batch_norm(backbone) else {"sgd": 0.001, "adamw": 0.0001}


@lru_cache  # a skeleton takes tenths of a second to build, and a worker asks again and again
def has_batch_norm(backbone: str) -> bool:
    """Whether the network has batch-norm layers."""
    return any(batch_norms(families.skeleton(backbone).net))
