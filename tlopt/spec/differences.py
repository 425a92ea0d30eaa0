"""Differences between a stored study and its study file, by key, with values as TOML."""

import re
from collections.abc import Collection, Mapping
from itertools import count

from tlopt.spec.dimensions import Choice, Fixed, Int, Log, Uniform, as_toml
from tlopt.spec.search_keys import RULES
from tlopt.spec.study import CONFIRM_SUFFIX, PRUNE_SUFFIX, PerOptimizer, Study, meaning
from tlopt.spec.text import literal

# Keys that do not affect a trial's value once its point is known; weights are compared by their digests.
_BESIDE_THE_POINT = ("search.", "sampler.", "pruner.", "constraints.")
_IN_THE_POINT = {"model.backbone", "model.weights", "budget.epochs"}


def changes(stored: Study, here: Study) -> list[str]:
    """One sentence for each difference that changes what a trial means; empty if there is none.

    A key of [search] that is missing in one file and fixed at its default in the other is not a difference.
    """
    before, now = meaning(stored), meaning(here)
    for key in before.keys() ^ now.keys():
        if (before.get(key) or now.get(key)) == _default(key):
            before.pop(key, None)
            now.pop(key, None)
    return differences(before, now)


def incomparable(earlier: Study, here: Study) -> list[str]:
    """One sentence for each difference that makes values of the same point incomparable; empty if none does.

    Ranges, budget, sampler, pruner and constraints may differ.
    """
    kept = (
        {
            key: value
            for key, value in meaning(study).items()
            if key not in _IN_THE_POINT and not key.startswith(_BESIDE_THE_POINT)
        }
        for study in (earlier, here)
    )
    return differences(*kept, owner=f"'{earlier.name}'")


def follow_up_name(name: str, taken: Collection[str]) -> str:
    """A free name for a follow-up of `name`: with its number increased, or with a number appended.

    Args:
        taken: names of existing studies, including confirmations.
    """
    stem, number = re.fullmatch(r"(.*?)(?:-([1-9]\d?))?", name).groups()  # type: ignore[union-attr]
    names = (f"{stem[:90]}-{n}" for n in count(int(number or 1) + 1))
    suffixes = ("", CONFIRM_SUFFIX, PRUNE_SUFFIX)
    return next(new for new in names if not any(new + suffix in taken for suffix in suffixes))


def follow_up_lines(new: str, earlier: str) -> str:
    """Study-file lines for the study `new` with a warm start from `earlier`."""
    return f"name = {literal(new)}\nwarm_start = {literal(earlier)}"


def differences(
    stored: Mapping[str, object], here: Mapping[str, object], *, owner: str = "study"
) -> list[str]:
    """One sentence for each key whose value differs, in the order of the keys; empty if all are equal."""
    return [
        f"{key}: {owner} has {_text(stored.get(key, 'none'))}, here is {_text(here.get(key, 'none'))}"
        for key in sorted(stored.keys() | here.keys())
        if repr(stored.get(key)) != repr(here.get(key))  # 1 (one block) differs from 1.0 (all blocks)
    ]


def _default(key: str) -> Fixed | None:
    rule = RULES.get(key.removeprefix("search."))
    return None if rule is None or rule.default is None else Fixed(rule.default)


def _text(value: object) -> str:
    """`value` as in a study file, with strings unquoted."""
    match value:
        case str():
            return value
        case Fixed(fixed):
            return as_toml(fixed)
        case Int(low, high):
            return as_toml({"int": [low, high]})
        case Uniform(low, high):
            return as_toml({"uniform": [low, high]})
        case Log(low, high, zero):
            return as_toml({"log": [low, high]} | ({"zero": True} if zero else {}))
        case Choice(options):
            return as_toml({"choice": list(options)})
        case tuple():
            return as_toml(list(value))
        case PerOptimizer(sgd=sgd, adamw=adamw):
            return f"{{ sgd = {_text(sgd)}, adamw = {_text(adamw)} }}"
        case _:
            return as_toml(value)
