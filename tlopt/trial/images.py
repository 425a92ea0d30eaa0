"""The images of a bench as its trials see them, decoded at most once. Torch, and no word of Optuna."""

import numpy as np
from numpy.typing import NDArray

from tlopt.data import pixels
from tlopt.data.batches import Images, Resident, Source, resident
from tlopt.data.dataset import Data, TestSplit
from tlopt.data.decode import Reading
from tlopt.model.build import check_resolution
from tlopt.search.repeated_views import dimension_of, trains_uncropped
from tlopt.spec.dimensions import Fixed, bounds
from tlopt.spec.point import Point, seed_for
from tlopt.trial.workspace import Bench


def images_for(bench: Bench, point: Point, *, resides: bool = True) -> Images:
    """The training and validation images, for all points with the backbone and resolution of `point`.

    The pixels of one resolution are kept at a time: a searched resolution would fill the memory with others.

    Args:
        resides: whether they may lie on a GPU.

    Raises:
        DataError: an image changed or went away since `load`.
    """
    check_resolution(bench.weights[point.backbone], point.resolution)
    wanted = _wanted(bench, point.resolution)
    for other in set(bench.views).difference(wanted):
        del bench.views[other]
    for size, which in wanted.items():
        if size not in bench.views:
            bench.views[size] = _pixels(bench, size, which)
        bench.views[size] = _placed(bench.views[size], which, bench, resides=resides)
    eval_pixels, *crops = (bench.views[size] for size in wanted)
    return _images(bench, bench.data, eval_pixels, crops[0] if crops else eval_pixels, point)


def test_images(bench: Bench, test: TestSplit, point: Point) -> Images:
    """The held-out images as `point` sees them."""
    size = pixels.eval_size(point.resolution)
    middles = pixels.pixels(test, size=size, reading=Reading.of(bench.study.data), progress=bench.progress)
    return _images(bench, test, middles, middles, point)


def decode(bench: Bench) -> None:
    """Decode the images now where the study has one resolution, so that no trial stands still for it."""
    wanted = bench.study.search.get("resolution")
    if wanted is not None and not isinstance(wanted, Fixed):
        return
    for resolution in {w.resolution if wanted is None else int(wanted.value) for w in bench.weights.values()}:
        for size, which in _wanted(bench, resolution).items():
            _pixels(bench, size, which)


def _wanted(bench: Bench, resolution: int) -> dict[int, NDArray[np.int64]]:
    """Which images the study's trials see, by size: first to be evaluated on, then to cut crops from."""
    everything = np.arange(len(bench.data.images))
    middles = everything if trains_uncropped(bench.study) else bench.data.ever_val
    crops_any = any(bounds(dimension_of(bench.study, "augmentation")))
    crops = {pixels.training_size(resolution): bench.data.ever_train} if crops_any else {}
    return {pixels.eval_size(resolution): middles} | crops


def _pixels(bench: Bench, size: int, wanted: NDArray[np.int64]) -> pixels.Pixels:
    reading, progress = Reading.of(bench.study.data), bench.progress
    return pixels.pixels(bench.data, size=size, reading=reading, wanted=wanted, progress=progress)


def _placed(source: Source, wanted: NDArray[np.int64], bench: Bench, *, resides: bool) -> Source:
    """`source` on the GPU, where there is one with room to spare, or off it."""
    match source:
        case Resident():
            return source if resides else source.others
        case pixels.Pixels():
            source.try_again()
            return resident(source, wanted, bench.device) if resides else source
        case _:
            return source


def _images(
    bench: Bench, source: Data | TestSplit, eval_pixels: Source, training_pixels: Source, point: Point
) -> Images:
    weights = bench.weights[point.backbone]
    return Images(
        training_pixels=training_pixels,
        eval_pixels=eval_pixels,
        labels=source.labels,
        mean=weights.mean,
        std=weights.std,
        flip=bench.study.data.flip,
        n_views=bench.study.data.views,
        views_seed=seed_for(bench.study.seed, "views"),
    )
