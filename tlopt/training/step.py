"""One optimiser step: forward and backward pass, penalty and update."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tlopt.spec.point import seed_for
from tlopt.training import penalty
from tlopt.training.kernels import fast_convolutions
from tlopt.training.run import Run, widest_float


def take_step(run: Run, features: Tensor, labels: Tensor, split_depth: int, freeze_depth: int) -> Tensor:
    """Take one optimiser step in place; return (summed loss, correct predictions) without synchronising."""
    point = run.point
    # at least two images per micro-batch, which batch-norm needs in training
    n_pieces = max(1, min(run.n_micro_batches, len(labels) // 2))
    share, whole = _mixup_share(run), _divisor(run, labels)
    run.optimizer.zero_grad(set_to_none=True)
    rows = [
        _backward(run, piece, some, split_depth, freeze_depth, share, whole)
        for piece, some in zip(features.tensor_split(n_pieces), labels.tensor_split(n_pieces), strict=True)
    ]
    if point.grad_clip > 0:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), point.grad_clip)
    _pull(run)
    run.optimizer.step()
    sums = sum(rows[1:], start=rows[0]).to(widest_float(run.device))
    sums[0] *= len(labels)
    return sums


def _backward(
    run: Run,
    features: Tensor,
    labels: Tensor,
    split_depth: int,
    freeze_depth: int,
    share: float,
    whole: Tensor | int,
) -> Tensor:
    """Add a micro-batch's gradients; return (its part of the batch's mean loss, correct predictions)."""
    point, targets = run.point, labels
    if point.mixup > 0:
        features, targets = _mix(features, labels, share, run)
    with run.numerics.autocast(run.device):
        with torch.no_grad():
            features = run.network.between(features, split_depth, freeze_depth)
        logits = _logits(run, features, freeze_depth)
    mean = F.cross_entropy(
        logits.float(), targets, weight=run.class_weights, label_smoothing=point.label_smoothing
    )
    loss = mean * (_divisor(run, labels) / whole)
    loss.backward()  # type: ignore[no-untyped-call]
    hits = (logits.detach().argmax(dim=1) == labels).sum()
    return torch.stack([loss.detach(), hits.to(loss.dtype)])


def _logits(run: Run, features: Tensor, freeze_depth: int) -> Tensor:
    if run.compiled is not None:
        return run.compiled(features, freeze_depth)
    with fast_convolutions(run.device):
        return run.network.suffix(features, freeze_depth)


def _divisor(run: Run, labels: Tensor) -> Tensor | int:
    """Divisor of torch's mean cross-entropy: the number of images, or for hard targets their weights' sum."""
    if run.class_weights is None or run.point.mixup > 0:
        return len(labels)
    return run.class_weights[labels].sum()


def _mixup_share(run: Run) -> float:
    """Mixup's weight of an image itself in the step at `run.position`; 1 without mixup."""
    point, position = run.point, run.position
    if point.mixup == 0:
        return 1.0
    rng = np.random.default_rng(seed_for(run.seed, "mixup", position.epoch, position.step))
    return float(rng.beta(point.mixup, point.mixup))


def _pull(run: Run) -> None:
    """Apply the penalty: coupled for SGD, decoupled for AdamW."""
    if run.point.optimizer == "sgd":
        penalty.add_to_gradients(run.pulls)
        return
    lr_of = {
        name: row["lr"]
        for row, group in zip(run.optimizer.param_groups, run.groups, strict=True)
        for name in group.names
    }
    penalty.decay_weights(run.pulls, lr_of)


def _mix(views: Tensor, labels: Tensor, share: float, run: Run) -> tuple[Tensor, Tensor]:
    """Mixup (https://arxiv.org/abs/1710.09412) of neighbouring images in the batch, with soft targets."""
    targets = F.one_hot(labels, run.n_classes).to(views.dtype)
    return (
        share * views + (1 - share) * views.roll(1, dims=0),
        share * targets + (1 - share) * targets.roll(1, dims=0),
    )
