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
    """The study's training and validation images as `point` sees them.

    The pixels of one resolution are kept at a time: a searched resolution would fill the memory with others.
    """
    check_resolution(bench.weights[point.backbone], point.resolution)
    for other in set(bench.views).difference(_sizes(point.resolution, crops=True)):
        del bench.views[other]
    sizes = _sizes(point.resolution, crops=point.augmentation > 0)
    for size, seen in zip(sizes, _seen(bench), strict=False):
        if size not in bench.views:
            bench.views[size] = resident(_pixels(bench, size, seen), seen, bench.device)
    return _images(bench, bench.data, bench.views[sizes[0]], bench.views[sizes[-1]], point)


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
    crops = any(bounds(dimension_of(bench.study, "augmentation")))
    for resolution in {w.resolution if wanted is None else int(wanted.value) for w in bench.weights.values()}:
        for size, seen in zip(_sizes(resolution, crops=crops), _seen(bench), strict=False):
            _pixels(bench, size, seen)


def _sizes(resolution: int, *, crops: bool) -> tuple[int, ...]:
    """Pixels a side at which images are stored: to be evaluated on, and for training to cut crops from."""
    return store.eval_size(resolution), *[store.training_size(resolution)] * crops


def _seen(bench: Bench) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which images the study's trials see at either size."""
    strength = dimension_of(bench.study, "augmentation")
    uncropped = isinstance(strength, Fixed | Choice) and 0 in bounds(strength)
    middles = np.arange(len(bench.data.images)) if uncropped else bench.data.ever_val
    return middles, bench.data.ever_train


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
