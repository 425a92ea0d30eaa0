"""The types of arguments of public functions, checked before anything is read."""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_Kind = tuple[tuple[Any, ...], str]  # types, and what they are in words
_PATH: _Kind = (str, os.PathLike), "a str or a Path"
_TEXT: _Kind = (str,), "a str"
_WHOLE: _Kind = (Integral,), "a whole number"
_NUMBER: _Kind = (Real,), "a number"
_FLAG: _Kind = (bool,), "True or False"

# By name, which means the same in all public functions. None is allowed where it is the default.
KINDS: dict[str, _Kind] = {
    "path": _PATH,
    "config": _PATH,
    "folder": _PATH,
    "file": _PATH,
    "runs": _PATH,
    "source": _PATH,
    "storage": ((str,), "a database's URL as a str"),
    "backbone": _TEXT,
    "name": _TEXT,
    "over": _TEXT,
    "device": _TEXT,
    "n_workers": _WHOLE,
    "trials": _WHOLE,
    "epochs": _WHOLE,
    "resolution": _WHOLE,
    "minutes": _NUMBER,
    "progress": _FLAG,
    "skip_unreadable": _FLAG,
    "overwrite": _FLAG,
    "onnx": _FLAG,
    "soup": _FLAG,
    "ensemble": _FLAG,
    "points": _WHOLE,
    "compact": _FLAG,
    "network": _PATH,
    "others": _PATH,
    "export": _PATH,
    "latency": _FLAG,
    "batch_size": _WHOLE,
    "n_rounds": _WHOLE,
    "parameters": _NUMBER,
    "multiply_adds": _NUMBER,
    "loss_max": _NUMBER,
    "criterion": _TEXT,
    "scope": _TEXT,
    "data": ((Mapping,), "a dict of keys and values of [data]"),
    "on_snapshot": ((Callable,), "a function of a snapshot"),
    "images": ((Iterable,), "a list of paths"),
}

_ZERO = {"n_workers": "as many as suit this machine", "points": "the usual number"}  # what 0 means


def type_checked(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, for which arguments of other types than `KINDS` raise a TypeError that names them."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            parameter = signature.parameters[name]
            values = value if parameter.kind == inspect.Parameter.VAR_POSITIONAL else (value,)
            for each in values if parameter.default is not None else filter(_is_given, values):
                _check(f"tlopt.{function.__name__}: {name}", name, each)
        return function(*args, **kwargs)

    return call


def _is_given(value: object) -> bool:
    return value is not None


def _check(where: str, name: str, value: Any) -> None:
    """Raise TypeError unless `value` has a type of `KINDS[name]`; ValueError for one below 0 in `_ZERO`.

    The message has the value's type alone, because a URL may hold a password.
    """
    types, words = KINDS[name]
    odd = isinstance(value, bool) and bool not in types  # Python counts booleans among whole numbers
    one = name == "images" and isinstance(value, (str, os.PathLike))  # a str holds letters, not paths
    if odd or one or not isinstance(value, types):
        raise TypeError(f"{where} is {words}, not {type(value).__name__}")
    if name in _ZERO and value < 0:
        raise ValueError(f"{where} is 0 ({_ZERO[name]}) or more, not {value}")
    if name == "images" and isinstance(value, (list, tuple)):
        for each in value:
            if not isinstance(each, (str, os.PathLike)):
                raise TypeError(f"{where} is {words}, not of {type(each).__name__}")
