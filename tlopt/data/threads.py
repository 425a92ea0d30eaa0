"""Map over images in threads: Pillow decodes and resamples outside Python's global lock."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from tlopt.system.cpus import n_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS_MAX = 16


def each(
    function: Callable[[Item], Result], items: Sequence[Item], *, label: str, progress: bool
) -> Iterator[Result]:
    """`function` of every item, in order; with `progress`, a bar named `label` on stderr.

    Only a few results wait at a time, however slow the caller is.
    """
    results = _in_order(function, items)
    if not progress:
        return results
    return iter(track(results, description=label, total=len(items), console=Console(stderr=True)))


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
