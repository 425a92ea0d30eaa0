"""The training loop: a generator that yields one `Epoch` at a time; the caller reports, prunes and stops.

Every random draw comes from (seed, epoch, step), so that a run continued after any step is the run that was
never interrupted.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

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
from tlopt.training.run import Run, memory_errors, widest_float

EVAL_BATCH_SIZE = 64  # one size everywhere: a last bit may depend on it


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training images and what the network is worth after it."""

    index: int  # from 0
    train_loss: float  # mean over images, smoothing and mixup included, penalty not
    train_accuracy: float  # of the augmented images while training, in [0, 1]
    val: Metrics | None  # None where there are no validation images
    confusion: NDArray[np.int64] | None  # on validation: counts, true class in rows
    seconds: float  # in this process, training and evaluation: of an interrupted epoch, its last part


@dataclass(frozen=True)
class Step:
    """One optimiser step that has been taken."""

    epoch: int  # from 0
    index: int  # from 0, in its epoch
    n_steps: int  # of the epoch


def fit(
    run: Run, images: Images, train: NDArray[np.int64], val: NDArray[np.int64] | None
) -> Generator[Epoch]:
    """Train `run.network` in place, one `Epoch` at a time, up to `point.epochs`.

    Args:
        run: it goes on where it stands.
        images: every image of the study.
        train: indices to train on.
        val: indices to measure on after each epoch, or None.

    Raises:
        Diverged: a loss is not finite; names the epoch.
        OutOfMemory: the batch does not fit the device. The run may have taken half a step: it is spent.
    """
    for event in steps(run, images, train, val):
        if isinstance(event, Epoch):
            yield event


def steps(
    run: Run, images: Images, train: NDArray[np.int64], val: NDArray[np.int64] | None
) -> Generator[Step | Epoch]:
    """`fit`, with a `Step` after each optimiser step as well.

    After whatever it yields, the caller may stop, save the run and go on elsewhere to the same bits;
    `run.position` says where it stands. In between, the network's mode is the loop's, the global random
    state the caller's. Nothing is read back from the device before an epoch's last step.

    Args and raises: as `fit`.
    """
    position = run.position
    while position.epoch < run.point.epochs:
        seconds, start = 0.0, time.perf_counter()
        with memory_errors():
            for step in _train_epoch(run, images, train):
                seconds += time.perf_counter() - start
                yield step
                start = time.perf_counter()
            epoch = _finish_epoch(run, images, len(train), val)
        seconds += time.perf_counter() - start
        position.epoch, position.step, position.sums = position.epoch + 1, 0, None
        yield replace(epoch, seconds=seconds)


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


def _finish_epoch(run: Run, images: Images, n_train: int, val: NDArray[np.int64] | None) -> Epoch:
    """What the epoch of which all steps are taken was worth, its seconds still 0."""
    index, sums = run.position.epoch, run.position.sums
    assert sums is not None, "an epoch has at least one step"
    train_loss, train_accuracy = (sums / n_train).tolist()
    metrics, confusion = (None, None) if val is None else _measure(run, images, val)
    if not np.isfinite(train_loss):
        raise Diverged(f"epoch {index}: the mean training loss is {train_loss}")
    if metrics is not None and not np.isfinite(metrics.log_loss):
        raise Diverged(f"epoch {index}: the validation log-loss is {metrics.log_loss}")
    return Epoch(
        index=index,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        val=metrics,
        confusion=confusion,
        seconds=0.0,
    )


def _measure(run: Run, images: Images, indices: NDArray[np.int64]) -> tuple[Metrics, NDArray[np.int64]]:
    logits = predict_logits(run, images, indices)
    labels = images.labels[indices]
    return measure(logits, labels), confusion_matrix(labels, logits.argmax(axis=1), run.n_classes)


def _train_epoch(run: Run, images: Images, train: NDArray[np.int64]) -> Generator[Step]:
    """The steps that are left of the epoch at `run.position`, in place."""
    point, position = run.point, run.position
    epoch, n_steps = position.epoch, n_batches(len(train), point.batch_size)
    head_only = epoch < point.head_first_epochs
    freeze_depth = len(run.network.blocks) if head_only else point.freeze_depth
    _set_trainable(run, head_only)
    run.network.set_mode(freeze_depth)
    order = np.random.default_rng(seed_for(run.seed, "order", epoch)).permutation(train)
    draws = epoch_draws(seed_for(run.seed, "views"), epoch, len(images.labels))
    for index, indices in islice(enumerate(batches(order, point.batch_size)), position.step, None):
        _set_rates(run, epoch * n_steps + index, point.epochs * n_steps)
        with _seeded(seed_for(run.seed, "dropout", epoch, index), run.device):
            sums = _step(run, images, indices, draws, freeze_depth)
        position.sums = sums if position.sums is None else position.sums + sums
        position.step = index + 1
        yield Step(epoch, index, n_steps)


def _step(run: Run, images: Images, indices: NDArray[np.int64], draws: Tensor, freeze_depth: int) -> Tensor:
    """One optimiser step in place; (summed loss, hits) on the device, so that nothing waits for it."""
    point = run.point
    labels = torch.from_numpy(images.labels[indices]).to(run.device, non_blocking=True)
    # no piece of one image: batch-norm cannot be trained on it
    n_pieces = max(1, min(run.n_micro, len(indices) // 2))
    share, whole = _mixup_share(run), _divisor(run, labels)
    run.optimizer.zero_grad(set_to_none=True)
    rows = [
        _backward(run, _views(run, images, piece, draws), some, freeze_depth, share, whole)
        for piece, some in zip(np.array_split(indices, n_pieces), labels.tensor_split(n_pieces), strict=True)
    ]
    if point.grad_clip > 0:
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), point.grad_clip)
    _pull(run)
    run.optimizer.step()
    sums = sum(rows[1:], start=rows[0]).to(widest_float(run.device))
    sums[0] *= len(labels)
    return sums


def _views(run: Run, images: Images, indices: NDArray[np.int64], draws: Tensor) -> Tensor:
    return training_views(
        images.gather(indices, run.device),
        resolution=run.point.resolution,
        strength=run.point.augmentation,
        flip=images.flip,
        mean=images.mean,
        std=images.std,
        draws=draws[torch.from_numpy(indices)].to(run.device, non_blocking=True),
    ).contiguous(memory_format=run.memory_format)


def _backward(
    run: Run, views: Tensor, labels: Tensor, freeze_depth: int, share: float, whole: Tensor | int
) -> Tensor:
    """Add to the gradients a piece's part of its batch's mean; (its part of the mean loss, hits)."""
    point, targets = run.point, labels
    if point.mixup > 0:
        views, targets = _mix(views, labels, share, run)
    with torch.no_grad():
        features = run.network.prefix(views, freeze_depth)
    logits = run.network.suffix(features, freeze_depth)
    mean = F.cross_entropy(logits, targets, weight=run.class_weights, label_smoothing=point.label_smoothing)
    loss = mean * (_divisor(run, labels) / whole)
    loss.backward()  # type: ignore[no-untyped-call]
    hits = (logits.detach().argmax(dim=1) == labels).sum()
    return torch.stack([loss.detach(), hits.to(loss.dtype)])


def _divisor(run: Run, labels: Tensor) -> Tensor | int:
    """What torch's mean cross-entropy divides by: images, or with hard targets their weights' sum."""
    if run.class_weights is None or run.point.mixup > 0:
        return len(labels)
    return run.class_weights[labels].sum()


def _mixup_share(run: Run) -> float:
    """How much of itself an image keeps in the step at `run.position`; 1 without mixup."""
    point, position = run.point, run.position
    if point.mixup == 0:
        return 1.0
    rng = np.random.default_rng(seed_for(run.seed, "mixup", position.epoch, position.step))
    return float(rng.beta(point.mixup, point.mixup))


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
    """The generators that dropout draws from, seeded within and then as they were.

    Ten microseconds, where `fork_rng` and `manual_seed` visit every device and take a millisecond.
    """
    generators = [torch.default_generator, *_generators(device)]
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generators(device: torch.device) -> tuple[torch.Generator, ...]:
    match device.type:
        case "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            return (torch.cuda.default_generators[index],)
        case "mps":
            return (torch.mps._get_default_mps_generator(),)
        case _:
            return ()
