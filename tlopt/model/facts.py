"""Facts about the backbones of a study that its search space depends on."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BackboneFacts:
    """Facts about the backbones of a study, by name."""

    n_blocks: Mapping[str, int]
    transferable: bool  # False for model.weights = "none", where every depth is 0
    resolution: Mapping[str, int]  # that the weights were trained at, pixels per side
    batch_norm: Mapping[str, bool]  # whether the backbone has batch-norm layers
    plain_lr: Mapping[str, Mapping[str, float]]  # by optimiser: usual learning rate of plain fine-tuning
