"""JSON Schema of the study file, with which editors complete keys and mark mistakes.

It is generated from the sections and from `search_keys`, so each key has one description everywhere. Rules
that a schema cannot express, such as the cap of the freeze depth, are left to `tlopt check`.
"""

import json
from typing import Any, assert_never, get_args

from pydantic import BaseModel

from tlopt.spec.objectives import COST_TITLES, TITLES
from tlopt.spec.search_keys import OPTIMIZERS, RULES, Depth, Number, Rule, Word
from tlopt.spec.sections import BudgetSpec, ConfirmSpec, ConstraintsSpec, DataSpec, ModelSpec, ServiceSpec
from tlopt.spec.study import Study
from tlopt.spec.trial_spec import PruneSpec

FILE_NAME = "tlopt.schema.json"
_DRAFT = "http://json-schema.org/draft-07/schema#"  # the newest draft supported by editors' TOML extensions
_SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataSpec,
    "model": ModelSpec,
    "budget": BudgetSpec,
    "constraints": ConstraintsSpec,
    "confirm": ConfirmSpec,
    "prune": PruneSpec,
    "service": ServiceSpec,
}
_WORDS = {"type": "string", "minLength": 1}


def study_schema() -> dict[str, Any]:
    """JSON Schema (draft 7) of a study file, as plain lists and dictionaries."""
    tables = {name: _section(record) for name, record in _SECTIONS.items()}
    backbone = {"anyOf": [_WORDS, _choice(_WORDS)], "description": _describe(ModelSpec, "backbone")}
    tables["model"]["properties"]["backbone"] = backbone
    return {
        "$schema": _DRAFT,
        "title": "tlopt study file",
        **_table(_top_keys() | tables | {"search": _search()}, ["name", "data", "model", "budget"]),
    }


def schema_text() -> str:
    """The schema as the text of a file."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


def _top_keys() -> dict[str, Any]:
    fields = {
        name: Study.model_fields[name] for name in ("name", "seed", "objective", "objectives", "warm_start")
    }
    return {
        "name": {"type": "string", "pattern": _pattern(), "description": fields["name"].description},
        "seed": {"type": "integer", "minimum": 0, "default": 0, "description": fields["seed"].description},
        "objective": {
            "enum": list(get_args(fields["objective"].annotation)),
            "default": fields["objective"].default,
            "description": fields["objective"].description,
        },
        "objectives": {
            "type": "array",
            "items": {"enum": [*TITLES, *COST_TITLES]},
            "default": [],
            "description": fields["objectives"].description,
        },
        "warm_start": {"type": "string", "default": "", "description": fields["warm_start"].description},
        "sampler": _by_kind("sampler"),
        "pruner": _by_kind("pruner"),
    }


def _describe(record: type[BaseModel], field: str) -> str | None:
    return record.model_fields[field].description


def _pattern() -> str:
    return str(next(each.pattern for each in Study.model_fields["name"].metadata if hasattr(each, "pattern")))


def _section(record: type[BaseModel]) -> dict[str, Any]:
    """A table with a fixed set of keys."""
    fields = record.model_fields
    properties = record.model_json_schema(mode="validation")["properties"]
    keys = {
        name: {word: value for word, value in properties[name].items() if word != "title"} for name in fields
    }
    return _table(keys, [name for name, field in fields.items() if field.is_required()])


def _by_kind(field: str) -> dict[str, Any]:
    """A table whose `kind` determines its other keys."""
    tables = [_section(record) for record in get_args(Study.model_fields[field].annotation)]
    for table in tables:
        if "recipes" in table["properties"]:
            table["properties"]["recipes"] = _recipes()
    return {"oneOf": tables}


def _recipes() -> dict[str, Any]:
    """Tables by name, with one value or a list of values for each key."""
    keys = {}
    for name, rule in RULES.items():
        value = _forms(rule)[0]
        listed = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
        keys[name] = {"description": rule.meaning, "anyOf": [value, listed]}
    return {
        "type": "object",
        "default": {},
        "description": "named sets of points: a value, or a list of values, for each key that a recipe sets",
        "additionalProperties": _table(keys, []),
    }


def _search() -> dict[str, Any]:
    return _table({name: _rule(rule) for name, rule in RULES.items()}, [])


def _rule(rule: Rule) -> dict[str, Any]:
    forms = _forms(rule)
    if rule.per_optimizer:
        forms.append(_table({name: {"anyOf": _forms(rule)} for name in OPTIMIZERS}, list(OPTIMIZERS)))
    default = {} if rule.default is None else {"default": rule.default}
    return {"description": rule.meaning, **default, "anyOf": forms}


def _forms(rule: Rule) -> list[dict[str, Any]]:
    """The allowed forms of a value: plain (fixed) or a table (searched)."""
    match rule:
        case Word():
            word = {"enum": list(rule.words)}
            return [word, _choice(word)]
        case Depth():
            blocks = {"type": "integer", "minimum": rule.low}
            share = {"type": "number", "minimum": 0, "maximum": 1}
            depth = {"anyOf": [blocks, share]}
            return [depth, _ends("int", blocks), _ends("uniform", share), _choice(depth)]
        case Number(odd=True):
            odd = {"enum": list(range(int(rule.low), int(rule.high) + 1, 2))}
            return [odd, _choice(odd)]
        case Number():
            kind = "integer" if rule.whole else "number"
            number = {"type": kind, "minimum": rule.low, "maximum": rule.high}
            if rule.whole:
                return [number, _ends("int", number), _choice(number)]
            return [number, _ends("uniform", number), _log(number), _choice(number)]
        case _:
            assert_never(rule)


def _log(number: dict[str, Any]) -> dict[str, Any]:
    above_zero = {**number, "exclusiveMinimum": 0}
    zero = {"type": "boolean", "description": "search 0, off, too"}
    return _table({"log": _pair(above_zero), "zero": zero}, ["log"])


def _ends(kind: str, number: dict[str, Any]) -> dict[str, Any]:
    return _table({kind: _pair(number)}, [kind])


def _pair(number: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": number, "minItems": 2, "maxItems": 2, "description": "[low, high]"}


def _choice(option: dict[str, Any]) -> dict[str, Any]:
    options = {"type": "array", "items": option, "minItems": 2, "uniqueItems": True}
    return _table({"choice": options}, ["choice"])


def _table(keys: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": keys}
