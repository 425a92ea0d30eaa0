"""Which frozen features a worker keeps for its study, and where. Torch, and no word of Optuna."""

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial

import torch

from tlopt import dimensions
from tlopt.data import housekeeping
from tlopt.data.cache import complain, locked, unwritable
from tlopt.data.records import Data
from tlopt.data.rows import disk_bytes_max
from tlopt.data.store import cache_root, training_size
from tlopt.dimensions import Choice, Fixed
from tlopt.errors import CacheUnwritable
from tlopt.search_keys import RULES, in_blocks
from tlopt.spec import PerOptimizer, Study
from tlopt.training.features import FeatureStore
from tlopt.training.frozen import CHUNK, Cut, advance, outline
from tlopt.training.images import Images
from tlopt.training.keep_plan import Rates, worth_keeping
from tlopt.training.numerics import circumstances
from tlopt.training.run import Run

_SECONDS_A_BYTE = 5e-10  # two gigabytes a second: the page cache, the checksum of first reads, a copy
_RESIDENT_BYTES_MAX = 1 << 29  # of a worker on a CPU, whose host may have several
_RESIDENT_SHARE = 0.2  # of a GPU's free memory
_TIMED_IMAGES = 8


def open_features(
    study: Study, data: Data, weights_digest: str, run: Run, images: Images
) -> FeatureStore | None:
    """The store of what `run`'s network gives for `images`, shared by all workers of this machine.

    None where nothing is worth keeping, or nothing can be kept.

    Args:
        run: any of the study's with this backbone and resolution; its network is put in eval mode.
    """
    bound = housekeeping.features_bytes_max()
    if bound == 0:
        return None
    cuts, rates = _measure(run)
    n_views = study.data.views * _n_strengths(study)
    disk_bytes = partial(_disk_bytes, data, n_views)
    depths = wanted_depths(study, len(cuts))
    best = worth_keeping(cuts, depths, disk_bytes=disk_bytes, bytes_max=bound, rates=rates)
    if not best:
        return None
    name = _key(data, weights_digest, run, images, study.data.resize)
    about = f"{study.name}: {run.point.backbone}, {run.point.resolution} pixels, {len(data.images)} images"
    try:
        with locked(cache_root() / "features"):
            held = housekeeping.Held(name, about)
            room = housekeeping.room_for(_size(best, cuts, disk_bytes), held.path)
            kept = worth_keeping(cuts, depths, disk_bytes=disk_bytes, bytes_max=room, rates=rates)
            held.plan(_size(kept, cuts, disk_bytes))
    except (OSError, CacheUnwritable) as error:
        complain(unwritable(error) if isinstance(error, OSError) else str(error))
        return None
    return FeatureStore(
        held=held,
        images=images,
        keeps_training=n_views > 0,
        cuts=cuts,
        kept=kept,
        rates=rates,
        resident_bytes_max=_resident_bytes_max(run.device),
    )


def wanted_depths(study: Study, n_blocks: int) -> set[int]:
    """Blocks whose outputs may be wanted: freeze depths, and what the head alone is trained behind."""
    depths = _depths(study, "freeze_depth", n_blocks) | {n_blocks}  # the linear probe
    if dimensions.bounds(dimension_of(study, "head_first_epochs")) != (0,):
        depths |= _depths(study, "transfer_depth", n_blocks)
    return depths - {0}


def _depths(study: Study, name: str, n_blocks: int) -> set[int]:
    dimension = dimension_of(study, name)
    blocks = [in_blocks(value, n_blocks) for value in dimensions.bounds(dimension)]
    return set(blocks) if isinstance(dimension, Choice) else set(range(min(blocks), max(blocks) + 1))


def dimension_of(study: Study, name: str) -> dimensions.Dimension:
    """What the study says of a key of its search, or the default."""
    found = study.search.get(name, Fixed(RULES[name].default))  # type: ignore[arg-type]
    assert not isinstance(found, PerOptimizer), f"{name} has no ranges for each optimizer"
    return found


def _n_strengths(study: Study) -> int:
    """How many strengths of augmentation a study has; 0 where they are a range, which gives none twice."""
    match dimension_of(study, "augmentation"):
        case Fixed():
            return 1
        case Choice(options):
            return len(options)
        case _:
            return 0


def _disk_bytes(data: Data, n_views: int, row_bytes: int) -> int:
    """Bytes on the disk of a block's outputs for all views that may be kept, at most."""
    of = partial(disk_bytes_max, row_bytes, n_rows=len(data.images))
    return of(n_written=len(data.ever_val)) + n_views * of(n_written=len(data.ever_train))


def _size(kept: frozenset[int], cuts: tuple[Cut, ...], disk_bytes: Callable[[int], int]) -> int:
    return sum(disk_bytes(cuts[block - 1].form.row_bytes) for block in kept)


@torch.no_grad()
def _measure(run: Run) -> tuple[tuple[Cut, ...], Rates]:
    run.network.eval()
    side = run.point.resolution
    x = torch.zeros(_TIMED_IMAGES, 3, side, side, device=run.device)
    x = x.contiguous(memory_format=run.numerics.memory_format)
    cuts = outline(run.network, x[:1], run.numerics)
    start = time.perf_counter()
    advance(run.network, x, 0, len(cuts), run.numerics)[0, 0].item()  # waits for a GPU
    seconds = time.perf_counter() - start
    return cuts, Rates(seconds_a_flop=seconds / (CHUNK * cuts[-1].flops), seconds_a_byte=_SECONDS_A_BYTE)


def _key(data: Data, weights_digest: str, run: Run, images: Images, resize: str) -> str:
    meaning = {
        "chunk": CHUNK,
        "images": [image.digest for image in data.images],
        "resize": resize,
        "resolution": run.point.resolution,
        "cut_from": training_size(run.point.resolution),
        "normalised": [images.mean, images.std],
        "backbone": run.point.backbone,
        "weights": weights_digest,
        "numerics": str(run.numerics),
        **circumstances(run.device),
    }
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:24]


def _resident_bytes_max(device: torch.device) -> int:
    if device.type != "cuda":
        return _RESIDENT_BYTES_MAX
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(_RESIDENT_SHARE * free_bytes)
