"""Views of training images that later epochs and trials use again, according to the study file."""

from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.dimensions import Choice, Fixed, Uniform
from tlopt.spec.search_keys import RULES


def dimension_of(study: Study, name: str) -> dimensions.Dimension:
    """The dimension of a [search] key, or its default value as one."""
    found = study.search.get(name, Fixed(RULES[name].default))  # type: ignore[arg-type]
    assert not isinstance(found, PerOptimizer), f"{name} has no ranges for each optimizer"
    return found


def repeated_strengths(study: Study) -> tuple[float, ...]:
    """Augmentation strengths that trials may share; empty for a range, which never draws one twice."""
    dimension = dimension_of(study, "augmentation")
    return tuple(map(float, dimensions.bounds(dimension))) if isinstance(dimension, Fixed | Choice) else ()


def has_linear(study: Study) -> bool:
    """Whether some trials fit a linear classifier, which uses centre crops without flips."""
    return any(name != "network" for name in dimensions.bounds(dimension_of(study, "classifier")))


def n_repeated_views(study: Study) -> int:
    """Number of views of each training image that later epochs and trials may use again."""
    return study.data.views * len(repeated_strengths(study))


def trains_uncropped(study: Study) -> bool:
    """Whether some trials train on centre crops as in validation.

    These are trials with augmentation strength 0 and those with a linear classifier.
    """
    if has_linear(study):
        return True
    dimension = dimension_of(study, "augmentation")
    return not isinstance(dimension, Uniform) and 0 in dimensions.bounds(dimension)
