"""Pruning in rounds: remove what matters least, train on, and stop once too much accuracy is lost."""

import copy
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tlopt.compact.channel_labels import Axis
from tlopt.compact.cost import InferenceCost, count, multiply_adds
from tlopt.compact.criteria import (
    Scope,
    Scores,
    WeightHistory,
    batch_norm_scores,
    l1_scores,
    select,
    taylor_scores,
)
from tlopt.compact.groups import ChannelGroup, channel_groups, removed_axes
from tlopt.compact.surgery import masked, remaining, without
from tlopt.data.batches import CENTER_CROP, Images
from tlopt.errors import SpecError
from tlopt.model.network import Network
from tlopt.spec.point import Point, seed_for
from tlopt.training.inference import exported_logits
from tlopt.training.loop import Epoch, train_epochs
from tlopt.training.metrics import Metrics, compute_metrics
from tlopt.training.numerics import Numerics
from tlopt.training.run import memory_errors, prepare_run

Criterion = Literal["l1", "batch_norm", "taylor", "history"]
Quantity = Literal["parameters", "multiply_adds"]

_TAYLOR_IMAGES, _TAYLOR_BATCH = 1024, 64  # most training images whose gradients are used
_BISECTIONS = 12  # the share of units is found to 1/4096
_FIXED_PLACES = "{} divides its channels at fixed places, wherever some are removed: it cannot be pruned"


@dataclass(frozen=True, kw_only=True)
class PruneGoal:
    """How small the network should become, and how."""

    quantity: Quantity
    share: float  # of the quantity that may remain, in (0, 1)
    criterion: Criterion = "taylor"
    scope: Scope = "uniform"
    n_rounds: int = 4  # at least 1
    loss_max: float = 0.02  # of validation accuracy, compared with the network before


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The images, and how the network is trained between removals."""

    point: Point  # epochs are those of a round
    images: Images
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    pretrained: Mapping[str, Tensor]  # w⁰ by name; empty for weights "none"
    n_classes: int
    seed: int
    device: torch.device
    numerics: Numerics | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PruningRound:
    """The network after a removal and its training; round 0 is the network before any."""

    index: int
    network: Network = field(repr=False)  # in eval mode
    cost: InferenceCost
    val: Metrics
    within: bool  # whether no more accuracy is lost than allowed


def prune(network: Network, recipe: Recipe, goal: PruneGoal) -> Generator[Epoch | PruningRound]:
    """Yield every epoch and round; the last `PruningRound` with `within` is the result.

    Rounds remove the same share of what is left, so that the last one reaches the goal. Pruning ends at the
    goal, or after a round that loses too much accuracy.

    Args:
        network: trained, on the recipe's device; not changed.

    Raises:
        SpecError: nothing can be removed by this criterion, or not as much as wanted; says how much.
        Diverged, OutOfMemory: as training does.
    """
    groups = channel_groups(network.net, recipe.point.resolution)
    if not groups:
        raise SpecError(
            f"{recipe.point.backbone} has no channels that can be removed: norms over all channels use each"
        )
    start = _measured(0, network, recipe, None, goal)
    yield start
    current, pretrained = start, dict(recipe.pretrained)
    history = yield from _first_history(current.network, groups, pretrained, recipe, goal)
    for index in range(1, goal.n_rounds + 1):
        scores = _scores(current.network, groups, history, recipe, goal.criterion)
        shares = (goal.share ** (index / goal.n_rounds), goal.share)
        now, at_last = (share * _amount(start.cost, goal) for share in shares)
        removed = _removal(current.network, groups, scores, recipe, goal, now=now, at_last=at_last)
        pretrained = remaining(pretrained, removed)
        smaller = _checked(without(current.network, removed), current.network, removed, recipe)
        groups = channel_groups(smaller.net, recipe.point.resolution)
        history = WeightHistory(groups) if goal.criterion == "history" else None
        yield from _train(smaller, pretrained, recipe, index, history)
        current = _measured(index, smaller, recipe, start, goal)
        yield current
        if not current.within:
            return


@torch.inference_mode()
def _checked(smaller: Network, network: Network, removed: Mapping[Axis, Tensor], recipe: Recipe) -> Network:
    """`smaller`, which gives the logits of the masked twin.

    Raises:
        SpecError: it does not.
    """
    views = recipe.images.views_of(recipe.train[:4], CENTER_CROP, recipe.point, recipe.device)
    expected = masked(network, removed).eval()(views)
    with _runs(recipe.point.backbone):
        found = smaller.eval()(views)
    if not torch.allclose(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max())):
        raise SpecError(_FIXED_PLACES.format(recipe.point.backbone))
    return smaller


@contextmanager
def _runs(backbone: str) -> Iterator[None]:
    """Raise `SpecError` if shapes of a smaller network do not fit each other."""
    try:
        with memory_errors():
            yield
    except RuntimeError as error:
        raise SpecError(_FIXED_PLACES.format(backbone)) from error


def _first_history(
    network: Network,
    groups: Sequence[ChannelGroup],
    pretrained: Mapping[str, Tensor],
    recipe: Recipe,
    goal: PruneGoal,
) -> Generator[Epoch, None, WeightHistory | None]:
    """The history of a copy that is trained on as it is: an export has no history of its own."""
    if goal.criterion != "history":
        return None
    history = WeightHistory(groups)
    yield from _train(copy.deepcopy(network), pretrained, recipe, 0, history)
    return history


def _train(
    network: Network,
    pretrained: Mapping[str, Tensor],
    recipe: Recipe,
    index: int,
    history: WeightHistory | None,
) -> Generator[Epoch]:
    """Train `network` in place by the recipe, and leave it in eval mode."""
    run = prepare_run(
        network.requires_grad_(True),
        recipe.point,
        pretrained=pretrained,
        labels=recipe.images.labels[recipe.train],
        seed=seed_for(recipe.seed, f"prune {index}"),
        device=recipe.device,
        n_classes=recipe.n_classes,
        numerics=recipe.numerics,
    )
    for epoch in train_epochs(run, recipe.images, recipe.train, None):
        if history is not None:
            history.add(network.net)
        yield epoch
    network.eval()


def _measured(
    index: int, network: Network, recipe: Recipe, start: PruningRound | None, goal: PruneGoal
) -> PruningRound:
    logits = exported_logits(network, recipe.images, recipe.point, recipe.val, recipe.device)
    val = compute_metrics(logits, recipe.images.labels[recipe.val])
    # equal counts of correct images may differ in the last bit
    loss = 0.0 if start is None else round(start.val.accuracy - val.accuracy, 9)
    return PruningRound(
        index=index,
        network=network,
        cost=count(network.net, recipe.point.resolution),
        val=val,
        within=loss <= goal.loss_max,
    )


def _amount(cost: InferenceCost, goal: PruneGoal) -> int:
    return cost.parameters if goal.quantity == "parameters" else cost.multiply_adds


def _scores(
    network: Network,
    groups: Sequence[ChannelGroup],
    history: WeightHistory | None,
    recipe: Recipe,
    criterion: Criterion,
) -> Scores:
    match criterion:
        case "l1":
            return l1_scores(network.net, groups)
        case "batch_norm":
            scores = batch_norm_scores(network.net, groups)
            if all(score is None for score in scores):
                raise SpecError(
                    f"{recipe.point.backbone} has no batch norm whose channels can be removed: choose another"
                    " criterion than batch_norm"
                )
            return scores
        case "taylor":
            return _mean_taylor_scores(network, groups, recipe)
        case "history":
            assert history is not None
            return history.scores()
        case _:
            assert_never(criterion)


def _mean_taylor_scores(network: Network, groups: Sequence[ChannelGroup], recipe: Recipe) -> Scores:
    """The mean over batches of training images, seen without augmentation."""
    order = np.random.default_rng(recipe.seed).permutation(recipe.train)[:_TAYLOR_IMAGES]
    n_batches = -(-len(order) // _TAYLOR_BATCH)
    net, rows = copy.deepcopy(network).requires_grad_(True).eval(), []
    parameters = dict(net.net.named_parameters())
    for piece in np.array_split(order, n_batches):
        views = recipe.images.views_of(piece, CENTER_CROP, recipe.point, recipe.device)
        labels = torch.from_numpy(recipe.images.labels[piece]).to(recipe.device)
        loss = functional.cross_entropy(net(views), labels)
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradients = {name: each for name, each in zip(parameters, found, strict=True) if each is not None}
        rows.append(taylor_scores(net.net, groups, gradients))
    return [np.mean([row[index] for row in rows], axis=0) for index in range(len(groups))]


def _removal(
    network: Network,
    groups: Sequence[ChannelGroup],
    scores: Scores,
    recipe: Recipe,
    goal: PruneGoal,
    *,
    now: float,
    at_last: float,
) -> dict[Axis, Tensor]:
    """The smallest removal that leaves at most `now` of the quantity.

    Raises:
        SpecError: even the largest one leaves more than `at_last`, which the last round has to reach.
    """
    outline = copy.deepcopy(network).to("meta")
    image = torch.empty(1, 3, recipe.point.resolution, recipe.point.resolution, device="meta")

    def removal(fraction: float) -> dict[Axis, Tensor]:
        return removed_axes(groups, select(groups, scores, fraction, scope=goal.scope))

    def left(fraction: float) -> int:
        smaller = without(outline, removal(fraction))
        if goal.quantity == "parameters":  # without a forward pass, which takes longer
            return sum(parameter.numel() for parameter in smaller.parameters())
        with _runs(recipe.point.backbone):
            return multiply_adds(smaller.net, image)

    low, high = 0.0, 1.0
    if (least := left(high)) > at_last:
        full = left(0.0)
        raise SpecError(
            f"{goal.quantity.replace('_', '-')} cannot fall to {at_last:,.0f}: all that may be removed leaves"
            f" {least:,} of {full:,}"
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if left(middle) <= now else (middle, high)
    return removal(high)


def recipe_point(point: Point, *, epochs: int | None) -> Point:
    """The point that a pruned network is trained by: its own, but no block is frozen, at any time.

    Args:
        epochs: of each round; default: as many as the point has.
    """
    return replace(point, freeze_depth=0, head_first_epochs=0, epochs=epochs or point.epochs)
