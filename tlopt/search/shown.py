"""The images of a bench as its trials see them, decoded at most once. Torch, and no word of Optuna."""

import numpy as np
from numpy.typing import NDArray

from tlopt.data import store
from tlopt.data.records import Data, TestSplit
from tlopt.dimensions import Choice, Fixed, bounds
from tlopt.model.build import check_resolution
from tlopt.point import Point, seed_for
from tlopt.search.bench import Bench
from tlopt.search.keeping import dimension_of
from tlopt.training.images import Images, Source, resident


def images_for(bench: Bench, point: Point) -> Images:
    """The training and validation images, for all points with the backbone and resolution of `point`.

    The pixels of one resolution are kept at a time: a searched resolution would fill the memory with others.
    """
    check_resolution(bench.weights[point.backbone], point.resolution)
    wanted = _wanted(bench, point.resolution)
    for other in set(bench.views).difference(wanted):
        del bench.views[other]
    for size, which in wanted.items():
        if size not in bench.views:
            bench.views[size] = resident(_pixels(bench, size, which), which, bench.device)
    eval_pixels, *crops = (bench.views[size] for size in wanted)
    return _images(bench, bench.data, eval_pixels, crops[0] if crops else eval_pixels, point)


def test_images(bench: Bench, test: TestSplit, point: Point) -> Images:
    """The held-out images as `point` sees them."""
    size = store.eval_size(point.resolution)
    middles = store.pixels(test, size=size, resize=bench.study.data.resize, progress=bench.progress)
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
    strength = dimension_of(bench.study, "augmentation")
    uncropped = isinstance(strength, Fixed | Choice) and 0 in bounds(strength)
    middles = np.arange(len(bench.data.images)) if uncropped else bench.data.ever_val
    crops = {store.training_size(resolution): bench.data.ever_train} if any(bounds(strength)) else {}
    return {store.eval_size(resolution): middles} | crops


def _pixels(bench: Bench, size: int, wanted: NDArray[np.int64]) -> store.Pixels:
    resize, progress = bench.study.data.resize, bench.progress
    return store.pixels(bench.data, size=size, resize=resize, wanted=wanted, progress=progress)


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
