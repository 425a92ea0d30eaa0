"""Parallel processing of images in threads; Pillow releases Python's global lock."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from tlopt.system.cpus import n_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

SECONDS_BETWEEN_LINES = 10.0  # of progress, without a terminal
_THREADS_MAX = 16


def each(
    function: Callable[[Item], Result], items: Sequence[Item], *, label: str, progress: bool
) -> Iterator[Result]:
    """Results of `function` for all items, in order; with `progress`, a progress bar or lines on stderr.

    Bounded: threads do not run far ahead of a slow caller.
    """
    results = _in_order(function, items)
    if not progress:
        return results
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        return _with_lines(results, len(items), label, console)
    return iter(track(results, description=label, total=len(items), console=console))


def _with_lines(results: Iterator[Result], n: int, label: str, console: Console) -> Iterator[Result]:
    """`results`, printing a line on progress every `SECONDS_BETWEEN_LINES`."""
    shown = time.monotonic()
    for done, result in enumerate(results, start=1):
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES:
            shown = now
            console.print(f"{label}: {done} of {n}", soft_wrap=True, markup=False)
        yield result


def _in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    pool = ThreadPoolExecutor(min(_THREADS_MAX, n_cores()))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 4 * _THREADS_MAX:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
