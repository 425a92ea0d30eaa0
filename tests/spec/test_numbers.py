"""Keys of the study file refuse numbers that are absurd, too small to matter or too large for a table."""

from collections.abc import Iterator
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.spec.schema import study_schema
from tlopt.spec.search_keys import RULES, Word
from tlopt.spec.study import Study

BASE: dict[str, Any] = {
    "name": "x",
    "data": {"source": "x"},
    "model": {"backbone": "resnet18"},
    "budget": {"trials": 3, "epochs": 3},
}


def keys() -> Iterator[tuple[str, str, str]]:
    """Table, kind and key of every number; "" for no table and no kind."""
    for name, said in study_schema()["properties"].items():
        for table in said.get("oneOf", [said]):
            kind = table.get("properties", {}).get("kind", {}).get("const", "")
            for key, field in table.get("properties", {name: said}).items():
                if field.get("type") in ("integer", "number"):
                    yield ("" if key == name else name), kind, key
    yield from (("search", "", name) for name, rule in RULES.items() if not isinstance(rule, Word))


NUMBERS = sorted(keys())


def loads(table: str, kind: str, key: str, value: float | dict[str, Any]) -> Study:
    chosen: dict[str, Any] = {"kind": kind} if kind else {}
    changes = {table: {**BASE.get(table, {}), **chosen, key: value}} if table else {key: value}
    return spec.loads(tomlkit.dumps(BASE | changes), "x.toml")


def test_every_table_has_numbers() -> None:
    tables = {table for table, *_ in NUMBERS}

    assert tables == {
        "",
        "data",
        "budget",
        "search",
        "sampler",
        "pruner",
        "constraints",
        "confirm",
        "prune",
        "service",
    }
    assert len(NUMBERS) == len(set(NUMBERS)) > 40
    assert ("budget", "", "hours") in NUMBERS
    assert ("pruner", "percentile", "percentile") in NUMBERS


@pytest.mark.parametrize(("table", "kind", "key"), NUMBERS)
@given(
    value=st.one_of(
        st.floats(0, 1e-31, exclude_min=True),
        st.floats(1e20, 1.7e308),
        st.integers(10**20, 10**300),
        st.integers(-(10**300), -1),
    )
)
def test_a_number_beyond_sense_is_refused_by_file_and_key(
    table: str, kind: str, key: str, value: float
) -> None:
    with pytest.raises(SpecError) as caught:
        loads(table, kind, key, value)

    path = f"{table}.{key}" if table else key
    assert str(caught.value).startswith(f"x.toml: {path}: ")
    assert "is not allowed: " in str(caught.value)


RANGES = [key for key in NUMBERS if key[0] == "search"]


@pytest.mark.parametrize(("table", "kind", "key"), RANGES)
@given(end=st.floats(0, 1e-31, exclude_min=True) | st.floats(1e20, 1.7e308))
def test_an_end_of_a_range_beyond_sense_is_refused(table: str, kind: str, key: str, end: float) -> None:
    low, high = (0.0, end) if end < 1 else (0.5, end)
    for written in ({"uniform": [low, high]}, {"choice": [low, high]}):
        with pytest.raises(SpecError, match=rf"^x\.toml: search\.{key}: "):
            loads(table, kind, key, written)


@pytest.mark.parametrize("hours", [0, 0.001, 2.5, 1_000_000.0])
def test_hours_of_sense_are_taken(hours: float) -> None:
    assert loads("budget", "", "hours", hours).budget.hours == hours


def test_the_least_of_what_may_be_off_is_told() -> None:
    with pytest.raises(SpecError) as caught:
        loads("budget", "", "hours", 1e-300)

    assert str(caught.value) == (
        "x.toml: budget.hours: 1e-300 is not allowed: 0 for no limit, or 0.001 and more"
    )
