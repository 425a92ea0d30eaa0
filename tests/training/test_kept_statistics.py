"""Batch-norm statistics kept in trained blocks do not change; everything else trains as computed by hand."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tlopt.data.batches import Images
from tlopt.model.network import Network
from tlopt.model.partition import partition
from tlopt.spec.point import Point, seed_for
from tlopt.training.loop import steps, train_epochs
from tlopt.training.numerics import Numerics
from tlopt.training.optim import make_groups
from tlopt.training.run import Run, prepare_run

Begin = Callable[..., Run]
MakePoint = Callable[..., Point]
BLOCKS = ("stem", "middle", "top")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
AFFINE = ("weight", "bias")

depths_up_to_three = st.tuples(*[st.integers(0, 3)] * 3).map(
    lambda raw: (raw[0], min(raw[1], raw[0]), min(raw[2], raw[0]))  # transfer, freeze, norm
)


def state(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.network.net.state_dict().items()}


def moved(before: dict[str, Tensor], run: Run) -> set[str]:
    """Names of the tensors, parameters and buffers, of which a bit has changed."""
    return {name for name, tensor in state(run).items() if not torch.equal(tensor, before[name])}


def frozen_norms(freeze: int, norm: int, affine: str) -> set[str]:
    """Names of the tensors that trained blocks' batch-norm layers keep; each block's second module is one."""
    leaves = (*STATISTICS, *(AFFINE if affine == "keep" else ()))
    return {f"{block}.1.{leaf}" for block in BLOCKS[freeze:norm] for leaf in leaves}


# What moves


@pytest.mark.parametrize("affine", ["train", "keep"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("freeze", range(4))
@pytest.mark.parametrize("norm", range(4))
def test_kept_statistics_never_change_and_every_other_tensor_of_a_trained_block_does(
    begin: Begin,
    point: MakePoint,
    images: Images,
    train: np.ndarray,
    val: np.ndarray,
    freeze: int,
    norm: int,
    optimizer: str,
    affine: str,
) -> None:
    pulls = {"l2_sp": 0.1, "l2_anchored": 0.1, "l2": 0.1}
    at = point(freeze_depth=freeze, norm_depth=norm, norm_affine=affine, optimizer=optimizer, **pulls)
    run = begin(at)
    before = state(run)

    list(train_epochs(run, images, train, val))

    frozen = {name for name in before if name.split(".")[0] in BLOCKS[:freeze]}
    assert moved(before, run) == set(before) - frozen - frozen_norms(freeze, norm, affine)


@pytest.mark.parametrize("affine", ["train", "keep"])
def test_while_the_head_goes_first_nothing_changes_and_then_all_but_what_is_kept(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, affine: str
) -> None:
    run = begin(point(epochs=2, head_first_epochs=1, norm_depth=2, norm_affine=affine, l2_sp=0.5))
    before = state(run)
    epochs = train_epochs(run, images, train, None)

    next(epochs)
    assert moved(before, run) == {"head.weight", "head.bias"}
    next(epochs)
    assert moved(before, run) == set(before) - frozen_norms(0, 2, affine)


def test_dropout_beside_kept_statistics_is_on(
    begin: Begin, point: MakePoint, tiny: Callable[..., Network], images: Images, train: np.ndarray
) -> None:
    losses = [
        [
            e.train_loss
            for e in train_epochs(begin(point(norm_depth=3), network=tiny(dropout=p)), images, train, None)
        ]
        for p in (0.0, 0.9)
    ]

    assert losses[0] != losses[1]


@pytest.mark.parametrize("n_micro_batches", [1, 3])
def test_statistics_are_kept_in_bfloat16_and_by_pieces_of_a_batch(
    tiny: Callable[..., Network], point: MakePoint, images: Images, train: np.ndarray, n_micro_batches: int
) -> None:
    network = tiny()
    run = prepare_run(
        network,
        point(norm_depth=2, norm_affine="keep", epochs=1, lr=0.01),
        pretrained=copy.deepcopy(network.net.state_dict()),
        labels=images.labels,
        seed=1,
        device=torch.device("cpu"),
        n_classes=3,
        n_micro_batches=n_micro_batches,
        numerics=Numerics("bfloat16", "channels_last"),
    )
    before = state(run)

    (epoch,) = train_epochs(run, images, train, None)

    assert np.isfinite(epoch.train_loss)
    assert moved(before, run) == set(before) - frozen_norms(0, 2, "keep")


# By hand


def by_hand(network: Network, at: Point, batches: Iterator[tuple[Tensor, Tensor]]) -> nn.Module:
    """A plain loop of torch over `batches`, with the first batch-norm layers in eval mode."""
    net = network.net
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    net.train()
    for norm in norms[: at.norm_depth]:
        norm.eval()
        if at.norm_affine == "keep":
            norm.requires_grad_(False)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=at.lr, weight_decay=0.0, fused=True)
    for x, y in batches:
        optimizer.zero_grad()
        x = net.middle(net.stem(x))
        F.cross_entropy(net.head(net.top(x)), y).backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("affine", ["train", "keep"])
@pytest.mark.parametrize("norm", range(4))
def test_two_steps_are_those_of_a_plain_loop_to_the_bit(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    norm: int,
    affine: str,
) -> None:
    at = point(norm_depth=norm, norm_affine=affine, optimizer="adamw", lr=0.01, epochs=1)
    train = np.arange(16)
    order = np.random.default_rng(seed_for(1, "order", 0)).permutation(train)
    run = begin(at, seed=1)
    view = images.training_view(0, at, 1)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for some in (order[:8], order[8:]):
            x = images.views_of(some, view, at, torch.device("cpu"))
            yield (
                x.contiguous(memory_format=run.numerics.memory_format),
                torch.from_numpy(images.labels[some]),
            )

    network = tiny()
    network.to(memory_format=run.numerics.memory_format)
    expected = by_hand(network, at, batches()).state_dict()
    n_steps = sum(1 for event in steps(run, images, train, None) if not hasattr(event, "train_loss"))

    assert n_steps == 2
    for name, tensor in state(run).items():
        assert torch.equal(tensor, expected[name]), name


def test_kept_statistics_make_another_training_than_those_of_batches(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    losses = {
        norm: next(train_epochs(begin(point(norm_depth=norm)), images, train, None)).train_loss
        for norm in range(4)
    }

    assert len(set(losses.values())) == 4


# Groups and modes


@given(depths=depths_up_to_three, affine=st.sampled_from(["train", "keep"]))
def test_groups_partition_and_modes_fit_whatever_the_depths(
    tiny: Callable[..., Network], point: MakePoint, depths: tuple[int, int, int], affine: str
) -> None:
    transfer, freeze, norm = depths
    network = tiny()
    at = point(
        transfer_depth=transfer,
        freeze_depth=freeze,
        norm_depth=norm,
        norm_affine=affine,
        anchor_depth=transfer,
        lr_decay=0.5,
    )

    parts = partition(
        network,
        transfer_depth=transfer,
        freeze_depth=freeze,
        norm_depth=norm,
        keeps_affine=affine == "keep",
    )
    network.set_mode(freeze, norm)

    rows = (parts.frozen, parts.frozen_norms, parts.transferred, parts.fresh, parts.head)
    assert sorted(name for row in rows for name in row) == sorted(network.net.state_dict())
    assert set(parts.frozen_norms) == frozen_norms(freeze, norm, affine)
    parameters = dict(network.net.named_parameters())
    grouped = [name for group in make_groups(parameters, parts, at) for name in group.names]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(parameters) - set(parts.frozen) - set(parts.frozen_norms)
    for index, block in enumerate(BLOCKS, 1):
        modes = {name: m.training for name, m in network.net.get_submodule(block).named_modules()}
        normal = dict.fromkeys(modes, index > freeze)
        assert modes == normal | ({"1": False} if index <= max(freeze, norm) else {})
    assert network.head.training


def test_frozen_weights_of_norms_have_no_gradient_and_no_state_in_the_optimiser(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    run = begin(point(norm_depth=3, norm_affine="keep", optimizer="adamw"))

    list(train_epochs(run, images, train, None))

    norms = {name for name in dict(run.network.net.named_parameters()) if ".1." in name}
    assert all(run.network.net.get_parameter(name).grad is None for name in norms)
    assert len(run.optimizer.state) == len(list(run.network.net.parameters())) - len(norms)


def test_more_than_what_is_transferred_is_refused(tiny: Callable[..., Network], point: MakePoint) -> None:
    with pytest.raises(ValueError, match="norm_depth=3"):
        partition(tiny(), transfer_depth=2, freeze_depth=0, norm_depth=3)
    with pytest.raises(ValueError, match="norm_depth=3"):
        replace(point(), transfer_depth=2, anchor_depth=2, norm_depth=3)
