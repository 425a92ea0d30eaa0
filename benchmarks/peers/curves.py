"""Confirmed accuracy of the best so far against time: records, the table of times, the figure."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.search import SYSTEMS
from tlopt.spec.point import Point

SECOND_TARGET = 0.01  # below the first
NAMES = SYSTEMS | {"tlopt1": "tlopt, 1 worker", "tlopt2": "tlopt, 2 workers"}  # the latter in older records


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Best so far of one search over time.

    Attributes:
        data: Name of the set of images.
        system: Key of `NAMES`.
        seed: Seed of the search.
        seconds: Times since the start of the system's process at which the best changed, rising.
        accuracy: Confirmed accuracy of the best from each of `seconds` on, in [0, 1].
        n_trials: Trials that reported an epoch in time.
        n_complete: Trials that trained all their epochs in time.
    """

    data: str
    system: str
    seed: int
    seconds: tuple[float, ...]
    accuracy: tuple[float, ...]
    n_trials: int
    n_complete: int

    def reached(self, target: float) -> float:
        """Seconds until the best so far first reaches `target`; infinite if it never does."""
        pairs = zip(self.seconds, self.accuracy, strict=True)
        return next((at for at, accuracy in pairs if accuracy >= target), math.inf)

    def at(self, seconds: float) -> float | None:
        """Confirmed accuracy of the best at this time; None before the first complete trial."""
        found = [a for at, a in zip(self.seconds, self.accuracy, strict=True) if at <= seconds]
        return found[-1] if found else None


def incumbents(trials: Sequence[Mapping[str, Any]], seconds_max: float) -> list[tuple[float, Point]]:
    """Times and points of the complete trials that improved on the best last validation accuracy."""
    complete = [t for t in trials if t["complete"] and t["seconds"] <= seconds_max]
    best = -math.inf
    found = []
    for trial in sorted(complete, key=lambda trial: float(trial["seconds"])):
        if trial["accuracy"][-1] > best:
            best = trial["accuracy"][-1]
            found.append((float(trial["seconds"]), Point.from_dict(trial["point"])))
    return found


def steps(run: Mapping[str, Any], seconds_max: float) -> list[tuple[float, Point]]:
    """Times and points that are what a search would end with: its best so far, then its confirmed choice."""
    found = incumbents(run["trials"], seconds_max)
    choice = run.get("choice")
    if choice and choice["seconds"] <= seconds_max:
        before = [step for step in found if step[0] < choice["seconds"]]
        return [*before, (choice["seconds"], Point.from_dict(choice["point"]))]
    return found


def curve(run: Mapping[str, Any], judged: Mapping[tuple[str, str], Sequence[float]], seconds: float) -> Curve:
    """The curve of a run, as `search.save` wrote it."""
    found = steps(run, seconds)
    keys = [(run["data"], json.dumps(point.as_dict(), sort_keys=True)) for _, point in found]
    in_time = [t for t in run["trials"] if t["seconds"] is None or t["seconds"] <= seconds]
    return Curve(
        data=run["data"],
        system=run["system"],
        seed=run["seed"],
        seconds=tuple(at for at, _ in found),
        accuracy=tuple(statistics.mean(judged[key]) for key in keys),
        n_trials=len(in_time),
        n_complete=sum(t["complete"] for t in in_time),
    )


def targets(curves: Sequence[Curve], data: str) -> tuple[float, float]:
    """The plain script's final accuracy, the median over seeds, and a point less."""
    final = [c.accuracy[-1] for c in curves if c.data == data and c.system == "plain" and c.accuracy]
    if not final:
        raise SystemExit(f"the plain script completed no trial on {data}: give --seconds more")
    middle = statistics.median(final)
    return middle, middle - SECOND_TARGET


def table(curves: Sequence[Curve], default: Mapping[str, float]) -> str:
    """A Markdown table, a row per set and system; `default` is plain fine-tuning's accuracy by set."""
    lines = [
        "| images | system | trials, complete | final, confirmed, % | s to target | plain / this"
        " | s to a point less | plain / this |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for data in dict.fromkeys(c.data for c in curves):
        goals = targets(curves, data)
        own = {s: [c for c in curves if (c.data, c.system) == (data, s)] for s in NAMES}
        name = f"{data}: target {100 * goals[0]:.1f}, untuned {100 * default[data]:.1f}"
        for system, group in own.items():
            if group:
                cells = [c for goal in goals for c in _times(group, own["plain"], goal)]
                lines.append("| " + " | ".join([name, NAMES[system], *_ends(group), *cells]) + " |")
                name = ""
    return "\n".join(lines)


def _ends(group: Sequence[Curve]) -> list[str]:
    """Cells: median trials and complete trials; mean, least and greatest final accuracy."""
    trials = statistics.median(c.n_trials for c in group)
    complete = statistics.median(c.n_complete for c in group)
    final = [100 * c.accuracy[-1] for c in group if c.accuracy]
    if len(final) < len(group):
        return [f"{trials:g}, {complete:g}", f"nothing complete in {len(group) - len(final)} of {len(group)}"]
    return [
        f"{trials:g}, {complete:g}",
        f"{statistics.mean(final):.1f} ({min(final):.1f} to {max(final):.1f})",
    ]


def _times(group: Sequence[Curve], plain: Sequence[Curve], goal: float) -> list[str]:
    """Cells: median seconds to `goal`, how many reached it; the plain script's median over this one."""
    own = [c.reached(goal) for c in group]
    n = sum(math.isfinite(at) for at in own)
    middle, theirs = statistics.median(own), statistics.median(c.reached(goal) for c in plain)
    if math.isinf(middle):
        return [f"not reached ({n} of {len(own)})", "—"]
    ratio = f"{theirs / middle:.1f}" if math.isfinite(theirs) else "—"
    return [f"{middle:.0f} ({n} of {len(own)})", ratio]


def draw(curves: Sequence[Curve], seconds_max: float, file: Path) -> None:
    """Write a PNG with a panel per set; thin lines are seeds, the thick one their median."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sets = list(dict.fromkeys(c.data for c in curves))
    rows = math.ceil(len(sets) / 3)
    size = (3.8 * math.ceil(len(sets) / rows), 0.8 + 3.4 * rows)
    shape = (rows, math.ceil(len(sets) / rows))
    figure, grid = plt.subplots(*shape, figsize=size, dpi=80, layout="constrained", squeeze=False)
    for axes, data in zip(grid.flat, sets, strict=False):
        for number, (system, label) in enumerate(NAMES.items()):
            group = [c for c in curves if (c.data, c.system) == (data, system) and c.seconds]
            for each in group:
                axes.step(*_steps(each, seconds_max), where="post", color=f"C{number}", alpha=0.35, lw=0.8)
            if group:
                line = _steps(_median(group), seconds_max)
                axes.step(*line, where="post", color=f"C{number}", lw=2, label=label)
        axes.axhline(100 * targets(curves, data)[0], color="grey", ls=":", lw=1)
        axes.set(title=data, xscale="log")
        ticks = [t for t in (5, 10, 20, 40, 80, 160, 320, 640) if t <= seconds_max]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
    figure.supxlabel("seconds since the start, everything included")
    figure.supylabel("confirmed accuracy of the best so far, %")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(file)


def _steps(each: Curve, seconds_max: float) -> tuple[list[float], list[float]]:
    accuracy = [100 * a for a in each.accuracy]
    return [*each.seconds, seconds_max], [*accuracy, accuracy[-1]]


def _median(group: Sequence[Curve]) -> Curve:
    """The median curve over seeds, from the time at which each has a best."""
    begin = max(c.seconds[0] for c in group)
    times = sorted({at for c in group for at in c.seconds if at >= begin})
    middle = [statistics.median(c.at(at) or 0.0 for c in group) for at in times]
    first = group[0]
    keys: dict[str, Any] = {"data": first.data, "system": first.system, "seed": -1}
    return Curve(**keys, seconds=tuple(times), accuracy=tuple(middle), n_trials=0, n_complete=0)
