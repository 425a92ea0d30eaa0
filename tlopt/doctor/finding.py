"""Findings: results of checks, as records and as text."""

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
    """The result of a check; never contains a password."""

    level: Level
    title: str  # what was checked
    detail: str
    cure: str = ""  # what to do; "" if nothing, or if the detail says it


Findings = Generator[Finding, None, None]


class CheckFailed(Exception):
    """A check cannot continue; contains its last finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding = finding


@dataclass(frozen=True)
class _End(Generic[Result]):
    result: Result | None


def guarded(
    title: str, check: Generator[Finding, None, Result], *, seconds: float | None = None, late: str = ""
) -> Generator[Finding, None, Result | None]:
    """Yield the findings of `check` as they arrive; return its result, or None if it fails or hangs.

    A disk, driver or server that hangs may block its caller forever, even against Ctrl-C. Each check
    therefore runs in its own thread, which is abandoned if it hangs. A failure is a finding, too.

    Args:
        title: title of the finding on a failure.
        seconds: longest wait for the next finding; None waits forever.
        late: cure if it takes longer.
    """
    found: queue.SimpleQueue[Finding | _End[Result]] = queue.SimpleQueue()

    def run() -> None:
        safe = _safe(title, check)
        while True:
            try:
                found.put(next(safe))
            except StopIteration as end:
                found.put(_End(end.value))
                return

    threading.Thread(target=run, name=f"tlopt-{title}", daemon=True).start()
    while True:
        try:
            item = found.get(timeout=seconds)
        except queue.Empty:
            yield Finding("problem", title, f"no response within {seconds:g} s", late)
            return None
        if isinstance(item, _End):
            return item.result
        yield item


def _safe(title: str, check: Generator[Finding, None, Result]) -> Generator[Finding, None, Result | None]:
    """`check`, with an exception as its last finding."""
    try:
        return (yield from check)
    except CheckFailed as error:
        yield error.finding
    except TloptError as error:
        yield Finding("problem", title, str(error))
    # Broken drivers, libraries and disks may raise anything.
    except Exception as error:
        reason = f"{type(error).__name__}: {hide_password(str(error))}"
        yield Finding("problem", title, f"the check failed: {reason}")
    return None


def as_text(finding: Finding) -> Text:
    """The finding in lines of 80 columns or one longer word, with its cure on separate lines."""
    text = Text(f"{finding.level:<{_INDENT}}", style=_STYLES[finding.level])
    lines = [*_wrapped(f"{finding.title}: {finding.detail}"), *_wrapped(finding.cure, "cure: ")]
    text.append(("\n" + " " * _INDENT).join(lines), style="default")
    return text


def _wrapped(paragraphs: str, first: str = "") -> list[str]:
    return [
        line
        for n, paragraph in enumerate(paragraphs.splitlines())
        for line in textwrap.wrap(
            paragraph,
            WIDTH - _INDENT,
            initial_indent=" " * len(first) if n else first,
            subsequent_indent=" " * len(first),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
