"""What a study needs to know of its backbones."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a search space needs to know of its backbones, by name."""

    n_blocks: Mapping[str, int]
    transferable: bool  # False where there are no weights to start from: every depth comes to 0
    resolution: Mapping[str, int]  # what the weights expect, pixels per side
    batch_norm: Mapping[str, bool]  # whether there are batch-norm layers, whose statistics may be kept
    plain_lr: Mapping[str, Mapping[str, float]]  # by optimiser: the usual rate of plain fine-tuning
