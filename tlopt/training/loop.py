"""The training loop: a generator of epochs and steps whose caller reports, prunes and stops.

All randomness derives from (seed, epoch, step), so a run resumed after any step equals an uninterrupted one.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlopt.data.batches import CENTER_CROP, Images, View, batches, moved, n_batches
from tlopt.data.training_set import TrainingSet, training_set
from tlopt.errors import Diverged
from tlopt.model.linear_head import LinearFit, Task, fit_linear_head
from tlopt.spec.point import seed_for
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.frozen_prefix import CHUNK_IMAGES
from tlopt.training.metrics import Metrics, compute_metrics, confusion_matrix
from tlopt.training.optim import schedule_factor
from tlopt.training.run import Run, memory_errors
from tlopt.training.step import take_step

_LOOK_AHEAD = 16  # upcoming batches whose features may be computed along
EVAL_BATCH_SIZE = 64  # fixed, because last bits may depend on it


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Measurements of one pass over the training images and of the validation after it."""

    index: int  # from 0
    train_loss: float  # mean over images, with label smoothing and mixup, without penalty
    train_accuracy: float  # on augmented images during training, in [0, 1]
    val: Metrics | None  # None without validation images
    confusion: NDArray[np.int64] | None  # validation counts, true classes in rows
    seconds: float  # training and validation; for a resumed epoch, only since resuming
    linear: tuple[LinearFit, ...] = ()  # of a linear classifier, one for each run


@dataclass(frozen=True)
class Step:
    """A completed optimiser step."""

    epoch: int  # from 0
    index: int  # within the epoch, from 0
    n_steps: int  # steps per epoch


def train_epochs(
    run: Run,
    images: Images,
    train: NDArray[np.int64],
    val: NDArray[np.int64] | None,
    feature_store: FeatureStore | None = None,
) -> Generator[Epoch]:
    """Train `run.network` in place up to `point.epochs`, and yield each `Epoch`.

    Args:
        run: continued from its position.
        images: all images of the study.
        train: indices of the split's training images, of which `point.train_images` are used.
        val: indices of validation images, or None.
        feature_store: cached outputs of frozen blocks for `images`; does not change results.

    Raises:
        Diverged: a loss is not finite; the message names the epoch.
        OutOfMemory: a batch does not fit on the device; the run may be within a step and is unusable.
    """
    for event in steps(run, images, train, val, feature_store):
        if isinstance(event, Epoch):
            yield event


def steps(
    run: Run,
    images: Images,
    train: NDArray[np.int64],
    val: NDArray[np.int64] | None,
    feature_store: FeatureStore | None = None,
) -> Generator[Step | Epoch]:
    """Like `train_epochs`, but yield a `Step` after each optimiser step as well.

    After any yield the caller may stop, save the run and resume it elsewhere with bitwise identical results;
    `run.position` is up to date. Between yields the network's mode must not be changed; the global random
    state may be. Within an epoch nothing is read back from the device.

    Args and raises: as `train_epochs`.
    """
    position = run.position
    trained = training_set(train, images.labels, run.point, seed=run.images_seed, n_classes=run.n_classes)
    if run.point.is_linear:
        if not position.epoch:
            yield _fit_linear(run, images, trained, val, feature_store)
        return
    while position.epoch < run.point.epochs:
        seconds, start = 0.0, time.perf_counter()
        with memory_errors():
            for step in _train_epoch(run, images, trained, feature_store):
                seconds += time.perf_counter() - start
                yield step
                start = time.perf_counter()
            epoch = _finish_epoch(run, images, len(trained.indices), val, feature_store)
        seconds += time.perf_counter() - start
        position.epoch, position.step, position.sums = position.epoch + 1, 0, None
        yield replace(epoch, seconds=seconds)


@torch.inference_mode()
def predict_logits(
    run: Run, images: Images, indices: NDArray[np.int64], feature_store: FeatureStore | None = None
) -> NDArray[np.float32]:
    """Logits (n, classes) of the run's network in eval mode for the images at `indices`."""
    run.network.eval()
    split_depth = run.point.freeze_depth
    pieces = [indices[at : at + EVAL_BATCH_SIZE] for at in range(0, len(indices), EVAL_BATCH_SIZE)]
    rows = []
    for features in _features(run, images, CENTER_CROP, pieces, split_depth, feature_store):
        rows.append(_logits(run, features, split_depth))
    return torch.cat(rows).cpu().numpy()


def _logits(run: Run, features: Tensor, split_depth: int) -> Tensor:
    if run.point.is_linear:  # a folded standardisation cancels large numbers, for which 16 bits are too few
        return run.network.suffix(features.float(), split_depth)
    with run.numerics.autocast(run.device):
        return run.network.suffix(features, split_depth).float()


def _fit_linear(
    run: Run,
    images: Images,
    trained: TrainingSet,
    val: NDArray[np.int64] | None,
    feature_store: FeatureStore | None,
) -> Epoch:
    """Fit the head of the frozen network on the centre crops of the training images: the only epoch."""
    train = trained.indices
    start, run_labels = time.perf_counter(), trained.labels[train]
    with memory_errors(), torch.inference_mode():
        run.network.eval()
        pieces = [train[at : at + EVAL_BATCH_SIZE] for at in range(0, len(train), EVAL_BATCH_SIZE)]
        rows = list(_features(run, images, CENTER_CROP, pieces, run.point.freeze_depth, feature_store))
        features = torch.cat([row.flatten(1).float() for row in rows]).cpu().double().numpy()
        if not np.isfinite(features).all():
            raise Diverged("the features of the frozen network are not finite")
        units = np.arange(len(images.labels)) if images.units is None else images.units
        fitted = fit_linear_head(
            Task(
                kind="svm" if run.point.classifier == "svm" else "logistic",
                features=features,
                labels=run_labels,
                units=units[train],
                n_classes=run.n_classes,
                balanced=run.point.class_weights == "balanced",
                seed=seed_for(run.seed, "folds"),
            )
        )
        for name, values in (("weight", fitted.weight), ("bias", fitted.bias)):
            parameter = run.network.head.get_parameter(name)
            parameter.copy_(torch.from_numpy(values).to(parameter.dtype))
        scored = compute_metrics(fitted.logits(features), run_labels)
        metrics, confusion = (None, None) if val is None else _measure(run, images, val, feature_store)
    run.position.epoch = 1
    return Epoch(
        index=0,
        train_loss=scored.log_loss,
        train_accuracy=scored.accuracy,
        val=metrics,
        confusion=confusion,
        seconds=time.perf_counter() - start,
        linear=(fitted.fit,),
    )


def _features(
    run: Run,
    images: Images,
    view: View,
    pieces: Sequence[NDArray[np.int64]],
    split_depth: int,
    feature_store: FeatureStore | None,
) -> Iterator[Tensor]:
    """Yield, for each of `pieces`, the outputs of block `split_depth`, which is frozen; for 0, the views.

    Pieces smaller than a chunk are computed together.
    """
    together = max(1, CHUNK_IMAGES // max(map(len, pieces))) if split_depth else 1
    for at in range(0, len(pieces), together):
        some = pieces[at : at + together]
        indices = np.concatenate(some)
        if split_depth == 0:
            views = images.views_of(indices, view, run.point, run.device)
            yield views.contiguous(memory_format=run.numerics.memory_format)
            continue
        if feature_store is None:
            features = run.frozen_prefix.outputs(images, view, indices, split_depth)
        else:
            upcoming = np.concatenate([indices[:0], *pieces[at + together :][:_LOOK_AHEAD]])
            features = feature_store.outputs(run.frozen_prefix, view, indices, split_depth, upcoming)
        yield from torch.split(features, [len(piece) for piece in some])


def _finish_epoch(
    run: Run, images: Images, n_train: int, val: NDArray[np.int64] | None, feature_store: FeatureStore | None
) -> Epoch:
    """Measure the epoch whose steps are completed; its `seconds` are still 0."""
    index, sums = run.position.epoch, run.position.sums
    assert sums is not None, "an epoch has at least one step"
    train_loss, train_accuracy = (sums / n_train).tolist()
    metrics, confusion = (None, None) if val is None else _measure(run, images, val, feature_store)
    if not np.isfinite(train_loss):
        raise Diverged(f"epoch {index + 1}: the mean training loss is {train_loss}")
    if metrics is not None and not np.isfinite(metrics.log_loss):
        raise Diverged(f"epoch {index + 1}: the validation log-loss is {metrics.log_loss}")
    return Epoch(
        index=index,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        val=metrics,
        confusion=confusion,
        seconds=0.0,
    )


def _measure(
    run: Run, images: Images, indices: NDArray[np.int64], feature_store: FeatureStore | None
) -> tuple[Metrics, NDArray[np.int64]]:
    logits = predict_logits(run, images, indices, feature_store)
    labels = images.labels[indices]
    return compute_metrics(logits, labels), confusion_matrix(labels, logits.argmax(axis=1), run.n_classes)


def _train_epoch(
    run: Run, images: Images, trained: TrainingSet, feature_store: FeatureStore | None
) -> Generator[Step]:
    """Take the remaining steps of the epoch at `run.position`, and yield each."""
    point, position = run.point, run.position
    epoch, n_steps = position.epoch, n_batches(len(trained.indices), point.batch_size)
    head_only = epoch < point.head_first_epochs
    freeze_depth = len(run.network.blocks) if head_only else point.freeze_depth
    # mixup blends images before the first block
    split_depth = 0 if point.mixup > 0 else min(freeze_depth, point.transfer_depth)
    _set_trainable(run, head_only)
    run.network.set_mode(freeze_depth, point.norm_depth)
    order = np.random.default_rng(seed_for(run.seed, "order", epoch)).permutation(trained.indices)
    view = images.training_view(epoch, point, run.seed)
    pieces = list(batches(order, point.batch_size))[position.step :]
    features = _features(run, images, view, pieces, split_depth, feature_store)
    for index, indices in enumerate(pieces, position.step):
        _set_rates(run, epoch * n_steps + index, point.epochs * n_steps)
        labels = moved(torch.from_numpy(trained.labels[indices]), run.device)
        with _seeded(seed_for(run.seed, "dropout", epoch, index), run.device):
            sums = take_step(run, next(features), labels, split_depth, freeze_depth)
        position.sums = sums if position.sums is None else position.sums + sums
        position.step = index + 1
        yield Step(epoch, index, n_steps)


def _set_trainable(run: Run, head_only: bool) -> None:
    """Require gradients of the head only, or of everything that is not frozen."""
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
    """Seed the generators used by dropout within the block, and restore them after it.

    Takes 10 µs; `fork_rng` and `manual_seed` visit every device and take 1 ms.
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
