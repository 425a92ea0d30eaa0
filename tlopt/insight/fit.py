"""The fit of a pretrained network to a study's training images, by block and as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tlopt.data import pixels
from tlopt.data.dataset import Data
from tlopt.data.decode import Reading
from tlopt.data.split import subset
from tlopt.errors import DataError
from tlopt.insight.block_features import BlockFeatures, block_features, source_head
from tlopt.insight.labelled_features import LabelledFeatures, Labels
from tlopt.insight.measures import Measure
from tlopt.insight.record import Fit, FitRow, SimilarityRow
from tlopt.insight.similarity import (
    IMAGES_MIN,
    debiased_cka,
    information_imbalance,
    neighbourhood_overlap,
)
from tlopt.model.build import check_resolution, transfer, untrained_network
from tlopt.model.folds import Fold, stratified_folds
from tlopt.model.network import Network
from tlopt.model.weights import Weights
from tlopt.spec.sections import DataSpec
from tlopt.system.words import counted

IMAGES_MAX = 1000  # training images used; more would hardly improve the values and slow the command down
_PER_CLASS_MIN = 3  # images of each class that `subset` keeps, whatever the limit


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingImages:
    """The images on which fit is measured: training images of the first split only."""

    data: Data
    reading: Reading
    indices: NDArray[np.int64]  # into `data.images`
    folds: tuple[Fold, ...]

    @classmethod
    def of(cls, data: Data, spec: DataSpec, *, images_max: int | None = None) -> "TrainingImages":
        """At most `images_max` training images of the first split, with each class in proportion.

        The default is `IMAGES_MAX`, or more if the classes need more. Copies and groups stay on one side of
        each fold.

        Raises:
            DataError: `images_max` is too small for the classes, or no class has two different images.
        """
        split = data.splits[0].train
        images = [data.images[i] for i in split]
        needed = _PER_CLASS_MIN * len({(image.label, image.split) for image in images})
        most = images_max or max(IMAGES_MAX, needed)
        kept = set(map(id, subset(images, most, called="--images")))
        indices = np.array([i for i in split if id(data.images[i]) in kept], dtype=np.int64)
        units = np.unique([data.images[i].unit for i in indices], return_inverse=True)[1]
        try:
            folds = stratified_folds(data.labels[indices], units)
        except ValueError:
            few = counted(len(indices), "training image is", "training images are")
            raise DataError(
                f"{few} too few to measure a fit, with at most one different image of each class: add images"
            ) from None
        return cls(data=data, reading=Reading.of(spec), indices=indices, folds=folds)

    @property
    def labels(self) -> Labels:
        """Class indices, (N,)."""
        return self.data.labels[self.indices]

    def pixels(self, resolution: int, *, progress: bool = False) -> pixels.Pixels:
        """The pixels of the data set, with these images decoded.

        Raises:
            DataError: an image has changed or disappeared since it was first read.
        """
        size = pixels.eval_size(resolution)
        return pixels.pixels(
            self.data, size=size, reading=self.reading, wanted=self.indices, progress=progress
        )


def measure_fit(
    weights: Weights,
    images: TrainingImages,
    measures: Sequence[Measure],
    *,
    resolution: int,
    device: torch.device,
    progress: bool = False,
) -> Fit:
    """The fit of the network of `weights` at `resolution`.

    Raises:
        SpecError: the network does not support the resolution.
        DataError: an image has changed or disappeared since it was first read.
    """
    found = pretrained_features(
        weights,
        images,
        resolution=resolution,
        device=device,
        with_source=any(not measure.by_block for measure in measures),
        progress=progress,
    )
    return fit_of(found, images, measures, weights=weights, resolution=resolution)


def compare(
    weights: Weights, other: Network, images: TrainingImages, *, resolution: int, device: torch.device
) -> tuple[tuple[SimilarityRow, ...], tuple[SimilarityRow, ...]]:
    """Similarity by block between the network of `weights` and `other`, and an untrained network.

    Args:
        other: a network with the same blocks, trained with the pixel statistics of `weights`.

    Raises:
        SpecError: the network does not support the resolution.
        DataError: there are too few images, or one has changed since it was first read.
    """
    if len(images.indices) < IMAGES_MIN:
        raise DataError(f"networks are compared on at least {IMAGES_MIN} training images")
    check_resolution(weights, resolution)
    pretrained, untrained = (untrained_network(weights, resolution, seed=seed) for seed in (0, 1))
    transfer(pretrained, weights, depth=len(pretrained.blocks))
    found = [
        block_features(
            network,
            images.pixels(resolution),
            images.indices,
            resolution=resolution,
            mean=weights.mean,
            std=weights.std,
            device=device,
        )
        for network in (pretrained, other, untrained)
    ]
    return _similarity(found[0], found[1]), _similarity(found[0], found[2])


def _similarity(one: BlockFeatures, other: BlockFeatures) -> tuple[SimilarityRow, ...]:
    rows = zip(one.names, one.features, other.features, strict=True)
    return tuple(
        SimilarityRow(
            name=name,
            cka=debiased_cka(x, y),
            overlap=neighbourhood_overlap(x, y),
            forward=information_imbalance(x, y),
            back=information_imbalance(y, x),
        )
        for name, x, y in rows
    )


def pretrained_features(
    weights: Weights,
    images: TrainingImages,
    *,
    resolution: int,
    device: torch.device,
    with_source: bool = False,
    progress: bool = False,
) -> BlockFeatures:
    """Features of the network of `weights` by block; `with_source` adds its classifier's probabilities."""
    check_resolution(weights, resolution)
    network = untrained_network(weights, resolution, seed=0)
    transfer(network, weights, depth=len(network.blocks))
    return block_features(
        network,
        images.pixels(resolution, progress=progress),
        images.indices,
        resolution=resolution,
        mean=weights.mean,
        std=weights.std,
        device=device,
        source_head=source_head(weights) if with_source else None,
    )


def fit_of(
    found: BlockFeatures,
    images: TrainingImages,
    measures: Sequence[Measure],
    *,
    weights: Weights,
    resolution: int,
) -> Fit:
    """The values of `measures` for the features `found`."""
    labels, folds = images.labels, images.folds
    samples = [LabelledFeatures(features=features, labels=labels, folds=folds) for features in found.features]
    rows = [
        FitRow(
            name=name,
            n_features=sample.features.shape[1],
            values={each.name: each.value(sample) for each in measures if each.by_block},
        )
        for name, sample in zip(found.names, samples, strict=True)
    ]
    last = LabelledFeatures(
        features=found.features[-1],
        labels=labels,
        folds=folds,
        source_probabilities=found.source_probabilities,
    )
    more = {each.name: each.value(last) for each in measures if not each.by_block}
    network = FitRow(
        name="network",
        n_features=rows[-1].n_features,
        values={each.name: ({**rows[-1].values, **more})[each.name] for each in measures},
    )
    return Fit(
        backbone=weights.backbone,
        weights=weights.label,
        resolution=resolution,
        n_images=len(labels),
        n_classes=len(np.unique(labels)),
        blocks=tuple(rows),
        network=network,
        warnings=tuple(_warnings(measures, samples, last)),
    )


def _warnings(
    measures: Sequence[Measure], samples: Sequence[LabelledFeatures], last: LabelledFeatures
) -> list[str]:
    """One sentence for each measure with a warning, with the blocks concerned."""
    sentences = []
    for measure in measures:
        if not measure.by_block and last.source_probabilities is None:
            sentences.append(f"{measure.column.title}: the network's own classifier is not known")
            continue
        over = samples if measure.by_block else [last]
        reasons = [measure.warnings(sample) for sample in over]
        depths = [depth for depth, found in enumerate(reasons, 1) if found]
        if depths:
            where = "" if len(depths) == len(over) else f" (blocks {_spans(depths)})"
            sentences.append(f"{measure.column.title}: {reasons[depths[-1] - 1][0]}{where}")
    return sentences


def _spans(depths: Sequence[int]) -> str:
    """`depths` as text, such as "1, 3 to 5"."""
    spans: list[list[int]] = []
    for depth in depths:
        if spans and spans[-1][-1] == depth - 1:
            spans[-1] = [spans[-1][0], depth]
        else:
            spans.append([depth])
    return ", ".join(" to ".join(map(str, span)) for span in spans)
