"""The training loop: a generator that yields one `Epoch` at a time; the caller reports, prunes and stops.

Every random draw of an epoch comes from (seed, epoch), so that a run continued at epoch e is the run that was
never interrupted.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tlopt.data.augment import epoch_draws, eval_views, training_views
from tlopt.errors import Diverged
from tlopt.point import seed_for
from tlopt.training import penalty
from tlopt.training.groups import schedule_factor
from tlopt.training.images import Images, batches, n_batches
from tlopt.training.metrics import Metrics, confusion_matrix, measure
from tlopt.training.run import Run, memory_errors

EVAL_BATCH_SIZE = 64  # one size everywhere: a last bit may depend on it


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training images and what the network is worth after it."""

    index: int  # from 0
    train_loss: float  # mean over images, smoothing and mixup included, penalty not
    train_accuracy: float  # of the augmented images while training, in [0, 1]
    val: Metrics | None  # None where there are no validation images
    confusion: NDArray[np.int64] | None  # on validation: counts, true class in rows
    seconds: float


def fit(
    run: Run, images: Images, train: NDArray[np.int64], val: NDArray[np.int64] | None
) -> Generator[Epoch]:
    """Train `run.network` in place, one `Epoch` at a time, `point.epochs` of them.

    Args:
        images: every image of the study.
        train: indices to train on.
        val: indices to measure on after each epoch, or None.

    Raises:
        Diverged: a loss is not finite; names the epoch.
        OutOfMemory: the batch does not fit the device.
    """
    for index in range(run.point.epochs):
        start = time.perf_counter()
        with memory_errors():
            train_loss, train_accuracy = _train_epoch(run, images, train, index)
            metrics, confusion = (None, None) if val is None else _measure(run, images, val)
        if not np.isfinite(train_loss):
            raise Diverged(f"epoch {index}: the mean training loss is {train_loss}")
        if metrics is not None and not np.isfinite(metrics.log_loss):
            raise Diverged(f"epoch {index}: the validation log-loss is {metrics.log_loss}")
        yield Epoch(
            index=index,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val=metrics,
            confusion=confusion,
            seconds=time.perf_counter() - start,
        )


@torch.inference_mode()
def predict_logits(run: Run, images: Images, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits (n, classes) of the run's network in eval mode for the images at `indices`."""
    run.network.eval()
    rows = []
    for start in range(0, len(indices), EVAL_BATCH_SIZE):
        pixels = images.gather(indices[start : start + EVAL_BATCH_SIZE], run.device)
        views = eval_views(pixels, resolution=run.point.resolution, mean=images.mean, std=images.std)
        rows.append(run.network(views.contiguous(memory_format=run.memory_format)).float())
    return torch.cat(rows).cpu().numpy()


def _measure(run: Run, images: Images, indices: NDArray[np.int64]) -> tuple[Metrics, NDArray[np.int64]]:
    logits = predict_logits(run, images, indices)
    labels = images.labels[indices]
    return measure(logits, labels), confusion_matrix(labels, logits.argmax(axis=1), run.n_classes)


def _train_epoch(run: Run, images: Images, train: NDArray[np.int64], epoch: int) -> tuple[float, float]:
    """One epoch in place; mean loss and accuracy. The global random state is left as it was."""
    point = run.point
    head_only = epoch < point.head_first_epochs
    freeze_depth = len(run.network.blocks) if head_only else point.freeze_depth
    _set_trainable(run, head_only)
    run.network.set_mode(freeze_depth)
    rng = np.random.default_rng(seed_for(run.seed, "order", epoch))
    order = rng.permutation(train)
    draws = epoch_draws(seed_for(run.seed, "views"), epoch, len(images.labels))
    steps_done = epoch * n_batches(len(train), point.batch_size)
    n_steps = point.epochs * n_batches(len(train), point.batch_size)
    sums = []
    with _seeded(seed_for(run.seed, "dropout", epoch), run.device):
        for i, indices in enumerate(batches(order, point.batch_size)):
            _set_rates(run, steps_done + i, n_steps)
            views = training_views(
                images.gather(indices, run.device),
                resolution=point.resolution,
                strength=point.augmentation,
                flip=images.flip,
                mean=images.mean,
                std=images.std,
                draws=draws[torch.from_numpy(indices)].to(run.device),
            ).contiguous(memory_format=run.memory_format)
            labels = torch.from_numpy(images.labels[indices]).to(run.device, non_blocking=True)
            sums.append(_step(run, views, labels, freeze_depth, rng))
    loss, hits = (torch.stack(sums).cpu().double().sum(dim=0) / len(order)).tolist()
    return loss, hits


def _step(run: Run, views: Tensor, labels: Tensor, freeze_depth: int, rng: np.random.Generator) -> Tensor:
    """One optimiser step in place; (summed loss, hits) on the device, so that nothing waits for it."""
    point = run.point
    targets = labels
    if point.mixup > 0:
        views, targets = _mix(views, labels, rng.beta(point.mixup, point.mixup), run)
    with torch.no_grad():
        features = run.network.prefix(views, freeze_depth)
    logits = run.network.suffix(features, freeze_depth)
    loss = F.cross_entropy(logits, targets, weight=run.class_weights, label_smoothing=point.label_smoothing)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if point.grad_clip > 0:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), point.grad_clip)
    _pull(run)
    run.optimizer.step()
    hits = (logits.detach().argmax(dim=1) == labels).sum()
    return torch.stack([loss.detach() * len(labels), hits.to(loss.dtype)])


def _pull(run: Run) -> None:
    """The penalty's part of a step: coupled for SGD, decoupled for AdamW."""
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
    """Mixup (https://arxiv.org/abs/1710.09412): each image with its neighbour in the batch, soft targets."""
    targets = F.one_hot(labels, run.n_classes).to(views.dtype)
    return (
        share * views + (1 - share) * views.roll(1, dims=0),
        share * targets + (1 - share) * targets.roll(1, dims=0),
    )


def _set_trainable(run: Run, head_only: bool) -> None:
    """Gradients for the head alone, or for all that is not frozen."""
    parameters = dict(run.network.net.named_parameters())
    body = (*run.partition.transferred, *run.partition.fresh)
    for name in body:
        if name in parameters:
            parameters[name].requires_grad_(not head_only)


def _set_rates(run: Run, step: int, n_steps: int) -> None:
    point = run.point
    factor = schedule_factor(
        step, n_steps=n_steps, warmup_fraction=point.warmup_fraction, schedule=point.schedule
    )
    for row, group in zip(run.optimizer.param_groups, run.groups, strict=True):
        row["lr"] = group.lr * factor


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
