"""`tlopt cache`: list and clean the cache."""

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tlopt.errors import SpecError
from tlopt.system.words import duration_words, size_words

if TYPE_CHECKING:
    from tlopt.cache.eviction import CacheEntry

app = typer.Typer(
    no_args_is_help=True, help="List and clean the cache: outputs of frozen blocks, decoded images."
)
out = Console(highlight=False)

_DAY_SECONDS = 86_400

KindOption = Annotated[str | None, typer.Option("--kind", help="Only features, pixels, digests or listings.")]


@app.command()
def ls(kind: KindOption = None) -> None:
    """List the cache, least recently used first."""
    from tlopt.cache.eviction import features_bytes_max
    from tlopt.cache.folder import cache_root

    found = _entries(kind)
    table = Table("kind", "size", "last used", "what")
    for entry in found:
        table.add_row(entry.kind, size_words(entry.size_bytes), _ago(entry.used), entry.about)
    out.print(table)
    total = sum(entry.size_bytes for entry in found)
    out.print(f"{size_words(total)} in {cache_root()}", soft_wrap=True)
    most = size_words(features_bytes_max())
    limit = "TLOPT_CACHE_GB_MAX, or half of the free disk space"
    out.print(f"features may take up {most}: {limit}", soft_wrap=True)


@app.command()
def clean(
    kind: KindOption = None,
    unused_days: Annotated[float, typer.Option(min=0, help="Only entries unused for this many days.")] = 0.0,
) -> None:
    """Remove entries that no worker is using; all of them can be recomputed."""
    from tlopt.cache.eviction import evict

    old = [entry for entry in _entries(kind) if time.time() - entry.used >= unused_days * _DAY_SECONDS]
    removed = [entry for entry in old if evict(entry)]
    freed = size_words(sum(entry.size_bytes for entry in removed))
    out.print(f"removed {len(removed)} of {len(old)}: {freed}")
    for entry in old:
        if entry not in removed:
            out.print(f"in use: {entry.about}", markup=False, soft_wrap=True)


def _entries(kind: str | None) -> "list[CacheEntry]":
    from tlopt.cache.eviction import KINDS, entries

    if kind is not None and kind not in KINDS:
        raise SpecError(f"--kind {kind}: allowed are {', '.join(KINDS)}")
    return entries([each for each in KINDS if kind in (None, each)])


def _ago(used: float) -> str:
    seconds = max(0.0, time.time() - used)
    return "just now" if seconds < 60 else f"{duration_words(seconds, digits=0)} ago"
