"""What differs between a study and the file that somebody brings for it, key by key."""

from collections.abc import Mapping

from pydantic import BaseModel

from tlopt.spec import Study

# What `Study.digest` leaves out.
_MEANINGLESS = {"name", "confirm.points", "confirm.seeds", "data.source", "budget.trials", "budget.hours"}


def meaning(study: Study) -> dict[str, object]:
    """The keys of the study file that decide what a trial means, as table.key, with their values."""
    keys: dict[str, object] = {}
    for name, value in study:
        if isinstance(value, (dict, BaseModel)):
            keys |= {f"{name}.{key}": item for key, item in dict(value).items()}
        else:
            keys[name] = value
    return {key: value for key, value in keys.items() if key not in _MEANINGLESS}


def differences(stored: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """One text for each key whose value differs, in the keys' order; empty when all are equal."""
    return [
        f"{key}: study has {stored.get(key, 'none')}, here is {here.get(key, 'none')}"
        for key in sorted(stored.keys() | here.keys())
        if stored.get(key) != here.get(key)
    ]
