"""Cached features change no bit of a result, even if they are lost, damaged or written concurrently."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Begin, MakePoint, changed
from torch import Tensor

from tlopt.cache.eviction import FolderLock
from tlopt.data.batches import Images
from tlopt.model.network import Network
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.feature_cache_plan import CostModel
from tlopt.training.frozen_prefix import FeatureFormat, find_split_points
from tlopt.training.loop import predict_logits, train_epochs
from tlopt.training.numerics import Numerics
from tlopt.training.run import Run

MakeStore = Callable[..., FeatureStore]
Outcome = tuple[list[object], dict[str, Tensor]]

FREE = CostModel(seconds_per_flop=1.0, seconds_per_byte=0.0)
CHOSEN = {"freeze_depth": 2, "epochs": 4, "lr": 0.02}


@pytest.fixture
def views(images: Images) -> Images:
    """The images with two views each, which the epochs take turns at."""
    return replace(images, n_views=2, views_seed=11)


def open_store(
    views: Images, network: Network, cached: set[int], resident_bytes_max: int = 10**9
) -> FeatureStore:
    """A store of the features of `views` under the folder that TLOPT_CACHE names."""
    return FeatureStore(
        folder=FolderLock("tiny", "a test's"),
        images=views,
        caches_training_views=True,
        split_points=find_split_points(network.eval(), torch.zeros(1, 3, 12, 12), Numerics()),
        cached_blocks=frozenset(cached),
        cost_model=FREE,
        resident_bytes_max=resident_bytes_max,
    )


@pytest.fixture
def make(
    views: Images, tiny: Callable[..., Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeStore]:
    """Opens a store of all three blocks in this test's folder."""
    monkeypatch.setenv("TLOPT_CACHE", str(tmp_path))
    opened = []

    def make(*, resident_bytes_max: int = 10**9) -> FeatureStore:
        opened.append(open_store(views, tiny(), {1, 2, 3}, resident_bytes_max))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def trained(
    run: Run, images: Images, train: np.ndarray, val: np.ndarray, store: FeatureStore | None
) -> Outcome:
    """Everything that a training results in: epochs, logits and weights."""
    epochs = [(e.train_loss, e.train_accuracy, e.val) for e in train_epochs(run, images, train, val, store)]
    return [*epochs, predict_logits(run, images, val, store).tolist()], run.network.net.state_dict()


def assert_same(one: Outcome, other: Outcome) -> None:
    assert one[0] == other[0]
    assert changed(one[1], other[1]) == set()


def count_forwards(run: Run) -> list[int]:
    """The sizes of batches that go through the first block from here on."""
    sizes: list[int] = []
    run.network.net.get_submodule("stem").register_forward_hook(
        lambda _m, given, _o: sizes.append(len(given[0]))
    )
    return sizes


POINTS = [
    {"freeze_depth": 1},
    {"freeze_depth": 2},
    {"freeze_depth": 3},
    {"freeze_depth": 1, "transfer_depth": 2, "head_first_epochs": 2},
    {"head_first_epochs": 4},
    {"freeze_depth": 1, "norm_depth": 3},
    {"freeze_depth": 2, "norm_depth": 3, "norm_affine": "keep"},
    {"head_first_epochs": 2, "norm_depth": 2},
    {"freeze_depth": 2, "mixup": 0.4},
    {"freeze_depth": 2, "augmentation": 0.0},
    {"freeze_depth": 2, "batch_size": 25},
    {"freeze_depth": 2, "batch_size": 3, "optimizer": "adamw", "l2_sp": 0.1},
]


@pytest.mark.parametrize("resident_bytes_max", [0, 10**9], ids=["file", "memory"])
@pytest.mark.parametrize("knob", POINTS, ids=str)
def test_training_on_kept_features_is_training_on_images_to_the_bit(
    begin: Begin,
    point: MakePoint,
    views: Images,
    train: np.ndarray,
    val: np.ndarray,
    make: MakeStore,
    knob: dict[str, object],
    resident_bytes_max: int,
) -> None:
    at = point(**(CHOSEN | {"freeze_depth": 0} | knob))
    store = make(resident_bytes_max=resident_bytes_max)

    plain = trained(begin(at), views, train, val, None)
    cold = trained(begin(at), views, train, val, store)
    warm = trained(begin(at), views, train, val, make(resident_bytes_max=resident_bytes_max))

    assert_same(cold, plain)
    assert_same(warm, plain)


def test_features_that_a_device_refuses_room_for_are_read_from_their_files(
    begin: Begin,
    point: MakePoint,
    views: Images,
    train: np.ndarray,
    val: np.ndarray,
    make: MakeStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = FeatureFormat.empty

    def refuse_all_images(feature_format: FeatureFormat, n: int, device: torch.device) -> torch.Tensor:
        if n == len(views.labels):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return empty(feature_format, n, device)

    at, store = point(**(CHOSEN | {"freeze_depth": 2})), make()
    plain = trained(begin(at), views, train, val, None)
    monkeypatch.setattr(FeatureFormat, "empty", refuse_all_images)

    assert_same(trained(begin(at), views, train, val, store), plain)
    assert store.resident_bytes == 0


@given(st.sets(st.integers(1, 3)), st.integers(1, 3), st.sampled_from([0, 600, 10**9]))
@settings(max_examples=25, deadline=None)
def test_whatever_blocks_are_kept(
    begin: Begin,
    point: MakePoint,
    images: Images,
    train: np.ndarray,
    val: np.ndarray,
    tiny: Callable[..., Network],
    tmp_path_factory: pytest.TempPathFactory,
    kept: set[int],
    depth: int,
    resident_bytes_max: int,
) -> None:
    views, at = replace(images, n_views=2, views_seed=11), point(**(CHOSEN | {"freeze_depth": depth}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLOPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        store = open_store(views, tiny(), kept, resident_bytes_max)
        assert_same(trained(begin(at), views, train, val, store), trained(begin(at), views, train, val, None))
        store.close()


def test_another_trial_and_another_worker_run_no_frozen_block(
    begin: Begin, point: MakePoint, views: Images, train: np.ndarray, val: np.ndarray, make: MakeStore
) -> None:
    at = point(**CHOSEN)
    first, second, elsewhere = begin(at, seed=1), begin(at, seed=2), begin(at, seed=3)
    sizes = [count_forwards(run) for run in (first, second, elsewhere)]
    store = make()

    trained(first, views, train, val, store)
    trained(second, views, train, val, store)
    trained(elsewhere, views, train, val, make())

    # two views of 25 images are two chunks with the 7 others left out, one more holds the validation's
    assert sizes == [[32, 32, 32], [], []]


def test_a_deeper_cut_begins_at_a_kept_block(
    begin: Begin, point: MakePoint, views: Images, train: np.ndarray, val: np.ndarray, make: MakeStore
) -> None:
    trained(begin(point(**CHOSEN)), views, train, val, make())
    deeper = begin(point(**(CHOSEN | {"freeze_depth": 3})))
    sizes = count_forwards(deeper)

    trained(deeper, views, train, val, make())

    assert sizes == []


def test_new_views_each_epoch_are_not_kept(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, make: MakeStore, tmp_path: Path
) -> None:
    run = begin(point(**CHOSEN))
    list(train_epochs(run, replace(images, n_views=0), train, None, make()))

    assert list(tmp_path.rglob("*.rows")) == []


def test_where_training_is_not_kept_validation_is(
    begin: Begin, point: MakePoint, views: Images, train: np.ndarray, val: np.ndarray, make: MakeStore
) -> None:
    at, store = point(**CHOSEN), make()
    store.caches_training_views = False

    found = trained(begin(at), views, train, val, store)

    assert_same(found, trained(begin(at), views, train, val, None))
    assert [path.name for path in store.folder.path.rglob("*.rows")] == ["center.rows"]


@pytest.mark.parametrize("harm", ["cut short", "emptied", "overwritten", "removed"])
def test_a_damaged_file_costs_time_alone(
    begin: Begin,
    point: MakePoint,
    views: Images,
    train: np.ndarray,
    val: np.ndarray,
    make: MakeStore,
    harm: str,
) -> None:
    at, store = point(**CHOSEN), make(resident_bytes_max=0)
    plain = trained(begin(at), views, train, val, None)
    trained(begin(at), views, train, val, store)
    for path in store.folder.path.rglob("*.rows"):
        match harm:
            case "cut short":
                os.truncate(path, path.stat().st_size // 2)
            case "emptied":
                os.truncate(path, 0)
            case "overwritten":
                path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))
            case _:
                path.unlink()

    assert_same(trained(begin(at), views, train, val, make(resident_bytes_max=0)), plain)
    if harm != "overwritten":  # a worker checks a row's sum once, when it first reads it
        assert_same(trained(begin(at), views, train, val, store), plain)


def test_a_full_disk_costs_time_alone_and_is_complained_of(
    begin: Begin,
    point: MakePoint,
    views: Images,
    train: np.ndarray,
    val: np.ndarray,
    make: MakeStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at, store, room, write = point(**CHOSEN), make(resident_bytes_max=0), [20], os.pwrite

    def scarce(*arguments: object) -> int:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pwrite", scarce)

    assert_same(trained(begin(at), views, train, val, store), trained(begin(at), views, train, val, None))
    assert any("No space left" in complaint for complaint in store.write_warnings)


def test_two_workers_that_race_for_a_cold_store_train_the_same(
    begin: Begin, point: MakePoint, views: Images, train: np.ndarray, val: np.ndarray, make: MakeStore
) -> None:
    at, found = point(**CHOSEN), dict[int, Outcome]()
    ready = threading.Barrier(2)

    runs = [begin(at), begin(at)]  # fresh weights are drawn under a seed of the whole process

    def work(index: int) -> None:
        store = make(resident_bytes_max=0)
        ready.wait()
        found[index] = trained(runs[index], views, train, val, store)

    workers = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    plain = trained(begin(at), views, train, val, None)
    assert_same(found[0], plain)
    assert_same(found[1], plain)


def test_what_is_resident_stays_within_its_bound(
    begin: Begin, point: MakePoint, views: Images, train: np.ndarray, val: np.ndarray, make: MakeStore
) -> None:
    # an image's features are 8 x 6 x 6 floats behind the first two blocks, 16 floats behind the third
    one_view = 36 * 8 * 6 * 6 * 4
    store = make(resident_bytes_max=one_view + 100)

    for depth in (1, 2, 3):
        at = point(**(CHOSEN | {"freeze_depth": depth}))
        found = trained(begin(at), views, train, val, store)
        assert_same(found, trained(begin(at), views, train, val, None))

        held = sum(kept.resident_bytes for kept in store._open.values())
        assert 0 < held <= one_view + 100
