"""Wording that messages and pages share: counts, durations, lists of names, Markdown."""

import re
from collections.abc import Iterable, Sequence

NAMES_MAX = 5  # that a message lists


def counted(n: float, one: str, several: str = "", *, form: str = "") -> str:
    """A number and its noun, as in "1 file" and "3 files".

    Args:
        one: the noun in the singular, with its verb where that depends on the number: "image is".
        several: the same in the plural; by default `one` with an "s", or "es" after s, x, sh and tch.
        form: format specification of the number, such as ",".
    """
    shown = format(n, form)
    plural = several or one + ("es" if one.endswith(("s", "x", "sh", "tch")) else "s")
    return f"{shown} {one if shown == '1' else plural}"


def joined(names: Sequence[str], n_max: int = NAMES_MAX, *, separator: str = ", ") -> str:
    """The first `n_max` names, and the number of those left out, as in "a, b, and 3 more"."""
    more = [f"and {len(names) - n_max} more"] if len(names) > n_max else []
    return separator.join([*names[:n_max], *more])


def natural_order(names: Iterable[str]) -> list[str]:
    """The names in order, with numbers in them ordered by value: p2 before p10."""

    def key(name: str) -> tuple[list[tuple[int, str]], str]:
        # `re.split` gives text and digits in turn, so that like is compared with like
        parts = [part.lstrip("0") if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]
        return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)], name

    return sorted(names, key=key)


def duration_words(seconds: float, *, digits: int = 1) -> str:
    """A duration in a unit that suits it, as in "2.5 hours" and "45 seconds".

    Args:
        digits: decimal places of days, hours and minutes.
    """
    for unit_seconds, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:.{digits}f} {name}"
    return counted(seconds, "second", form=".0f")


def as_sentence(text: str) -> str:
    """A line of a terminal as a sentence of a page: with a capital letter and a full stop; "" for ""."""
    return text and f"{text[0].upper()}{text[1:].removesuffix('.')}."


def markdown_escaped(text: str) -> str:
    """`text` for one line of Markdown that shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", text.replace("\n", " "))


def si_words(number: float, *, form: str = ".2f") -> str:
    """A count with an SI prefix from 1,000 on, as in "25.56 M".

    Args:
        form: format specification of the number before the prefix.
    """
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:{form}} {prefix}"
    return f"{number:g}"


def size_words(n_bytes: float) -> str:
    """Decimal units, as in "12.3 MB"."""
    for unit, length in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= length:
            return f"{n_bytes / length:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"
