"""Which views of a training image recur in later epochs and trials, as far as the study file says."""

from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.dimensions import Choice, Fixed, Uniform
from tlopt.spec.search_keys import RULES


def dimension_of(study: Study, name: str) -> dimensions.Dimension:
    """The study's dimension of a key of [search], or its default."""
    found = study.search.get(name, Fixed(RULES[name].default))  # type: ignore[arg-type]
    assert not isinstance(found, PerOptimizer), f"{name} has no ranges for each optimizer"
    return found


def repeated_strengths(study: Study) -> tuple[float, ...]:
    """Strengths of augmentation that several trials may share; none for a range, which draws none twice."""
    dimension = dimension_of(study, "augmentation")
    return tuple(map(float, dimensions.bounds(dimension))) if isinstance(dimension, Fixed | Choice) else ()


def n_repeated_views(study: Study) -> int:
    """Number of views of a training image that later epochs and trials may see again."""
    return study.data.views * len(repeated_strengths(study))


def trains_uncropped(study: Study) -> bool:
    """Whether some trials see training images as validation does, mirrored or not: at a strength of 0."""
    dimension = dimension_of(study, "augmentation")
    return not isinstance(dimension, Uniform) and 0 in dimensions.bounds(dimension)
