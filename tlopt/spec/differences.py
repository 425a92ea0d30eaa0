"""What differs between a study and the file that somebody brings for it, key by key."""

from collections.abc import Mapping


def differences(stored: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """One text for each key whose value differs, in the keys' order; empty when all are equal."""
    return [
        f"{key}: study has {stored.get(key, 'none')}, here is {here.get(key, 'none')}"
        for key in sorted(stored.keys() | here.keys())
        if repr(stored.get(key)) != repr(here.get(key))  # 1 block is not 1.0, all blocks
    ]
