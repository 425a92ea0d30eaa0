"""Frozen blocks never change, and only the head changes while it is trained first."""

from collections.abc import Callable

import numpy as np
import pytest
from small_runs import Begin, MakePoint, changed, state

from tlopt.data.batches import Images
from tlopt.model.build import build
from tlopt.model.head import make_head
from tlopt.model.network import Network
from tlopt.model.partition import partition
from tlopt.model.weights import load_weights
from tlopt.training.loop import train_epochs

BLOCKS = ("stem.", "middle.", "top.")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("freeze", range(4))
def test_a_frozen_block_never_changes_and_every_other_tensor_does(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    train: np.ndarray,
    val: np.ndarray,
    freeze: int,
    optimizer: str,
) -> None:
    at = point(freeze_depth=freeze, optimizer=optimizer, l2_sp=0.1, l2_anchored=0.1, l2=0.1)
    run = begin(at, network=tiny(dropout=0.5))
    before = state(run)

    list(train_epochs(run, images, train, val))

    assert changed(before, state(run)) == {name for name in before if not name.startswith(BLOCKS[:freeze])}


@pytest.mark.parametrize("freeze", range(10))
def test_frozen_blocks_of_a_resnet_never_change(
    point: MakePoint, begin: Begin, images: Images, freeze: int
) -> None:
    # with weights "none", depths count all the same: they say which blocks train
    at = point(backbone="resnet18", transfer_depth=9, freeze_depth=freeze, batch_size=4, epochs=1, l2_sp=0.1)
    run = begin(at, network=build(at, n_classes=3, weights=load_weights("resnet18", "none"), seed=1))
    before = state(run)

    list(train_epochs(run, images, np.arange(0, 32, 4), np.arange(4)))

    frozen = set(partition(run.network, transfer_depth=9, freeze_depth=freeze).frozen)
    assert not changed(before, state(run)) & frozen
    # the whole of every other block moves, batch-norm's statistics and counters too
    assert changed(before, state(run)) == set(before) - frozen


def test_statistics_of_trainable_blocks_move(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    run = begin(point(freeze_depth=1, epochs=1))
    before = state(run)

    list(train_epochs(run, images, train, None))

    assert {name for name in changed(before, state(run)) if "running_mean" in name} == {
        "middle.1.running_mean",
        "top.1.running_mean",
    }


def test_statistics_move_also_where_the_rate_is_zero(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    run = begin(point(lr_ratio=0.0))
    before = state(run)

    list(train_epochs(run, images, train, None))

    assert "stem.1.running_mean" in changed(before, state(run))
    assert "stem.0.weight" not in changed(before, state(run))


def test_dropout_in_a_frozen_block_is_off(
    begin: Begin, point: MakePoint, tiny: Callable[..., Network], images: Images, train: np.ndarray
) -> None:
    losses = [
        [
            e.train_loss
            for e in train_epochs(begin(point(freeze_depth=2), network=tiny(dropout=p)), images, train, None)
        ]
        for p in (0.0, 0.9)
    ]

    assert losses[0] == losses[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_while_the_head_goes_first_nothing_else_changes(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    train: np.ndarray,
    val: np.ndarray,
    optimizer: str,
) -> None:
    at = point(
        epochs=3,
        head_first_epochs=2,
        transfer_depth=2,
        optimizer=optimizer,
        l2_sp=0.5,
        l2=0.5,
        l2_anchored=0.5,
    )
    run = begin(at, network=tiny(dropout=0.5))
    before = state(run)
    epochs = train_epochs(run, images, train, val)

    for _ in range(2):
        next(epochs)
        assert changed(before, state(run)) == {"head.weight", "head.bias"}
    next(epochs)
    assert changed(before, state(run)) == set(before)


def test_a_frozen_block_stays_frozen_after_the_head_went_first(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    run = begin(point(epochs=2, head_first_epochs=1, freeze_depth=1, l2_sp=0.5))
    before = state(run)

    list(train_epochs(run, images, train, None))

    assert changed(before, state(run)) == {name for name in before if not name.startswith("stem.")}


def test_a_head_of_hidden_layers_trains(
    begin: Begin, point: MakePoint, tiny: Callable[..., Network], images: Images, train: np.ndarray
) -> None:
    network = tiny()
    head = make_head(16, 3, layers=2, hidden_width=8, dropout=0.1)
    network.net.set_submodule("head", head)
    run = begin(point(freeze_depth=3, l2=0.1), network=network)
    before = state(run)

    list(train_epochs(run, images, train, None))

    assert changed(before, state(run)) == {name for name in before if name.startswith("head.")}
    assert [p.name for p in run.pulls] == [name for name, p in before.items() if p.dim() == 2]
