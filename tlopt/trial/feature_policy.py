"""Policy of the feature cache: the blocks to cache for a study, and the folder for them."""

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch

from tlopt.cache import eviction
from tlopt.cache.folder import locked, unwritable_message, warn_once
from tlopt.cache.record_file import disk_bytes_max
from tlopt.data.batches import Images, gpu_bytes_free
from tlopt.data.dataset import Data
from tlopt.data.decode import DECODER
from tlopt.data.pixels import cache_root
from tlopt.errors import CacheUnwritable, OutOfMemory
from tlopt.search.repeated_views import (
    dimension_of,
    has_linear,
    n_repeated_views,
    repeated_strengths,
    trains_uncropped,
)
from tlopt.spec import SEMANTICS_VERSION, Study, dimensions
from tlopt.spec.dimensions import Choice
from tlopt.spec.search_keys import in_blocks
from tlopt.system.words import counted
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.feature_cache_plan import CostModel, blocks_to_cache
from tlopt.training.frozen_prefix import CHUNK_IMAGES, SplitPoint, find_split_points, forward_blocks
from tlopt.training.numerics import computing_environment
from tlopt.training.run import Run, memory_errors

_SECONDS_PER_BYTE = 5e-10  # 2 GB/s: page cache, checksum at the first read, copy
_RESIDENT_BYTES_MAX = 1 << 29  # per worker on a CPU, where several share the memory
_RESIDENT_SHARE = 0.2  # share of a GPU's free memory
_TIMED_IMAGES = 8


def open_feature_store(
    study: Study, data: Data, weights_digest: str, run: Run, images: Images, *, allow_resident: bool
) -> FeatureStore | None:
    """Open the feature cache for `images`, which the workers of this machine share.

    None if no block is worth caching, or none can be cached.

    Args:
        run: any run of the study with this backbone and resolution; its network is put into eval mode.
        allow_resident: whether features may be kept on the device.
    """
    bound = eviction.features_bytes_max()
    if bound == 0:
        return None
    try:
        with memory_errors():
            split_points, cost_model = _measure(run)
    except OutOfMemory:  # the trial itself finds out whether it fits in memory
        return None
    disk_bytes = partial(_disk_bytes, study, data)
    depths = wanted_depths(study, len(split_points))
    best = blocks_to_cache(
        split_points, depths, disk_bytes=disk_bytes, bytes_max=bound, cost_model=cost_model
    )
    if not best:
        return None
    name = _key(study, data, weights_digest, run, images)
    n_images = counted(len(data.images), "image")
    about = f"{study.name}: {run.point.backbone}, {run.point.resolution} pixels, {n_images}"
    try:
        with locked(cache_root() / "features"):
            folder = eviction.FolderLock(name, about)
            room = eviction.make_room(_size(best, split_points, disk_bytes), folder.path)
            blocks = blocks_to_cache(
                split_points, depths, disk_bytes=disk_bytes, bytes_max=room, cost_model=cost_model
            )
            folder.reserve(_size(blocks, split_points, disk_bytes))
    except (OSError, CacheUnwritable) as error:
        warn_once(unwritable_message(error) if isinstance(error, OSError) else str(error))
        return None
    return FeatureStore(
        folder=folder,
        images=images,
        caches_training_views=n_repeated_views(study) > 0,
        split_points=split_points,
        cached_blocks=blocks,
        cost_model=cost_model,
        resident_bytes_max=_resident_bytes_max(run.device),
        allow_resident=allow_resident,
    )


def wanted_depths(study: Study, n_blocks: int) -> set[int]:
    """Depths at which trials may split the network: freeze depths, and those where only the head trains."""
    frozen, starts, used = (
        _depths(study, name, n_blocks) for name in ("freeze_depth", "transfer_depth", "backbone_depth")
    )
    transferred = {min(k, s) for k in starts for s in used}
    depths = {min(f, k) for f in frozen for k in transferred} | {n_blocks}  # the linear probe
    if dimensions.bounds(dimension_of(study, "head_first_epochs")) != (0,):
        depths |= transferred
    return depths - {0}


def _depths(study: Study, name: str, n_blocks: int) -> set[int]:
    dimension = dimension_of(study, name)
    blocks = [in_blocks(value, n_blocks) for value in dimensions.bounds(dimension)]
    return set(blocks) if isinstance(dimension, Choice) else set(range(min(blocks), max(blocks) + 1))


def _disk_bytes(study: Study, data: Data, row_bytes: int) -> int:
    """Upper bound in bytes on disk of a block's outputs for all views that may be cached."""
    of = partial(disk_bytes_max, row_bytes, n_rows=len(data.images))
    # Without crops and flips, training and validation share a view.
    all_uncropped = has_linear(study) or (trains_uncropped(study) and not study.data.flip)
    uncropped = of(n_written=len(data.images if all_uncropped else data.ever_val))
    return uncropped + n_repeated_views(study) * of(n_written=len(data.ever_train))


def _size(
    blocks: frozenset[int], split_points: tuple[SplitPoint, ...], disk_bytes: Callable[[int], int]
) -> int:
    return sum(disk_bytes(split_points[block - 1].feature_format.row_bytes) for block in blocks)


@torch.no_grad()
def _measure(run: Run) -> tuple[tuple[SplitPoint, ...], CostModel]:
    run.network.eval()
    side = run.point.resolution
    x = torch.zeros(_TIMED_IMAGES, 3, side, side, device=run.device)
    x = x.contiguous(memory_format=run.numerics.memory_format)
    split_points = find_split_points(run.network, x[:1], run.numerics)
    start = time.perf_counter()
    forward_blocks(run.network, x, 0, len(split_points), run.numerics)[0, 0].item()  # waits for a GPU
    seconds = time.perf_counter() - start
    return split_points, CostModel(
        seconds_per_flop=seconds / (CHUNK_IMAGES * split_points[-1].flops), seconds_per_byte=_SECONDS_PER_BYTE
    )


def _key(study: Study, data: Data, weights_digest: str, run: Run, images: Images) -> str:
    """Digest of everything that features depend on, and of the repeated views that the folder stores.

    Studies that train on other views have separate folders, which can be evicted one by one.
    """
    repeated = [study.data.views, images.views_seed, study.data.flip, *repeated_strengths(study)]
    meaning = {
        "semantics": SEMANTICS_VERSION,  # how views are made and networks divided into blocks
        "decoder": DECODER,
        "chunk": CHUNK_IMAGES,
        "images": [image.digest for image in data.images],
        "resize": study.data.resize,
        "resolution": run.point.resolution,
        "normalised": [images.mean, images.std],
        "backbone": run.point.backbone,
        "weights": weights_digest,
        "repeated": repeated if n_repeated_views(study) else [],
        "numerics": str(run.numerics),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        **{library: _version(library) for library in ("torchvision", "timm")},  # they define the networks
        **computing_environment(run.device),
    }
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:24]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def _resident_bytes_max(device: torch.device) -> int:
    if device.type != "cuda":
        return _RESIDENT_BYTES_MAX
    return int(_RESIDENT_SHARE * gpu_bytes_free(device))
