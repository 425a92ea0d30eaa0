"""Tables of fit for a terminal."""

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlopt.insight.record import Column, Comparison, Fit
from tlopt.system.words import counted

_NAME_WIDTH = 11  # characters of a block's name that are kept on one line


def fits_shown(name: str, fits: Sequence[Fit]) -> Group:
    """Tables of fits to the images `name`: a ranking if there are several networks, then each by block."""
    parts: list[RenderableType] = []
    if len(fits) > 1:
        parts.append(ranking_table(name, fits))
    for fit in fits:
        if fit.block_columns:
            parts.append(fit_blocks_table(name, fit))
        parts += [Text(line) for line in fit_lines(fit)]
    return Group(*parts)


def ranking_table(name: str, fits: Sequence[Fit]) -> Table:
    """The networks in the order of `fits`, with their values as a whole."""
    first = fits[0].columns[0]
    table = Table(
        title=f"{name}: networks by {first.title}, highest first",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("network", overflow="fold")
    for column in fits[0].columns:
        table.add_column(_stacked(column), justify="right", no_wrap=True)
    for fit in fits:
        cells = [column.cell(fit.network.values.get(column.name)) for column in fit.columns]
        table.add_row(fit.backbone, *cells)
    return table


def fit_blocks_table(name: str, fit: Fit) -> Table:
    """The values of each block; the highest of a column is marked."""
    of = f"{counted(fit.n_images, 'training image')}, {counted(fit.n_classes, 'class', 'classes')}"
    table = Table(
        title=f"{name}: {fit.backbone} ({fit.weights}), {fit.resolution} px, {of}",
        title_justify="left",
        caption="* highest; higher is better in every column. A classifier uses the last block's features.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("block", justify="right", no_wrap=True)
    longest = max(len(row.name) for row in fit.blocks)
    table.add_column("name", overflow="fold", min_width=min(longest, _NAME_WIDTH))
    table.add_column("width", justify="right", no_wrap=True)
    for column in fit.block_columns:
        table.add_column(_stacked(column), justify="right", no_wrap=True)
    best = {column.name: fit.best_depth(column.name) for column in fit.block_columns}
    for depth, row in enumerate(fit.blocks, 1):
        cells = [
            column.cell(row.values.get(column.name)) + ("*" if best[column.name] == depth else " ")
            for column in fit.block_columns
        ]
        table.add_row(str(depth), row.name, str(row.n_features), *cells)
    return table


def comparison_shown(name: str, comparison: Comparison) -> Group:
    """A network compared by block with the pretrained one; an untrained one gives the scale."""
    table = Table(
        title=f"{name}: {comparison.backbone} ({comparison.weights}) and {comparison.other},"
        f" {comparison.resolution} px, {counted(comparison.n_images, 'training image')}",
        title_justify="left",
        caption="CKA, overlap: 1 is equal. Forward, back (information imbalance): 0 is equal, 1 unrelated.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("block", justify="right")
    table.add_column("name", overflow="fold")
    for heading in ("CKA", "overlap", "forward", "back", "untrained\nCKA", "untrained\noverlap"):
        table.add_column(heading, justify="right", no_wrap=True)
    for depth, (row, other) in enumerate(zip(comparison.rows, comparison.untrained, strict=True), 1):
        values = (row.cka, row.overlap, row.forward, row.back, other.cka, other.overlap)
        table.add_row(str(depth), row.name, *("–" if value is None else f"{value:.2f}" for value in values))
    rows = (*comparison.rows, *comparison.untrained)
    lacking = ["–: a network's features are the same for all images, or not finite"]
    notes = [*comparison.warnings, *(lacking if any(row.cka is None for row in rows) else ())]
    return Group(table, *(Text(f"note: {note}") for note in notes))


def _stacked(column: Column) -> str:
    """The heading with one word per line, for narrow columns."""
    return column.heading.replace(",", "").replace(" ", "\n")


def fit_lines(fit: Fit) -> Iterator[str]:
    """Lines on measures of the whole network, and notes on values that should not be trusted."""
    single = [column for column in fit.columns if column not in fit.block_columns]
    if single:
        values = (f"{column.title} {column.cell(fit.network.values[column.name])}" for column in single)
        yield f"the whole network, nats: {', '.join(values)}"
    shares = [fit.network.values[column.name] for column in fit.columns if column.unit == "%"]
    if shares and shares[0] is not None:
        points = 100 * math.sqrt(shares[0] * (1 - shares[0]) / fit.n_images)
        yield f"one standard error of an accuracy is about {points:.1f} points"
    if fit.source is not None:
        yield fit.source.sentence
    for warning in fit.warnings:
        yield f"note: {warning}"
