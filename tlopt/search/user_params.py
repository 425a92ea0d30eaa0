"""Parameters that users give to trials, validated and encoded as the search draws them.

Optuna accepts any value in `study.enqueue_trial` and `study.add_trial`: strings for numbers, values out of
range, unknown keys. A trial must not be trained with other values than it states.
"""

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from optuna.distributions import BaseDistribution, check_distribution_compatibility

from tlopt.errors import Refused
from tlopt.model.facts import BackboneFacts
from tlopt.search.space import Params, decode_params, live_keys, search_space, without_idle_keys
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.dimensions import Choice, Dimension, Fixed, Int, Log, Scalar, Uniform, as_toml
from tlopt.spec.point import Point

_POSITION = "_position"


def encode_user_params(given: Mapping[str, Any], study: Study) -> Params:
    """Encode `given` as parameters of the search space of `study`.

    Both values and draws are accepted: for a key with `zero = true`, 0 or any draw below the range; for a key
    whose range depends on the optimizer, a value together with the optimizer, or a position. A fixed key may
    be given with its only value, and is left out of the result.

    Raises:
        Refused: the message names each invalid key and value, and what is allowed.
    """
    params: Params = {}
    problems = []
    for name, value in given.items():
        try:
            params |= _parameter(name, value, given, study)
        except ValueError as error:
            problems.append(f"{name} = {as_toml(value)}: {error}")
    if problems:
        raise Refused("; ".join(problems))
    return params


def point_of_params(params: Mapping[str, Any], study: Study, facts: BackboneFacts) -> Point:
    """The point given by the parameters of a trial that tlopt did not run.

    Raises:
        Refused: the parameters are not a complete point of this search.
    """
    study = without_idle_keys(study, facts)
    known = encode_user_params(params, study)
    space = search_space(study)
    missing = [name for name in space if name in live_keys(known, space) and name not in known]
    if missing:
        raise Refused(f"it has no {', '.join(missing)}")
    return decode_params(known, study, facts)


def check_drawn(
    params: Mapping[str, Any],
    drawn_from: Mapping[str, BaseDistribution],
    space: Mapping[str, BaseDistribution],
) -> None:
    """Check parameters drawn by another program before tlopt draws the rest of a trial.

    Raises:
        Refused: a parameter's distribution is not compatible with the search space.
    """
    for name in params:
        if drawn_from[name] == space.get(name):
            continue
        try:
            check_distribution_compatibility(space[name], drawn_from[name])
        except KeyError:
            raise Refused(f"{name}: {_unknown(name, space)}") from None
        except ValueError as error:
            raise Refused(f"{name} was drawn from another distribution: {error}") from None


def _parameter(name: str, value: Any, given: Mapping[str, Any], study: Study) -> Params:
    known = {"backbone": study.model.backbone, **study.search}
    dimension = known.get(name)
    match dimension:
        case None:
            base = name.removesuffix(_POSITION)
            if name.endswith(_POSITION) and isinstance(known.get(base), PerOptimizer):
                return {name: _in_range(value, Uniform(0.0, 1.0))}
            raise ValueError(_unknown(name, known))
        case PerOptimizer():
            one = getattr(dimension, _optimizer(name, given, study))
            return {f"{name}{_POSITION}": dimensions.position(one, float(_in_range(value, one)))}
        case Fixed(fixed):
            if _same(value, fixed):
                return {}
            raise ValueError(f"it is not searched; every trial has {as_toml(fixed)}")
        case _:
            return {name: _in_range(value, dimension)}


def _optimizer(name: str, given: Mapping[str, Any], study: Study) -> str:
    dimension = study.search["optimizer"]
    assert not isinstance(dimension, PerOptimizer), "the optimizer has one range"
    if isinstance(dimension, Fixed):
        return str(dimension.value)
    if "optimizer" not in given:
        raise ValueError(
            f"its range depends on the optimizer; give optimizer beside it, or {name}{_POSITION}"
        )
    return str(_in_range(given["optimizer"], dimension))


def _in_range(value: Any, dimension: Dimension) -> Scalar:
    """Encode `value` as a draw from `dimension`.

    Raises:
        ValueError: the message says what is allowed.
    """
    match dimension:
        case Fixed(fixed):
            if _same(value, fixed):
                return fixed
        case Choice(options):
            for option in options:
                if _same(value, option):
                    return option
        case Int(low, high):
            if _is_number(value) and value == int(value) and low <= value <= high:
                return int(value)
        case Uniform(low, high):
            if _is_number(value) and low <= value <= high:
                return float(value)
        case Log(_, high, zero):
            if _is_number(value) and zero and value == 0:
                return dimension.encode(0.0)
            if _is_number(value) and dimension.drawn_low <= value <= high:
                return float(value)
        case _:
            assert_never(dimension)
    raise ValueError(f"allowed is {_allowed(dimension)}")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _same(value: Any, option: Scalar) -> bool:
    """Whether both are equal and of the same kind: 1.0 equals 1; True and "1" do not."""
    if _is_number(value) and _is_number(option):
        return bool(value == option)
    return type(value) is type(option) and bool(value == option)


def _allowed(dimension: Dimension) -> str:
    match dimension:
        case Fixed(value):
            return as_toml(value)
        case Choice(options):
            return "one of " + ", ".join(map(as_toml, options))
        case Int(low, high):
            return f"a whole number from {low} to {high}"
        case Uniform(low, high):
            return f"a number from {low:g} to {high:g}"
        case Log(low, high, zero):
            return f"a number from {low:g} to {high:g}" + (", or 0 for off" if zero else "")
        case _:
            assert_never(dimension)


def _unknown(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; its keys are {', '.join(_names(known))}"
    return "the search has no such key" + hint


def _names(known: Mapping[str, object]) -> Iterator[str]:
    """Names of the searched keys."""
    return (name for name, dimension in known.items() if not isinstance(dimension, Fixed))
