"""Networks made of several confirmed runs: the greedy mean of their weights, or all of them as one."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlopt.confirmation.combined import Addition, Combined, Member, ensemble_members, soup_members
from tlopt.confirmation.held_out import WeightsFile, trained
from tlopt.confirmation.verdict import Verdict
from tlopt.data.batches import Images, batches
from tlopt.data.training_set import training_set
from tlopt.errors import SpecError
from tlopt.model.ensemble import Ensemble
from tlopt.model.network import Network
from tlopt.model.norms import batch_norms
from tlopt.spec.objectives import cost
from tlopt.spec.point import Point
from tlopt.system.words import counted
from tlopt.training.inference import BATCH_SIZE, exported_logits
from tlopt.training.metrics import compute_metrics
from tlopt.training.run import Run
from tlopt.trial.workspace import Workspace

State = Mapping[str, Tensor]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class CombinedNetwork:
    """A soup or an ensemble that has not been measured yet."""

    combined: Combined
    net: nn.Module  # the library's module of a soup, or an `Ensemble`; on the workspace's device
    val: NDArray[np.int64]  # indices of the images that no member was trained on; may be empty


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of several networks' tensors, summed in float64.

    Integers, which count batches, are the first network's.
    """

    sums: State
    first: State
    n: int = 1

    @classmethod
    def of(cls, state: State) -> Self:
        """The tensors of one network."""
        return cls({name: tensor.double() for name, tensor in state.items()}, state)

    def with_one_more(self, state: State) -> "Mean":
        """The mean with another network of the same structure."""
        sums = {name: total + state[name].double() for name, total in self.sums.items()}
        return replace(self, sums=sums, n=self.n + 1)

    def tensors(self) -> dict[str, Tensor]:
        """The mean of each tensor, in the type that the first network has it in."""
        return {
            name: (self.sums[name] / self.n).to(tensor.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in self.first.items()
        }


def greedy_mean(
    first: Member,
    others: Sequence[Member],
    *,
    load: Callable[[Member], State],
    value_of: Callable[[Mean, Sequence[Member]], float],
    direction: str,
) -> tuple[Mean, tuple[Addition, ...]]:
    """The mean of `first` and of each further network with which the value of the mean does not fall.

    Args:
        others: in the order in which they are tried.
        load: the tensors of a network; called once for each.
        value_of: objective of the mean of these members on validation images.
    """
    mean, members = Mean.of(load(first)), [first]
    value = value_of(mean, members)
    additions = [Addition(member=first, value=value, kept=True)]
    for member in others:
        larger = mean.with_one_more(load(member))
        found = value_of(larger, [*members, member])
        kept = cost(found, direction) <= cost(value, direction)  # False for NaN
        additions.append(Addition(member=member, value=found, kept=kept))
        if kept:
            mean, members, value = larger, [*members, member], found
    return mean, tuple(additions)


def make_soup(
    workspace: Workspace, verdict: Verdict, weights_file: WeightsFile, *, n_points: int = 0
) -> CombinedNetwork:
    """The soup of the confirmed runs that can be averaged with the best run of the chosen point.

    Args:
        n_points: as for `combined.soup_members`.

    Raises:
        SpecError, NotReady: as `combined.soup_members`.
    """
    first, others, left_out = soup_members(verdict, n_points=n_points)
    _warn_of_lost((first, *others), weights_file)
    run = _run(workspace, first, weights_file)
    images = workspace.images(first.point)
    split = workspace.data.splits[workspace.data.confirm_split(first.replicate)]
    labels, n_classes = workspace.data.labels, workspace.n_classes
    used = training_set(split.train, labels, first.point, seed=first.seed, n_classes=n_classes).indices

    def load(member: Member) -> State:
        return _tensors(run if member == first else _run(workspace, member, weights_file))

    def load_mean(mean: Mean, members: Sequence[Member]) -> None:
        run.network.net.load_state_dict(mean.tensors())
        if len(members) > 1:
            depth = min(_kept_depth(member.point) for member in members)
            renew_statistics(run, images, used, above=depth)

    def value_of(mean: Mean, members: Sequence[Member]) -> float:
        load_mean(mean, members)
        logits = exported_logits(run.network, images, first.point, split.val, workspace.device)
        return compute_metrics(logits, images.labels[split.val]).as_dict()[verdict.objective]

    mean, additions = greedy_mean(first, others, load=load, value_of=value_of, direction=verdict.direction)
    members = tuple(each.member for each in additions if each.kept)
    load_mean(mean, members)
    combined = Combined(kind="soup", members=members, additions=additions, left_out=left_out)
    return CombinedNetwork(combined=combined, net=run.network.net, val=split.val)


def make_ensemble(
    workspace: Workspace, verdict: Verdict, weights_file: WeightsFile, *, n_points: int = 0
) -> CombinedNetwork:
    """The ensemble of all runs of the chosen point, or of the best `n_points` confirmed points.

    Raises:
        NotReady: as `combined.ensemble_members`.
        SpecError: the networks do not see an image alike.
    """
    members = ensemble_members(verdict, n_points=n_points)
    for member in members[1:]:
        _check_same_views(workspace, member, members[0])
    _warn_of_lost(members, weights_file)
    nets = [_run(workspace, member, weights_file).network.net for member in members]
    splits = {workspace.data.confirm_split(member.replicate) for member in members}
    val = workspace.data.splits[min(splits)].val
    return CombinedNetwork(
        combined=Combined(kind="ensemble", members=members),
        net=Ensemble(nets),
        # with several splits, each validation image has trained a member
        val=val if len(splits) == 1 else val[:0],
    )


@torch.no_grad()
def renew_statistics(run: Run, images: Images, train: NDArray[np.int64], *, above: int) -> None:
    """Measure the batch-norm statistics of the blocks above block `above` on training images, in place.

    Leaves the network in eval mode. The views are those of the run's first epoch. Statistics are means over
    batches, as those of `torch.optim.swa_utils.update_bn`, which would also renew kept ones and switch
    dropout on.
    """
    network, point = run.network.eval(), run.point
    view = images.training_view(0, point, run.seed)
    with _counting(_layers(network, above)) as layers:
        if not layers:
            return
        for indices in batches(train, BATCH_SIZE):
            network(images.views_of(indices, view, point, run.device))


def _layers(network: Network, above: int) -> list[_BatchNorm]:
    """The batch-norm layers above block `above` that count batches; frozen kinds do not."""
    members = [part for i in range(above + 1, len(network.blocks) + 1) for part in network.members_of(i)]
    layers = [layer for part in members if isinstance(part, nn.Module) for _, layer in batch_norms(part)]
    return [layer for layer in layers if isinstance(layer, _BatchNorm)]


@contextmanager
def _counting(layers: list[_BatchNorm]) -> Iterator[list[_BatchNorm]]:
    """Let batch-norm layers take the plain mean of the batches' statistics within a block."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum, layer.training = None, True
    try:
        yield layers
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum, layer.training = momentum, False


def _kept_depth(point: Point) -> int:
    """The number of blocks from the input whose batch-norm statistics are the pretrained ones."""
    return max(point.freeze_depth, point.norm_depth)


def _run(workspace: Workspace, member: Member, weights_file: WeightsFile) -> Run:
    file = weights_file(member.number, member.replicate)
    return trained(workspace, member.point, member.seed, member.replicate, file)


def _tensors(run: Run) -> State:
    return {name: tensor.detach().cpu().clone() for name, tensor in run.network.net.state_dict().items()}


def _warn_of_lost(members: Sequence[Member], weights_file: WeightsFile) -> None:
    lost = sum(not weights_file(member.number, member.replicate).is_file() for member in members)
    if lost:
        _logger.warning(
            "the weights of %s of %s are not on this machine: training them again takes as long as in the"
            " confirmation; copy its folder here, or run this where it is, to save that",
            lost,
            counted(len(members), "network"),
        )


def _check_same_views(workspace: Workspace, member: Member, first: Member) -> None:
    """Raise if two networks do not get the same tensor for an image.

    Raises:
        SpecError: says in what they differ, and what to do.
    """
    ours, theirs = workspace.weights[member.point.backbone], workspace.weights[first.point.backbone]
    why = ""
    if member.point.resolution != first.point.resolution:
        why = f"at {member.point.resolution} pixels, and {first.label} at {first.point.resolution}"
    elif (ours.mean, ours.std) != (theirs.mean, theirs.std):
        backbones = (member.point.backbone, first.point.backbone)
        why = f"with pixels normalised for {backbones[0]}, and {first.label} for {backbones[1]}"
    if why:
        raise SpecError(
            f"{workspace.study.name}: {member.label} was trained {why}, but an ensemble has one"
            " preprocessing; take fewer points with --points"
        )
