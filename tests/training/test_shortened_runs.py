"""Runs of shortened networks: what is frozen and trained, cached features, and resuming to the bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import Begin, MakePoint, changed, state

from tlopt.cache.eviction import FolderLock
from tlopt.data.batches import Images
from tlopt.model.build import build
from tlopt.model.network import Network
from tlopt.model.weights import load_weights
from tlopt.spec.point import Point
from tlopt.training.checkpoint import apply, pack, unpack
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.feature_cache_plan import CostModel
from tlopt.training.frozen_prefix import find_split_points
from tlopt.training.loop import Epoch, predict_logits, steps, train_epochs
from tlopt.training.numerics import Numerics
from tlopt.training.run import Run

SHORT: dict[str, object] = {
    "backbone": "resnet18",
    "resolution": 16,
    "backbone_depth": 3,
    "neck_layers": 2,
    "neck_width": 6,
    "transfer_depth": 3,
    "freeze_depth": 2,
    "l2_sp": 0.1,
    "l2": 0.01,
    "batch_size": 4,
}
TRAIN, VAL = np.arange(0, 32, 4), np.arange(4)


@pytest.fixture
def short(point: MakePoint) -> Callable[..., Point]:
    return lambda **changes: point(**(SHORT | changes))


@pytest.fixture
def start(begin: Begin) -> Callable[[Point], Run]:
    return lambda at: begin(at, network=network_of(at))


def network_of(at: Point) -> Network:
    return build(at, n_classes=3, weights=load_weights("resnet18", "none"), seed=1)


def outcome(run: Run, images: Images, store: FeatureStore | None) -> list[object]:
    epochs = [(e.train_loss, e.train_accuracy, e.val) for e in train_epochs(run, images, TRAIN, VAL, store)]
    return [*epochs, predict_logits(run, images, VAL, store).tolist()]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_all_but_the_frozen_blocks_is_trained_and_no_block_is_missing(
    short: Callable[..., Point], start: Callable[[Point], Run], images: Images, optimizer: str
) -> None:
    run = start(short(optimizer=optimizer))
    before = state(run)

    outcome(run, images, None)

    frozen = {name for name in before if name.startswith(("conv1.", "bn1.", "layer1.0."))}
    assert changed(before, state(run)) == before.keys() - frozen
    assert {name.partition(".")[0] for name in before} == {"conv1", "bn1", "layer1", "neck", "fc"}


def test_while_the_head_goes_first_the_neck_stays_as_it_was_drawn(
    short: Callable[..., Point], start: Callable[[Point], Run], images: Images
) -> None:
    run = start(short(epochs=1, head_first_epochs=1))
    before = state(run)

    outcome(run, images, None)

    assert changed(before, state(run)) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze_depth": 3},
        {"freeze_depth": 2},
        {"freeze_depth": 3, "neck_layers": 0},
        {"freeze_depth": 1, "head_first_epochs": 1},
        {"freeze_depth": 3, "neck_convolution": "separable", "activation": "silu"},
    ],
    ids=str,
)
def test_features_cached_by_whole_networks_serve_shortened_ones_to_the_bit(
    short: Callable[..., Point],
    start: Callable[[Point], Run],
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
) -> None:
    monkeypatch.setenv("TLOPT_CACHE", str(tmp_path))
    views = replace(images, n_views=2, views_seed=11)
    at = short(**changes)
    whole = replace(at, backbone_depth=0, neck_layers=0)
    store = FeatureStore(
        folder=FolderLock("resnet", "a test's"),
        images=views,
        caches_training_views=True,
        split_points=find_split_points(network_of(whole).eval(), torch.zeros(1, 3, 16, 16), Numerics()),
        cached_blocks=frozenset({1, 2, 3}),
        cost_model=CostModel(seconds_per_flop=1.0, seconds_per_byte=0.0),
        resident_bytes_max=10**9,
    )
    try:
        outcome(start(whole), views, store)
        first = outcome(start(at), views, store)
        again = outcome(start(at), views, store)
    finally:
        store.close()

    assert first == again == outcome(start(at), views, None)


@pytest.mark.parametrize("changes", [{}, {"neck_convolution": "separable", "optimizer": "adamw"}], ids=str)
def test_a_run_resumed_after_any_step_ends_as_the_undisturbed_one(
    short: Callable[..., Point],
    start: Callable[[Point], Run],
    images: Images,
    changes: dict[str, object],
) -> None:
    at = short(head_layers=1, head_dropout=0.3, activation="elu", **changes)

    def ended(interrupted: bool) -> tuple[dict[str, torch.Tensor], list[object]]:
        run, epochs = start(at), list[Epoch]()
        events = steps(run, images, TRAIN, VAL)
        while (event := next(events, None)) is not None:
            epochs += [event] if isinstance(event, Epoch) else []
            if interrupted:
                data = pack([run], epochs, identity="trial", facts={})
                run = start(at)
                checkpoint = unpack(data, identity="trial")
                apply(checkpoint, [run])
                epochs, events = list(checkpoint.epochs), steps(run, images, TRAIN, VAL)
        return state(run), [(e.train_loss, e.val) for e in epochs]

    (one, losses), (other, same) = ended(False), ended(True)

    assert losses == same
    assert changed(one, other) == set()
