"""Precision and layout of a study, from its file or measured by its first worker."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from tlopt.model.families.table import skeleton
from tlopt.model.network import Network
from tlopt.model.weights import Weights
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.dimensions import bounds
from tlopt.spec.search_keys import RULES
from tlopt.training.numerics import LAYOUTS, PRECISIONS, Layout, Numerics, Precision, usual_numerics
from tlopt.training.timing import seconds_per_image

SECONDS_RATIO_MAX = 0.9  # of the default's time; a smaller gain is not worth different last bits


def numerics_of_study(study: Study, network: Network, device: torch.device) -> Numerics:
    """Precision and layout from the study file; defaults for the network where it says "auto"."""
    precision, layout = _fixed_numerics(study)
    likely = usual_numerics(network, device)
    return Numerics(precision or likely.precision, layout or likely.layout)


def measure_numerics(
    study: Study, weights: Mapping[str, Weights], *, n_classes: int, device: torch.device
) -> dict[str, Numerics]:
    """Measure the fastest numerics for each backbone where the study file says "auto"; takes seconds.

    A searched resolution or batch size is measured at its lowest value.
    """
    if "auto" not in (study.model.precision, study.model.layout):
        return {}
    precision, layout = _fixed_numerics(study)
    chosen = {}
    for backbone, each in weights.items():
        likely = usual_numerics(skeleton(backbone), device)
        chosen[backbone] = fastest_numerics(
            each,
            likely,
            precision=precision,
            layout=likely.layout if study.model.layout == "usual" else layout,
            resolution=_lowest(study, "resolution", each.resolution),
            batch_size=_lowest(study, "batch_size", int(RULES["batch_size"].default or 0)),
            n_classes=n_classes,
            device=device,
        )
    return chosen


def fastest_numerics(
    weights: Weights,
    usual: Numerics,
    *,
    precision: Precision | None,
    layout: Layout | None,
    resolution: int,
    n_classes: int,
    batch_size: int,
    device: torch.device,
) -> Numerics:
    """Measure the numerics with the fastest training step; `usual` unless another is 10 % faster.

    Args:
        precision: fixed precision, or None to measure all; `layout` likewise.
    """
    options = [
        Numerics(one, other)
        for one in (PRECISIONS if precision is None else (precision,))
        for other in (LAYOUTS if layout is None else (layout,))
    ]
    base = replace(usual, precision=precision or usual.precision, layout=layout or usual.layout)
    seconds = {
        option: seconds_per_image(
            weights,
            resolution,
            n_classes=n_classes,
            batch_size=batch_size,
            device=device,
            numerics=option,
        )
        for option in options
    }
    best = min(options, key=seconds.__getitem__)
    return best if seconds[best] < SECONDS_RATIO_MAX * seconds[base] else base


def _fixed_numerics(study: Study) -> tuple[Precision | None, Layout | None]:
    """Precision and layout that the study file fixes; None where it does not."""
    precision, layout = study.model.precision, study.model.layout
    return (
        None if precision == "auto" else precision,
        None if layout == "auto" or layout == "usual" else layout,
    )


def _lowest(study: Study, name: str, default: int) -> int:
    dimension = study.search.get(name)
    if dimension is None or isinstance(dimension, PerOptimizer):
        return default
    return min(int(value) for value in bounds(dimension))
