"""The tables of `benchmarks.compact.sizes`.

python -m benchmarks.compact.sizes_tables benchmarks/compact/sizes.jsonl
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlopt.confirmation.interval import half_width
from tlopt.search.front import hypervolume

Row = Mapping[str, Any]
LOSS_MAX = 0.01
TARGET = {"parameters": 3.0, "multiply_adds": 2.5, "latency": 2.0}  # times less than the whole network
LONGER = "fine-tuned, longer"
REFERENCES = ("whole", "fine-tuned")  # the best whole network, and the one without frozen blocks
# the network before the rounds of each way
BEFORE = {
    "stage 2": "whole",
    "stage 2 all fast": "whole",  # where the whole network was partly frozen
    "l1": "whole",
    "tlopt": "structure",
    "tlopt taught": "structure",
}
COMPARED = (("tlopt", "l1"), ("tlopt", "stage 2"), ("stage 2", "l1"))
_CHANCE = {"dtd10": 1 / 10, "flowers5": 1 / 5, "rsscn7": 1 / 7}
_GAIN_MIN = 1.1  # of hypervolumes
_BEYOND = 1.1  # the reference cost of hypervolumes, relative to the whole network's


@dataclass(frozen=True)
class Cell:
    """The runs of a network on a set, one for each seed."""

    network: str
    data: str
    runs: Sequence[Row]
    reference: str = "whole"

    def mean(self, way: str, index: int, key: str) -> float:
        """The mean over seeds of a way's network after round `index`, 0 being that before any round."""
        return fmean(float(_network(run, way, index)[key]) for run in self.runs)

    def n_rounds(self, way: str) -> int:
        """The number of rounds that all seeds have."""
        return min(len(run["rows"].get(way, ())) for run in self.runs)

    @property
    def whole(self) -> dict[str, float]:
        """The whole network's means."""
        keys = ("val", "test", "parameters", "multiply_adds")
        return {key: fmean(float(run["rows"][self.reference][0][key]) for run in self.runs) for key in keys}

    def chosen(self, way: str) -> int | None:
        """The last round within the bound by mean validation accuracy; None: not even round 0 is."""
        floor = self.whole["val"] - LOSS_MAX - 1e-9
        within = [i for i in range(self.n_rounds(way) + 1) if self.mean(way, i, "val") >= floor]
        return max(within, default=None)

    def lost(self, way: str, index: int) -> float:
        """Points of test accuracy lost after a round."""
        return 100 * (self.whole["test"] - self.mean(way, index, "test"))

    def half_width(self, way: str, index: int) -> float | None:
        """Of the 95 % interval of `lost`, over test images that both networks see; None if not recorded."""
        pairs = [(run["rows"][self.reference][0], _network(run, way, index)) for run in self.runs]
        if not all("right" in row for pair in pairs for row in pair):
            return None
        lost = np.mean([_right(one) - _right(other) for one, other in pairs], axis=0)
        return 196 * float(np.std(lost, ddof=1)) / sqrt(len(lost))

    def lost_words(self, way: str, index: int) -> str:
        """As in "1.2 ± 2.7", or without an interval where none is recorded."""
        half = self.half_width(way, index)
        return f"{self.lost(way, index):.1f}" + ("" if half is None else f" ± {half:.1f}")

    def ratios(self, way: str, index: int) -> dict[str, float]:
        """How many times less the network costs than the whole one."""
        times = {key: self.whole[key] / self.mean(way, index, key) for key in ("parameters", "multiply_adds")}
        name = f"{way.removesuffix(' taught')} {index}" if index else f"{BEFORE[way]} 0"
        for size, rows in self.runs[0]["latency"].items():
            times[f"latency {size}"] = 1 / rows.get(name, 1.0)
        return times

    def hypervolume(self, way: str) -> float:
        """Share of the space of test accuracy above chance and multiply-adds; mean over seeds."""
        reference = (-_CHANCE[self.data], _BEYOND * self.whole["multiply_adds"])
        volumes = []
        for run in self.runs:
            networks = [_network(run, way, index) for index in range(len(run["rows"][way]) + 1)]
            rows = [(-float(each["test"]), float(each["multiply_adds"])) for each in networks]
            volumes.append(hypervolume(rows, reference))
        return fmean(volumes) / (reference[1] * (1 - _CHANCE[self.data]))


def _right(row: Row) -> NDArray[np.float64]:
    """Which test images a network is right about: 1 or 0 each."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(row["right"]), np.uint8), count=row["n_test"])
    return bits.astype(np.float64)


def _network(run: Row, way: str, index: int) -> Row:
    rows = run["rows"]
    found: Row = rows[way][index - 1] if index else rows[BEFORE[way]][0]
    return found


def cells(rows: Iterable[Row], reference: str = "whole") -> list[Cell]:
    """The cells that have runs with the reference."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["kind"] == "run" and reference in row["rows"]:
            found.setdefault((row["network"], row["data"]), []).append(row)
    return [Cell(network, data, runs, reference) for (network, data), runs in sorted(found.items())]


def interval(values: Sequence[float], *, digits: int = 1) -> str:
    """Mean and 95 % t interval, as in "+1.2 ± 0.7 (12)", with the number of values."""
    if len(values) < 2:
        return f"{values[0]:+.{digits}f} (1)"
    return (
        f"{fmean(values):+.{digits}f} ± {half_width(stdev(values), len(values)):.{digits}f} ({len(values)})"
    )


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """All tables in Markdown, for each settings."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row.get("settings", {})), []).append(row)
    for settings, some in groups.items():
        yield f"{settings}\n"
        for reference, way in product(REFERENCES, ("tlopt", "stage 2")):
            found = [cell for cell in cells(some, reference) if _has(cell, way)]
            if found:
                yield from _targets(found, way)
                yield ""
                yield from _ends(found, way)
                yield ""
        if found := cells(some):
            yield from _rounds(found)
            yield ""
            yield from _comparisons(found)
            yield ""


def _targets(found: Sequence[Cell], way: str) -> Iterator[str]:
    """Each cell against the target, for the network that validation chooses, and the best accuracy."""
    titles = "test | points lost | parameters | multiply-adds | latency, 1 image | latency, 16 images"
    yield f"| {way} | set | {found[0].reference}, {titles} |"
    yield "| --- | --- | --: | --- " + "| --: " * 4 + "|"
    counts: Counter[str] = Counter()
    for cell in found:
        chosen = cell.chosen(way)
        index = chosen or 0
        shown = cell.lost_words(way, index) + ", not within" * (chosen is None)
        start = f"| {cell.network} | {cell.data} | {100 * cell.whole['test']:.1f} | {shown}"
        yield f"{start} |{_times(cell, way, index)}"
        if chosen is None:
            continue
        met = {key: value >= TARGET[key.partition(" ")[0]] for key, value in cell.ratios(way, index).items()}
        met["loss"] = cell.lost(way, index) <= 100 * LOSS_MAX + 1e-7
        counts.update(key for key, is_met in met.items() if is_met)
        counts["all"] += all(met.values())
    yield f"{way}: reached, of {len(found)} cells: {dict(counts)}"


def _ends(found: Sequence[Cell], way: str) -> Iterator[str]:
    """Each cell after the last round, whatever validation says."""
    titles = (
        "points lost | on validation | parameters | multiply-adds | latency, 1 image | latency, 16 images"
    )
    yield f"| {way}, after the last round | set | {found[0].reference}, test | {titles} |"
    yield "| --- | --- | --: | --- | --: " + "| --: " * 4 + "|"
    for cell in found:
        index = cell.n_rounds(way)
        on_val = 100 * (cell.whole["val"] - cell.mean(way, index, "val"))
        start = (
            f"| {cell.network} | {cell.data} | {100 * cell.whole['test']:.1f} | {cell.lost_words(way, index)}"
        )
        yield f"{start} | {on_val:.1f} |{_times(cell, way, index)}"


def _times(cell: Cell, way: str, index: int) -> str:
    return "".join(f" {value:.1f}× |" for value in cell.ratios(way, index).values())


def _rounds(found: Sequence[Cell]) -> Iterator[str]:
    """Test accuracy lost by each way after each round, and what is left of the cost."""
    yield "| way | round | points lost | parameters | multiply-adds |"
    yield "| --- | --: | --: | --: | --: |"
    for way in ("stage 2", "l1", "tlopt"):
        if not all(_has(cell, way) for cell in found):
            continue
        for index in range(min(cell.n_rounds(way) for cell in found) + 1):
            lost = [cell.lost(way, index) for cell in found]
            left = (
                f"{100 * fmean(cell.mean(way, index, key) / cell.whole[key] for cell in found):.0f} %"
                for key in ("parameters", "multiply_adds")
            )
            yield f"| {way} | {index} | {interval(lost)} | {' | '.join(left)} |"


def _comparisons(found: Sequence[Cell]) -> Iterator[str]:
    """Hypervolumes against those of other ways, and what recipes bring, over the cells."""
    for way, other in COMPARED:
        if len(found) < 2 or not all(_has(cell, way) and _has(cell, other) for cell in found):
            continue
        volumes = [(cell.hypervolume(way), cell.hypervolume(other)) for cell in found]
        n_met = sum(own >= _GAIN_MIN * its for own, its in volumes)
        logs = [log(own / its) for own, its in volumes if own > 0 and its > 0]
        low, mean, high = (100 * (exp(value) - 1) for value in _bounds(logs))
        points = [100 * (own - its) for own, its in volumes]
        yield (
            f"hypervolume of {way} over {other}: {interval(points)} points of the space, geometric mean"
            f" {mean:+.0f} % ({low:+.0f} to {high:+.0f}); 10 % ahead in {n_met} of {len(found)} cells"
        )
    yield from _longer(found)
    for way, other in (("tlopt taught", "tlopt"), ("stage 2", "stage 2 all fast")):
        gains = [_ahead(cell, way, other) for cell in found if cell.n_rounds(way) and cell.n_rounds(other)]
        if not gains:
            continue
        yield f"{way} over {other}: {interval(gains)} points of test accuracy"


def _longer(found: Sequence[Cell]) -> Iterator[str]:
    """What as many epochs as pruned networks have bring to the network that is fine-tuned whole."""
    runs = [run["rows"] for cell in found for run in cell.runs if LONGER in run["rows"]]
    gains = [100 * (float(rows[LONGER][0]["test"]) - float(rows["fine-tuned"][0]["test"])) for rows in runs]
    if gains:
        yield f"{LONGER} over fine-tuned: {interval(gains)} points of test accuracy"


def _has(cell: Cell, way: str) -> bool:
    return all(way in run["rows"] for run in cell.runs)


def _bounds(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % t interval: lower end, mean, upper end."""
    mean, half = fmean(values), half_width(stdev(values), len(values))
    return mean - half, mean, mean + half


def _ahead(cell: Cell, way: str, other: str) -> float:
    """Points of test accuracy that `way` is ahead by, on average over the rounds."""
    rounds = range(1, min(cell.n_rounds(way), cell.n_rounds(other)) + 1)
    return 100 * fmean(cell.mean(way, i, "test") - cell.mean(other, i, "test") for i in rounds)


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text().splitlines()
    print("\n".join(tables([json.loads(line) for line in lines])))
