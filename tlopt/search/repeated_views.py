"""What of a training image's views comes again, as far as the study file says."""

from collections.abc import Iterator

from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.dimensions import Choice, Fixed, Uniform
from tlopt.spec.search_keys import RULES


def dimension_of(study: Study, name: str) -> dimensions.Dimension:
    """What the study says of a key of its search, or the default."""
    found = study.search.get(name, Fixed(RULES[name].default))  # type: ignore[arg-type]
    assert not isinstance(found, PerOptimizer), f"{name} has no ranges for each optimizer"
    return found


def strengths(study: Study) -> tuple[float, ...]:
    """Of augmentation, that trials may have in common: of a range none, which gives none twice."""
    dimension = dimension_of(study, "augmentation")
    return tuple(map(float, dimensions.bounds(dimension))) if isinstance(dimension, Fixed | Choice) else ()


def n_repeated_views(study: Study) -> int:
    """How many views of a training image later epochs and trials may see again."""
    return study.data.views * len(strengths(study))


def trains_uncropped(study: Study) -> bool:
    """Whether some trials see training images as validation does, mirrored or not: at a strength of 0."""
    dimension = dimension_of(study, "augmentation")
    return not isinstance(dimension, Uniform) and 0 in dimensions.bounds(dimension)


def view_warnings(study: Study) -> Iterator[str]:
    """A sentence for each key for whose sake fixed views save no trial anything."""
    if study.data.views == 0:
        return
    vain = f"with data.views = {study.data.views} epochs take turns at views of which nothing is kept"
    if n_repeated_views(study) == 0:
        yield f"augmentation has a range, which gives no strength twice: {vain}; name strengths with choice"
    if min(map(float, dimensions.bounds(dimension_of(study, "mixup")))) > 0:
        yield f"mixup blends images anew in each step: {vain}; set data.views = 0 or mixup = 0"
