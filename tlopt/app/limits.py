"""Whether a study can keep its `[constraints]`: the cheapest networks of its search space."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product

from tlopt.errors import SpecError
from tlopt.model.facts import BackboneFacts
from tlopt.search.grid import grid_points
from tlopt.search.repeated_views import dimension_of
from tlopt.search.space import classifiers, resolve
from tlopt.spec import Study
from tlopt.spec.algorithms import GridSampler
from tlopt.spec.dimensions import Int, Scalar, Uniform, bounds
from tlopt.spec.objectives import COST_TITLES, excess_over, inference_cost_words
from tlopt.spec.point import Point

_LOWEST_IS_CHEAPEST = ("neck_width", "neck_kernel", "head_width")
_LAYERS = ("neck_layers", "head_layers")  # one narrow layer can make the classifier smaller


def check_limits(study: Study, facts: BackboneFacts, cost_of: Callable[[Point], Mapping[str, float]]) -> None:
    """Raise if every network of the search space breaks the limits, those of latency aside.

    Args:
        cost_of: the counted costs of a point's network.

    Raises:
        SpecError: names the limit, the cheapest network and its cost, and the keys to change.
    """
    limits = {name: limit for name, limit in study.constraints.limits.items() if name != "latency_ms"}
    costs = dict[Point, Mapping[str, float]]()
    for point in cheapest_points(study, facts) if limits else ():
        costs[point] = cost_of(point)
        if all(excess <= 0 for excess in excess_over(limits, costs[point]).values()):
            return
    if limits:
        raise SpecError(_message(limits, costs))


def cheapest_points(study: Study, facts: BackboneFacts) -> Iterator[Point]:
    """Points of the space, among them that of the cheapest network by any count; all points of a grid.

    Counts rise with resolution, widths and kernel, so these are at their lowest. Every backbone and every
    depth is tried: a neck on fewer blocks works on larger maps.
    """
    if isinstance(study.sampler, GridSampler):
        yield from (each.point for each in grid_points(study, facts))
        return
    kinds = sorted({"linear" if kind != "network" else "network" for kind in map(str, classifiers(study))})
    choices = [_lowest(study, name) for name in _LOWEST_IS_CHEAPEST]
    choices += [_few_layers(study, name) for name in _LAYERS]
    choices.append(bounds(dimension_of(study, "neck_convolution")))
    names = (*_LOWEST_IS_CHEAPEST, *_LAYERS, "neck_convolution")
    seen = set[Point]()
    for backbone, kind in product(study.model.backbones, kinds):
        resolutions = [] if "resolution" not in study.search else _lowest(study, "resolution")
        for depth, values in product(_depths(study, facts.n_blocks[backbone]), product(*choices)):
            given: dict[str, Scalar] = dict(zip(names, values, strict=True)) | {"backbone_depth": depth}
            given |= {"resolution": resolutions[0]} if resolutions else {}
            given |= {"classifier": _linear(study)} if kind == "linear" else {}
            point = resolve(given, backbone, study.budget.epochs, facts)
            if point not in seen:
                seen.add(point)
                yield point


def _linear(study: Study) -> Scalar:
    return next(kind for kind in classifiers(study) if kind != "network")


def _lowest(study: Study, name: str) -> tuple[Scalar, ...]:
    return (min(bounds(dimension_of(study, name)), key=float),)


def _few_layers(study: Study, name: str) -> tuple[Scalar, ...]:
    """The lowest number of layers, and one layer if that is allowed; every option of a choice."""
    dimension = dimension_of(study, name)
    if not isinstance(dimension, Int):
        return bounds(dimension)
    return tuple(sorted({dimension.low, min(max(dimension.low, 1), dimension.high)}))


def _depths(study: Study, n_blocks: int) -> Iterable[Scalar]:
    """Values of `backbone_depth` with all numbers of blocks that the study may use, ascending."""
    dimension = dimension_of(study, "backbone_depth")
    match dimension:
        case Int(low, high):
            return range(int(low), int(high) + 1)
        case Uniform(low, high):
            inner = (blocks / n_blocks for blocks in range(1, n_blocks + 1))
            return sorted({low, high, *(depth for depth in inner if low < depth < high)})
    return sorted(bounds(dimension), key=float)


def _message(limits: Mapping[str, float], costs: Mapping[Point, Mapping[str, float]]) -> str:
    """What cannot be kept: the first limit that no network keeps, or all together."""
    for name, limit in limits.items():
        point = min(costs, key=lambda each: costs[each][name])
        if costs[point][name] > limit:
            least = costs[point][name]
            shown = inference_cost_words(name, least)
            return (
                f"constraints.{name} = {limit:g}: no network of this study keeps it; the cheapest in"
                f" {COST_TITLES[name]}, {_named(point)}, has {shown}. Set it to at least"
                f" {least:.0f}{_CURE}"
            )
    nearest = min(costs, key=lambda each: max(excess_over(limits, costs[each]).values()))
    has = " and ".join(
        f"{COST_TITLES[name]} {inference_cost_words(name, costs[nearest][name])}, of at most"
        f" {inference_cost_words(name, limit)}"
        for name, limit in limits.items()
    )
    return (
        "constraints: each limit can be kept, but no network of this study keeps all of them; the nearest,"
        f" {_named(nearest)}, has {has}. Raise a limit{_CURE}"
    )


_CURE = (
    ", or allow smaller networks: a lower search.resolution or search.backbone_depth, or another"
    " model.backbone"
)


def _named(point: Point) -> str:
    depth = f" with {point.backbone_depth} blocks" if point.is_shortened else ""
    return f"{point.backbone}{depth} at {point.resolution} pixels"
