"""Messages about mistakes in a study file: the key, the problem, the allowed values."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from tlopt.spec.dimensions import as_toml

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}


def lines(error: ValidationError, record: type[BaseModel]) -> list[str]:
    """One line for each mistake in the input for a `record`."""
    return [line for item in error.errors(include_url=False) for line in _explain(item, record)]


def unknown_key(name: str, allowed: Sequence[str]) -> str:
    """The message about an unknown key, with the closest known keys and all allowed ones."""
    close = difflib.get_close_matches(name.lower(), allowed, n=3, cutoff=0.6)
    guess = f"did you mean {' or '.join(close)}? " if close else ""
    return f"unknown key; {guess}the keys here are {', '.join(allowed)}"


def _explain(item: Any, record: type[BaseModel]) -> list[str]:
    loc, kind = item["loc"], item["type"]
    if loc and isinstance(loc[-1], int):  # an entry of a list; the list's description explains it
        loc, kind = loc[:-1], "entry"
    path = [str(part) for part in loc]
    if len(path) == 3:
        del path[1]  # the kind, which pydantic inserts for a union of records
    key, given, context = ".".join(path), item["input"], item.get("ctx", {})
    if item["type"] == "value_error":
        message = str(context["error"])
        own = not path or message.startswith(f"{key}.")  # the message names its keys
        return message.split("\n") if own else [f"{key}: {message}"]
    if item["type"].startswith("union_tag"):
        problem = "missing" if "tag" not in context else f"{as_toml(given['kind'])} is not allowed"
        return [f"{key}.kind: {problem}: one of {_quoted(_by_kind(record, key))}"]
    return [f"{key}: {_problem(kind, given, context, record, loc)}"]


def _problem(kind: str, given: Any, context: Any, record: type[BaseModel], path: tuple[str, ...]) -> str:
    if kind == "extra_forbidden":
        return unknown_key(path[-1], list(_record_at(record, path[:-1]).model_fields))
    field = _record_at(record, path[:-1]).model_fields[path[-1]]
    if kind == "missing":
        return f"missing: {field.description or f'a table, [{path[-1]}]'}"
    refused = f"{as_toml(given)} is not allowed"
    if kind in _KINDS:
        return f"{refused}: {_KINDS[kind]}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = context[name]
        return f"{refused}: {words} {bound if isinstance(bound, int) else f'{bound:g}'}"
    if kind == "literal_error":
        return f"{refused}: one of {_quoted(get_args(field.annotation))}"
    return f"{refused}: {field.description}"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _record_at(record: type[BaseModel], path: tuple[str, ...]) -> type[BaseModel]:
    """The record at `path`; for a union, the path includes the kind."""
    if not path:
        return record
    if len(path) == 2:
        return _by_kind(record, path[0])[path[1]]
    found = record.model_fields[path[0]].annotation
    assert isinstance(found, type)
    assert issubclass(found, BaseModel)
    return found


def _by_kind(record: type[BaseModel], field: str) -> dict[str, type[BaseModel]]:
    """The records of a union by their `kind`."""
    options = get_args(record.model_fields[field].annotation)
    return {get_args(option.model_fields["kind"].annotation)[0]: option for option in options}
