"""Pruning in rounds: remove what matters least, train on, and stop once too much accuracy is lost."""

import copy
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tlopt.compact.channel_labels import Axis
from tlopt.compact.cost import InferenceCost, count, uses_of_weights
from tlopt.compact.criteria import (
    Scores,
    WeightHistory,
    batch_norm_scores,
    l1_scores,
    select,
    taylor_scores,
)
from tlopt.compact.groups import ChannelGroup, channel_groups, removed_axes
from tlopt.compact.surgery import masked, n_remaining, remaining, without
from tlopt.data.batches import CENTER_CROP, Images
from tlopt.data.training_set import training_set
from tlopt.errors import Diverged, SpecError
from tlopt.model.network import Network
from tlopt.spec.point import Point, seed_for
from tlopt.spec.trial_spec import Criterion, PruneGoal
from tlopt.training.inference import exported_logits
from tlopt.training.loop import Epoch, Step, steps
from tlopt.training.metrics import Metrics, compute_metrics
from tlopt.training.numerics import Numerics
from tlopt.training.run import Run, memory_errors, prepare_run

_TAYLOR_IMAGES, _TAYLOR_BATCH = 1024, 64  # most training images whose gradients are used
_BISECTIONS = 12  # the share of units is found to 1/4096
_FIXED_PLACES = "{} divides its channels at fixed places, wherever some are removed: it cannot be pruned"


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
    n_micro_batches: int = 1  # maximum number of micro-batches per batch
    validates: bool = False  # whether each epoch is validated, too, and not only each round


@dataclass(frozen=True, kw_only=True)
class PruningRound:
    """Measurements of the network after a removal and its training; round 0 is the network before any."""

    index: int
    cost: InferenceCost
    val: Metrics
    within: bool  # whether no more accuracy is lost than allowed
    loss: float  # of validation accuracy, compared with round 0; negative for a gain
    trained: Epoch | None = None  # the last epoch of its training; None of round 0


@dataclass(kw_only=True, eq=False)
class Pruning:
    """A pruning under way, advanced by `pruning_events`."""

    recipe: Recipe
    goal: PruneGoal
    network: Network = field(repr=False)  # of the last round within the bound, in eval mode
    groups: Sequence[ChannelGroup] = field(repr=False)  # of the newest network
    pretrained: Mapping[str, Tensor] = field(repr=False)  # w⁰ of what is left in the newest network
    rounds: list[PruningRound] = field(default_factory=list)  # finished ones
    removals: list[dict[Axis, Tensor]] = field(default_factory=list, repr=False)  # of each round begun
    history: WeightHistory | None = field(default=None, repr=False)  # of the last training, for its criterion
    run: Run | None = field(default=None, repr=False)  # the training under way
    n_epochs: int = 0  # finished ones, of all trainings
    trained: Epoch | None = None  # the last epoch of the last training
    diverged: str = ""  # why the last training did, if a round before it has removed channels

    @property
    def is_over(self) -> bool:
        """Whether the goal is reached, or too much accuracy lost, or the training of a round diverged."""
        if not self.rounds:
            return False
        last = self.rounds[-1]
        return bool(self.diverged) or not last.within or last.index == self.goal.n_rounds

    @property
    def kept(self) -> PruningRound:
        """The last round within the bound, whose network is `network`; the first one must have ended."""
        return [each for each in self.rounds if each.within][-1]

    @property
    def is_in_round(self) -> bool:
        """Whether channels have been removed since the last round was measured."""
        return len(self.removals) == len(self.rounds)

    @property
    def position(self) -> tuple[int, int]:
        """(epochs finished in all trainings, steps of the epoch under way)."""
        return self.n_epochs, 0 if self.run is None else self.run.position.step

    def begin_training(self) -> None:
        """Begin what comes next: a round's removal and training, or the first history.

        An export has no history of its own, so that a copy of its network is trained on as it is.

        Raises:
            SpecError: nothing can be removed by this criterion, or not as much as wanted; says how much.
        """
        if self.goal.criterion == "history" and self.history is None:
            self.train(copy.deepcopy(self.network))
            return
        removed = _next_removal(self)
        smaller = _checked(without(self.network, removed), self.network, removed, self.recipe)
        self.removals.append(removed)
        self.pretrained = remaining(self.pretrained, removed)
        self.groups = channel_groups(smaller.net, self.recipe.point.resolution)
        self.train(smaller)

    def train(self, network: Network) -> None:
        """Begin to train `network` in place by the recipe."""
        recipe = self.recipe
        self.history = self.new_history() if self.goal.criterion == "history" else None
        self.run = prepare_run(
            network.requires_grad_(True),
            recipe.point,
            pretrained=self.pretrained,
            labels=recipe.images.labels[recipe.train],
            seed=seed_for(recipe.seed, f"prune {len(self.removals)}"),
            images_seed=recipe.seed,  # the images that the network was trained on before
            device=recipe.device,
            n_classes=recipe.n_classes,
            numerics=recipe.numerics,
            n_micro_batches=recipe.n_micro_batches,
        )

    def new_history(self) -> WeightHistory:
        """An empty history of the newest network."""
        return WeightHistory(self.groups)

    def end_round(self, network: Network) -> PruningRound:
        """Measure the network of the round under way, and keep it if it is within the bound."""
        found = _measured(network, self)
        self.rounds.append(found)
        if found.within:
            self.network = network
        return found


def begin_pruning(network: Network, recipe: Recipe, goal: PruneGoal) -> Pruning:
    """A pruning of `network`, which must be trained and on the recipe's device, and is not changed.

    Raises:
        SpecError: nothing can be removed from it.
    """
    groups = channel_groups(network.net, recipe.point.resolution)
    if not groups:
        raise SpecError(
            f"{recipe.point.backbone} has no channels that can be removed: norms over all channels use each"
        )
    return Pruning(
        recipe=recipe, goal=goal, network=network, groups=groups, pretrained=dict(recipe.pretrained)
    )


def pruning_events(pruning: Pruning) -> Generator[Step | Epoch | PruningRound]:
    """Go on with `pruning`; yield a `Step` or `Epoch` of each training, and every round at its end.

    Rounds remove the same share of what is left, so that the last one reaches the goal. Pruning ends at the
    goal, after a round that loses too much accuracy, or before one whose training diverges; if that is the
    first one, `Diverged` is raised. After any yield the caller may stop and save the pruning; one that is
    restored ends with bitwise the same networks.

    Raises:
        SpecError: nothing can be removed by this criterion, or not as much as wanted; says how much.
        Diverged, OutOfMemory: as training does.
    """
    if not pruning.rounds:
        yield pruning.end_round(pruning.network)
    while not pruning.is_over:
        if pruning.run is None:
            pruning.begin_training()
        run = pruning.run
        assert run is not None
        try:
            yield from _train(pruning, run)
        except Diverged as error:
            if len(pruning.rounds) < 2:
                raise
            pruning.diverged = str(error)
            return
        pruning.run = None
        if pruning.is_in_round:  # else it was the first history
            yield pruning.end_round(run.network)


def prune(network: Network, recipe: Recipe, goal: PruneGoal) -> Generator[Epoch | PruningRound]:
    """Prune without stopping; yield every epoch and round. Raises as `pruning_events` and `begin_pruning`."""
    for event in pruning_events(begin_pruning(network, recipe, goal)):
        if not isinstance(event, Step):
            yield event


def _train(pruning: Pruning, run: Run) -> Generator[Step | Epoch]:
    """Train on to the last epoch, and leave the network in eval mode."""
    recipe = pruning.recipe
    for event in steps(run, recipe.images, recipe.train, recipe.val if recipe.validates else None):
        if isinstance(event, Epoch):
            pruning.n_epochs, pruning.trained = pruning.n_epochs + 1, event
            if pruning.history is not None:
                pruning.history.add(run.network.net)
        yield event
    run.network.eval()


def _next_removal(pruning: Pruning) -> dict[Axis, Tensor]:
    """What the next round removes from the network of the last one."""
    goal, network, groups = pruning.goal, pruning.network, pruning.groups
    scores = _scores(network, groups, pruning.history, pruning.recipe, goal.criterion)
    shares = (goal.share ** (len(pruning.rounds) / goal.n_rounds), goal.share)
    now, at_last = (share * _amount(pruning.rounds[0].cost, goal) for share in shares)
    return _removal(network, groups, scores, pruning.recipe, goal, now=now, at_last=at_last)


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


def _measured(network: Network, pruning: Pruning) -> PruningRound:
    recipe, index = pruning.recipe, len(pruning.removals)
    logits = exported_logits(network, recipe.images, recipe.point, recipe.val, recipe.device)
    val = compute_metrics(logits, recipe.images.labels[recipe.val])
    # equal counts of correct images may differ in the last bit
    loss = round(pruning.rounds[0].val.accuracy - val.accuracy, 9) if pruning.rounds else 0.0
    return PruningRound(
        index=index,
        cost=count(network.net, recipe.point.resolution),
        val=val,
        within=loss <= pruning.goal.loss_max,
        loss=loss,
        trained=pruning.trained if index else None,
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
    trained = training_set(
        recipe.train, recipe.images.labels, recipe.point, seed=recipe.seed, n_classes=recipe.n_classes
    )
    order = np.random.default_rng(recipe.seed).permutation(trained.indices)[:_TAYLOR_IMAGES]
    n_batches = -(-len(order) // _TAYLOR_BATCH)
    net, rows = copy.deepcopy(network).requires_grad_(True).eval(), []
    parameters = dict(net.net.named_parameters())
    for piece in np.array_split(order, n_batches):
        views = recipe.images.views_of(piece, CENTER_CROP, recipe.point, recipe.device)
        labels = torch.from_numpy(trained.labels[piece]).to(recipe.device)
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
    resolution = recipe.point.resolution
    outline, parameters = copy.deepcopy(network).to("meta"), dict(network.net.named_parameters())
    uses = dict.fromkeys(parameters, 1)  # of each number: once in the number of parameters
    counted = uses if goal.quantity == "parameters" else uses_of_weights(outline.net, resolution)

    def removal(fraction: float) -> dict[Axis, Tensor]:
        return removed_axes(groups, select(groups, scores, fraction, scope=goal.scope))

    def left(fraction: float) -> int:
        removed = removal(fraction)
        if counted is not None:
            sizes = n_remaining(parameters, removed)
            return sum(n * sizes[name] for name, n in counted.items())
        with _runs(recipe.point.backbone):
            return count(without(outline, removed).net, resolution).multiply_adds

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
