"""The fit of a pretrained network to a study's training images, by block and as a whole."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from tlopt.errors import DataError
from tlopt.insight.block_features import BlockFeatures, block_features, source_head
from tlopt.insight.images import Images, SourceImages, TrainingImages
from tlopt.insight.labelled_features import Floats, LabelledFeatures, SourceMeans
from tlopt.insight.measures import Measure
from tlopt.insight.record import Fit, FitRow, SimilarityRow, SourceSet
from tlopt.insight.similarity import (
    IMAGES_MIN,
    debiased_cka,
    information_imbalance,
    neighbourhood_overlap,
)
from tlopt.model.build import check_resolution, transfer, untrained_network
from tlopt.model.network import Network
from tlopt.model.weights import Weights


def measure_fit(
    weights: Weights,
    images: TrainingImages,
    measures: Sequence[Measure],
    *,
    resolution: int,
    device: torch.device,
    source: SourceImages | None = None,
    progress: bool = False,
) -> Fit:
    """The fit of the network of `weights` at `resolution`.

    Args:
        source: images that the network was pretrained on, for measures that need them.

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
    if source is None:
        return fit_of(found, images, measures, weights=weights, resolution=resolution)
    its_own = pretrained_features(weights, source, resolution=resolution, device=device, progress=progress)
    means = [SourceMeans.of(features, source.labels) for features in its_own.features]
    return fit_of(
        found, images, measures, weights=weights, resolution=resolution, source=(source.record, means)
    )


def compare(
    weights: Weights, other: Network, images: TrainingImages, *, resolution: int, device: torch.device
) -> tuple[tuple[SimilarityRow, ...], tuple[SimilarityRow, ...]]:
    """Similarity by block between the network of `weights` and `other`, and an untrained network.

    Args:
        other: a network of the same backbone, trained with the pixel statistics of `weights`; of a shortened
            one, the blocks that are left are compared.

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
    rows = _similarity(found[0], found[1])
    return rows, _similarity(found[0], found[2])[: len(rows)]


def _similarity(one: BlockFeatures, other: BlockFeatures) -> tuple[SimilarityRow, ...]:
    """Rows for the blocks with the same name in both."""
    both = zip(one.names, other.names, strict=False)
    n_common = sum(name == other_name for name, other_name in both)
    rows = zip(one.names[:n_common], one.features, other.features, strict=False)
    return tuple(_similarity_row(name, x, y) for name, x, y in rows)


def _similarity_row(name: str, x: Floats, y: Floats) -> SimilarityRow:
    if not (_tells_images_apart(x) and _tells_images_apart(y)):
        return SimilarityRow(name=name, cka=None, overlap=None, forward=None, back=None)
    cka = debiased_cka(x, y)
    return SimilarityRow(
        name=name,
        cka=cka if math.isfinite(cka) else None,
        overlap=neighbourhood_overlap(x, y),
        forward=information_imbalance(x, y),
        back=information_imbalance(y, x),
    )


def _tells_images_apart(features: Floats) -> bool:
    return bool(np.isfinite(features).all() and (features != features[:1]).any())


def pretrained_features(
    weights: Weights,
    images: Images,
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
    source: tuple[SourceSet, Sequence[SourceMeans]] | None = None,
) -> Fit:
    """The values of `measures` for the features `found`.

    Args:
        source: the images of the source, and the means of their classes for each block.
    """
    labels, folds = images.labels, images.folds
    means = [None] * len(found.features) if source is None else source[1]
    samples = [
        LabelledFeatures(features=features, labels=labels, folds=folds, source_means=own)
        for features, own in zip(found.features, means, strict=True)
    ]
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
        source=source and source[0],
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
