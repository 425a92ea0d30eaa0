"""Reading dictionaries that other software may have written: values of another kind count as missing."""

from collections.abc import Mapping
from typing import Any


def list_in(values: Mapping[str, Any], key: str) -> list[Any]:
    """The list under `key`; empty without one."""
    found = values.get(key)
    return list(found) if isinstance(found, list | tuple) else []


def table_in(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The dictionary under `key`; empty without one."""
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def numbers_in(values: Mapping[str, Any], key: str) -> dict[str, float]:
    """The numbers under `key` by name."""
    return {name: v for name, v in table_in(values, key).items() if type(v) in (int, float)}


def numbers_by_epoch_in(values: Mapping[str, Any], key: str) -> dict[int, float]:
    """The numbers under `key` by epoch, whose names are whole numbers."""
    found = numbers_in(values, key).items()
    return {int(epoch): float(number) for epoch, number in found if epoch.isdecimal()}
