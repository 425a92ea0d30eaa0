"""The recipes compared: two bases, and recipes that differ from them in one key."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Share = tuple[float, float]  # of the network's units, from the input on: first and last

# The head's first weights: uniform within 1/sqrt(inputs), as torch's Linear; within 1/sqrt(classes), as
# timm's EfficientNets; zeros; those of logistic regression on pooled features.
HeadStart = Literal["linear", "timm", "zeros", "probe"]

NOTHING: Share = (0.0, 0.0)
WHOLE: Share = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one fine-tuning; the defaults are the base "train"."""

    body_lr: float = 3e-4  # peak
    head_lr: float = 1e-3  # peak
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: with momentum 0.9
    batch_size: int = 16
    epochs: int = 8
    resolution: int = 96  # pixels per side
    warmup_fraction: float = 0.0  # of all steps
    grad_clip: float = 0.0  # largest norm of the whole gradient; 0 is off
    label_smoothing: float = 0.0
    mixup: float = 0.0  # Beta's alpha; 0 is off
    head_dropout: float = 0.0
    head_start: HeadStart = "linear"
    kept: Share = NOTHING  # units whose batch-norm statistics stay those of the pretrained network
    affine_trained: bool = True  # scales and shifts of batch norm
    bn_momentum: float = 0.1
    trained: Share = WHOLE  # other units are frozen, including their statistics
    fresh: Share = NOTHING  # units that start without the pretrained weights; they have the head's rate
    head_first_epochs: int = 0  # at the start, in which only the head is trained
    l2_sp: float = 0.0  # decay of the body's convolutions toward their pretrained weights, times the rate
    delta: float = 0.0  # strengths of the other regularisers in `regularisers`; 0 is off
    bss: float = 0.0
    co_tuning: float = 0.0
    stoch_norm: float = 0.0  # probability that a channel is normalised by the running statistics
    order: int = 0  # another value gives another head, and other views and batches of the same images


TRAIN = Recipe()
KEPT = Recipe(kept=WHOLE)

PROBE = "probe"  # logistic regression on pooled features: no training of the network
RECIPES: Mapping[str, Recipe] = {
    "train": TRAIN,
    "kept": KEPT,
    "train, body 1e-4": replace(TRAIN, body_lr=1e-4),
    "train, body 1e-3": replace(TRAIN, body_lr=1e-3),
    "train, body 3e-3": replace(TRAIN, body_lr=3e-3),
    "kept, body 1e-4": replace(KEPT, body_lr=1e-4),
    "kept, body 1e-3": replace(KEPT, body_lr=1e-3),
    "kept, body 3e-3": replace(KEPT, body_lr=3e-3),
    "kept in the lower half": replace(TRAIN, kept=(0.0, 0.5)),
    "kept in the upper half": replace(TRAIN, kept=(0.5, 1.0)),
    "kept, affine parameters too": replace(KEPT, affine_trained=False),
    "kept, head from the probe": replace(KEPT, head_start="probe"),
    "kept, label smoothing 0.1": replace(KEPT, label_smoothing=0.1),
    "kept, batch 8": replace(KEPT, batch_size=8),
    "kept, batch 32": replace(KEPT, batch_size=32),
    "kept, head as timm's": replace(KEPT, head_start="timm"),
    "kept, head of zeros": replace(KEPT, head_start="zeros"),
    "kept, another order": replace(KEPT, order=1),
    "kept, 16 epochs": replace(KEPT, epochs=16),
    "kept, 128 px": replace(KEPT, resolution=128),
    "kept, only the last third trained": replace(KEPT, trained=(2 / 3, 1.0)),
    "kept, only the first third trained": replace(KEPT, trained=(0.0, 1 / 3)),
    "kept, mixup 0.2": replace(KEPT, mixup=0.2),
    "kept, SGD 0.01": replace(KEPT, optimizer="sgd", body_lr=0.01, head_lr=0.01),
    "kept, head 0.003": replace(KEPT, head_lr=0.003),
    "kept, head 0.01": replace(KEPT, head_lr=0.01),
    "kept, head 0.01, alone for 2 epochs": replace(KEPT, head_lr=0.01, head_first_epochs=2),
    "last fifth fresh, others kept": replace(KEPT, kept=(0.0, 0.8), fresh=(0.8, 1.0)),
    "last fifth fresh, others frozen": replace(TRAIN, trained=(0.8, 1.0), fresh=(0.8, 1.0)),
    "kept, SGD 0.003, head 0.01": replace(KEPT, optimizer="sgd", body_lr=0.003, head_lr=0.01),
    "kept, SGD 0.001, head 0.01": replace(KEPT, optimizer="sgd", body_lr=0.001, head_lr=0.01),
    "kept, SGD 0.0003, head 0.01": replace(KEPT, optimizer="sgd", body_lr=0.0003, head_lr=0.01),
    "kept, gradient clipped to 1": replace(KEPT, grad_clip=1.0),
    "kept, warm-up 10 %": replace(KEPT, warmup_fraction=0.1),
    "kept, head dropout 0.2": replace(KEPT, head_dropout=0.2),
    "train, head as timm's": replace(TRAIN, head_start="timm"),
    "train, head of zeros": replace(TRAIN, head_start="zeros"),
    "train, another order": replace(TRAIN, order=1),
    "train, BN momentum 0.01": replace(TRAIN, bn_momentum=0.01),
    "train, SGD 0.01": replace(TRAIN, optimizer="sgd", body_lr=0.01, head_lr=0.01),
    "train, SGD 0.1": replace(TRAIN, optimizer="sgd", body_lr=0.1, head_lr=0.1),
    "train, head from the probe": replace(TRAIN, head_start="probe"),
    "train, label smoothing 0.1": replace(TRAIN, label_smoothing=0.1),
    "train, batch 8": replace(TRAIN, batch_size=8),
    "train, batch 32": replace(TRAIN, batch_size=32),
    "train, only the last third trained": replace(TRAIN, trained=(2 / 3, 1.0)),
    "train, 16 epochs": replace(TRAIN, epochs=16),
    "kept, BSS 0.001": replace(KEPT, bss=0.001),
    "kept, DELTA 0.005": replace(KEPT, delta=0.005),
    "kept, Co-Tuning 2.3": replace(KEPT, co_tuning=2.3),
    "kept, L2-SP 100": replace(KEPT, l2_sp=100),
    "kept, DELTA 0.5": replace(KEPT, delta=0.5),
    "train, StochNorm 0.5": replace(TRAIN, stoch_norm=0.5),
    "train, BSS 0.001": replace(TRAIN, bss=0.001),
    "train, DELTA 0.005": replace(TRAIN, delta=0.005),
    "train, Co-Tuning 2.3": replace(TRAIN, co_tuning=2.3),
    "train, L2-SP 100": replace(TRAIN, l2_sp=100),
    "train, DELTA 0.5": replace(TRAIN, delta=0.5),
    "kept, BSS 0.01": replace(KEPT, bss=0.01),
    "kept, Co-Tuning 0.5": replace(KEPT, co_tuning=0.5),
    "kept, L2-SP 1000": replace(KEPT, l2_sp=1000),
    "train, StochNorm 0.9": replace(TRAIN, stoch_norm=0.9),
    "train, BSS 0.01": replace(TRAIN, bss=0.01),
    "train, Co-Tuning 0.5": replace(TRAIN, co_tuning=0.5),
    "train, L2-SP 1000": replace(TRAIN, l2_sp=1000),
}  # fmt: skip

LAST = "last"  # the weights after the last step
AVERAGED = ("train", "kept")  # also scored with means of weights

_BASES = ("train", "kept")
_FIRST = (
    *_BASES, "train, body 1e-3", "kept, body 1e-4", PROBE, "kept, body 1e-3",
    "kept, only the last third trained", "kept, head from the probe", "kept in the upper half",
    "kept in the lower half", "kept, batch 8",
    "kept, head as timm's", "kept, label smoothing 0.1", "kept, SGD 0.01",
)  # fmt: skip
_SECOND = (
    "kept, only the first third trained", "kept, affine parameters too", "train, BN momentum 0.01",
    "kept, head of zeros", "kept, mixup 0.2", "train, head as timm's", "kept, batch 32", "kept, 16 epochs",
    "kept, another order", "train, SGD 0.1", "kept, gradient clipped to 1", "kept, warm-up 10 %",
    "kept, 128 px",
)  # fmt: skip


def runs() -> Iterator[tuple[str, int]]:
    """Each recipe's name and seed, the most informative first: some changes, second seeds, other changes."""
    first = [(name, 0) for name in _FIRST]
    again = [(name, 1) for name in _BASES]
    rest = [(name, 0) for name in (*_SECOND, *RECIPES)]
    last = [(name, 1) for name in (*_FIRST, *_SECOND, *RECIPES)]
    yield from dict.fromkeys([*first, *again, *rest, *last])
