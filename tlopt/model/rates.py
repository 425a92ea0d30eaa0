"""Usual learning rates for fine-tuning a whole pretrained network."""

from functools import lru_cache

from tlopt.model.families import table as families
from tlopt.model.norms import batch_norms


def usual_lr(backbone: str) -> dict[str, float]:
    """The usual learning rate of plain fine-tuning, by optimiser.

    Ten times higher with batch-norm than without (transformers, ConvNeXt, plain VGG), as in the recipes of
    torchvision's references and timm.
    """
    return {"sgd": 0.01, "adamw": 0.001} if has_batch_norm(backbone) else {"sgd": 0.001, "adamw": 0.0001}


@lru_cache  # building a skeleton takes tenths of a second, and a worker needs it for every trial
def has_batch_norm(backbone: str) -> bool:
    """Whether the backbone has batch-norm layers."""
    return any(batch_norms(families.skeleton(backbone).net))
