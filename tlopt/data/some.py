"""A few of many names, for messages."""

from collections.abc import Sequence

NAMED_AT_MOST = 5


def some(names: Sequence[str], most: int = NAMED_AT_MOST) -> str:
    """The first names, and how many more there are."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])
