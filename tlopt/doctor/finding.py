"""The result of one check, as a record and as lines for a person."""

import queue
import textwrap
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from rich.text import Text

from tlopt.errors import TloptError
from tlopt.storage.url import hide_password

Level = Literal["ok", "note", "problem"]
Result = TypeVar("Result")

WIDTH = 80
_STYLES: dict[Level, str] = {"ok": "green", "note": "yellow", "problem": "bold red"}
_INDENT = 9


@dataclass(frozen=True)
class Finding:
    """The result of a check; never holds a password."""

    level: Level
    title: str  # what was checked
    detail: str
    cure: str = ""  # what to do; "" where there is nothing to do, or the detail says it


Findings = Generator[Finding, None, None]


class Ended(Exception):
    """A check cannot go on; holds its last finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


@dataclass(frozen=True)
class _End(Generic[Result]):
    result: Result | None


def guarded(
    title: str, check: Generator[Finding, None, Result], *, seconds: float | None = None, late: str = ""
) -> Generator[Finding, None, Result | None]:
    """The findings of `check` as they come, and its result: None where it fails, which is a finding too.

    A disk, driver or server that hangs may block its caller for ever, Ctrl-C included. Each check therefore
    runs in a thread of its own, which is abandoned if it hangs.

    Args:
        title: of the finding that the check failed.
        seconds: the longest wait for the next finding; None waits for ever.
        late: the cure where it takes longer.
    """
    found: queue.SimpleQueue[Finding | _End[Result]] = queue.SimpleQueue()

    def look() -> None:
        safe = _safe(title, check)
        while True:
            try:
                found.put(next(safe))
            except StopIteration as end:
                found.put(_End(end.value))
                return

    threading.Thread(target=look, name=f"tlopt-{title}", daemon=True).start()
    while True:
        try:
            item = found.get(timeout=seconds)
        except queue.Empty:
            yield Finding("problem", title, f"no answer in {seconds:g} s", late)
            return None
        if isinstance(item, _End):
            return item.result
        yield item


def _safe(title: str, check: Generator[Finding, None, Result]) -> Generator[Finding, None, Result | None]:
    """`check`, what it raises turned into its last finding."""
    try:
        return (yield from check)
    except Ended as error:
        yield error.finding
    except TloptError as error:
        yield Finding("problem", title, str(error))
    # A broken driver, library or disk raises nearly anything, and to find that out is what this is for.
    except Exception as error:
        reason = f"{type(error).__name__}: {hide_password(str(error))}"
        yield Finding("problem", title, f"looking at it failed: {reason}")
    return None


def as_text(finding: Finding) -> Text:
    """The finding in lines of 80 columns, its cure on lines of its own; longer only where one word is."""
    text = Text(f"{finding.level:<{_INDENT}}", style=_STYLES[finding.level])
    lines = [*_wrapped(f"{finding.title}: {finding.detail}"), *_wrapped(finding.cure, "cure: ")]
    text.append(("\n" + " " * _INDENT).join(lines), style="default")
    return text


def _wrapped(paragraphs: str, first: str = "") -> list[str]:
    return [
        line
        for paragraph in paragraphs.splitlines()
        for line in textwrap.wrap(
            paragraph,
            WIDTH - _INDENT,
            initial_indent=first,
            subsequent_indent=" " * len(first),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
