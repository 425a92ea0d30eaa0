"""Tables of every key of the study file, from the records that decode it."""

from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tlopt.spec.search_keys import RULES
from tlopt.spec.study import Study

SEARCH = "search"


def text() -> str:
    """Markdown: one section for the top level and for each table of the file, in the order of the record."""
    return "\n\n".join(("## Top level\n\n" + _keys(Study), *_sections()))


def _sections() -> Iterator[str]:
    for name, field in Study.model_fields.items():
        records = _records(field)
        if name == SEARCH:
            yield f"## `[{name}]`\n\n{_search_keys()}"
        elif len(records) == 1:
            yield f"## `[{name}]`\n\n{_keys(records[0])}"
        elif records:
            yield f"## `[{name}]`\n\n{_kinds(field, records)}"


def _records(field: FieldInfo) -> tuple[type[BaseModel], ...]:
    """The records that a field may hold: none for plain values, several where `kind` tells them apart."""
    found = get_args(field.annotation) or (field.annotation,)
    return tuple(record for record in found if isinstance(record, type) and issubclass(record, BaseModel))


def _keys(record: type[BaseModel]) -> str:
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for name, field in record.model_fields.items():
        if field.description:
            default = "required" if field.is_required() else f"`{_written(field.default)}`"
            rows.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join(rows)


def _search_keys() -> str:
    rows = ["| key | allowed | default | meaning |", "| --- | --- | --- | --- |"]
    for name, rule in RULES.items():
        default = "—" if rule.default is None else f"`{_written(rule.default)}`"
        rows.append(f"| `{name}` | {rule.allowed} | {default} | {rule.meaning} |")
    return "\n".join(rows)


def _kinds(field: FieldInfo, records: tuple[type[BaseModel], ...]) -> str:
    usual = field.get_default(call_default_factory=True).kind
    rows = ["| `kind` | further keys, with defaults | |", "| --- | --- | --- |"]
    for record in records:
        (kind,) = _literals(record.model_fields["kind"])
        keys = ", ".join(
            f"`{name} = {_written(key.get_default(call_default_factory=True))}`"
            for name, key in record.model_fields.items()
            if name != "kind"
        )
        meaning = (record.__doc__ or "").partition(":")[2].strip().rstrip(".")
        rows.append(f'| `"{kind}"`{" (default)" * (kind == usual)} | {keys or "—"} | {meaning or "—"} |')
    return "\n".join(rows)


def _literals(field: FieldInfo) -> tuple[str, ...]:
    assert get_origin(field.annotation) is Literal
    return get_args(field.annotation)


def _written(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case tuple():
            return f"[{', '.join(map(_written, value))}]"
        case _:
            return str(value)
