"""The keys in which a stored study and the file brought for it differ, as a study file has them."""

from collections.abc import Mapping

from tlopt.spec.dimensions import Choice, Fixed, Int, Log, Uniform, written
from tlopt.spec.search_keys import RULES
from tlopt.spec.study import PerOptimizer, Study, meaning


def changes(stored: Study, here: Study) -> list[str]:
    """One text for each key in which two studies mean different trials; empty where they mean the same.

    A searched key that one file leaves out and the other fixes at its default is the same to both.
    """
    before, now = meaning(stored), meaning(here)
    for key in before.keys() ^ now.keys():
        if (before.get(key) or now.get(key)) == _default(key):
            before.pop(key, None)
            now.pop(key, None)
    return differences(before, now)


def differences(stored: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """One text for each key whose value differs, in the keys' order; empty when all are equal."""
    return [
        f"{key}: study has {_text(stored.get(key, 'none'))}, here is {_text(here.get(key, 'none'))}"
        for key in sorted(stored.keys() | here.keys())
        if repr(stored.get(key)) != repr(here.get(key))  # 1 block is not 1.0, all blocks
    ]


def _default(key: str) -> Fixed | None:
    rule = RULES.get(key.removeprefix("search."))
    return None if rule is None or rule.default is None else Fixed(rule.default)


def _text(value: object) -> str:
    """A value as the study file has it; strings without quotation marks."""
    match value:
        case str():
            return value
        case Fixed(fixed):
            return written(fixed)
        case Int(low, high):
            return written({"int": [low, high]})
        case Uniform(low, high):
            return written({"uniform": [low, high]})
        case Log(low, high, zero):
            return written({"log": [low, high]} | ({"zero": True} if zero else {}))
        case Choice(options):
            return written({"choice": list(options)})
        case PerOptimizer(sgd=sgd, adamw=adamw):
            return f"{{ sgd = {_text(sgd)}, adamw = {_text(adamw)} }}"
        case _:
            return written(value)
