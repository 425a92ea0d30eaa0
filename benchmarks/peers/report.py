"""Tables and picture of a comparison: accuracy at the end, room above it, and time to the script's accuracy.

    python -m benchmarks.peers.report benchmarks/peers/first --plot /tmp/first_to_accuracy.png

Reads the files of `benchmarks.peers.compare`, and those of the comparison of 2026-11-28 in `first/`; nothing
is trained.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.study_file import study_text
from benchmarks.peers.curves import NAMES, Curve, curve, draw, incumbents, steps, table
from benchmarks.peers.job import untuned_points
from benchmarks.peers.referee import Case, Key, half_judgements, judgements
from tlopt import spec
from tlopt.confirmation.interval import half_width
from tlopt.spec.default_names import PLAIN_LABEL
from tlopt.spec.point import Point

Accuracies = Mapping[tuple[str, int], float]  # by set and seed


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A recorded comparison."""

    settings: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    judged: Mapping[Key, Sequence[float]]
    halves: Mapping[Key, tuple[float, float]]
    untuned: Mapping[str, Point]  # by label

    @classmethod
    def read(cls, folder: Path) -> "Recorded":
        """The comparison in `folder`."""
        settings = json.loads((folder / "settings.json").read_text())
        file = folder / "referee.jsonl"
        proposed = next(iter(sorted(folder.glob("*.toml"))), None)
        return cls(
            settings=settings,
            runs=[json.loads(each.read_text()) for each in sorted(folder.glob("*-*-*.json"))],
            judged=judgements(file),
            halves=half_judgements(file) if proposed else {},
            untuned=_former_untuned(settings) if proposed is None else untuned_points(spec.load(proposed)),
        )

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the sets of images."""
        return tuple(dict.fromkeys(run["data"] for run in self.runs))

    @property
    def curves(self) -> list[Curve]:
        """The curves of all searches."""
        return [curve(run, self.judged, self.settings["seconds"]) for run in self.runs]

    def accuracies_of(self, point: Point, data: str) -> Sequence[float]:
        """Confirmed accuracies of `point` on the set `data`, one per seed of the referee."""
        return self.judged[Case(Path(data), point).key]

    def of_untuned(self, label: str) -> Accuracies:
        """Confirmed accuracy of an untuned point, the same for each seed of a search."""
        found = {data: statistics.mean(self.accuracies_of(self.untuned[label], data)) for data in self.sets}
        return {(run["data"], run["seed"]): found[run["data"]] for run in self.runs}

    def of_stronger_untuned(self) -> Accuracies:
        """That of the better of the untuned points on each set, known only afterwards."""
        known = [self.of_untuned(label) for label in self.untuned]
        return {key: max(each[key] for each in known) for key in known[0]}

    def final(self, system: str) -> Accuracies:
        """Confirmed accuracy of what each search by `system` ended with; none of those without a trial."""
        own = [c for c in self.curves if c.system == system and c.accuracy]
        return {(c.data, c.seed): c.accuracy[-1] for c in own}

    def oracle(self, system: str = "tlopt") -> Accuracies:
        """Confirmed accuracy of the best of the points that each search held as best or confirmed.

        It is chosen by one half of the referee's images and measured on the other, and the other way round.
        """
        return {(run["data"], run["seed"]): self._best(run) for run in self.runs if run["system"] == system}

    def _best(self, run: Mapping[str, Any]) -> float:
        found = [self.halves[Case(Path(run["data"]), point).key] for point in held_points(run, self.settings)]
        return statistics.mean(max(found, key=lambda pair: pair[a])[1 - a] for a in (0, 1))


def held_points(run: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Point]:
    """The points of a search that held the best value at a time, were confirmed or chosen."""
    held = [point for _, point in steps(run, settings["seconds"])]
    held += [point for _, point in incumbents(run["trials"], settings["seconds"])]
    return [*held, *map(Point.from_dict, run.get("candidates", ()))]


def _former_untuned(settings: Mapping[str, Any]) -> dict[str, Point]:
    """Plain fine-tuning as the comparison of 2026-11-28 had it."""
    search = {"batch_size": 16, "augmentation": {"choice": [0.2, 0.7]}, "resolution": settings["resolution"]}
    study = spec.loads(
        study_text(
            "first",
            data={"source": "images"},
            model={"backbone": settings["backbone"]},
            budget={"trials": 10, "epochs": settings["epochs"]},
            search=search,
        ),
        "study.toml",
    )
    return {PLAIN_LABEL: untuned_points(study)[PLAIN_LABEL]}


def interval(differences: Sequence[float]) -> str:
    """Mean and half of the 95 % t interval, in points of accuracy."""
    half = half_width(statistics.stdev(differences), len(differences)) if len(differences) > 1 else math.nan
    return f"{100 * statistics.mean(differences):+.1f} ± {100 * half:.1f}"


def paired(ours: Accuracies, theirs: Accuracies, sets: Sequence[str]) -> Iterator[list[float]]:
    """Differences by seed, for each set."""
    for data in sets:
        yield [ours[key] - theirs[key] for key in sorted(ours) if key[0] == data and key in theirs]


def final_table(recorded: Recorded) -> str:
    """Accuracy at the end by set, and how far tlopt is ahead: over sets, and over all searches."""
    sets, ours = recorded.sets, recorded.final("tlopt")
    rows: dict[str, Accuracies] = {name: recorded.final(key) for key, name in NAMES.items()}
    rows |= {f"{label}, untuned": recorded.of_untuned(label) for label in recorded.untuned}
    rows["the stronger of the untuned"] = recorded.of_stronger_untuned()
    if recorded.halves:
        rows["oracle of tlopt's searches"] = recorded.oracle()
    lines = [
        f"| at the end | {' | '.join(sets)} | mean | tlopt ahead by, over sets | over searches |",
        "| --- " * (len(sets) + 4) + "|",
    ]
    for name, found in rows.items():
        if not found:
            continue
        groups = [[100 * found[key] for key in sorted(found) if key[0] == data] for data in sets]
        cells = [_cell(group, constant="untuned" in name) for group in groups]
        mean = statistics.mean(statistics.mean(group) for group in groups if group)
        ahead = (
            [group for group in paired(ours, found, sets) if group]
            if found is not rows[NAMES["tlopt"]]
            else []
        )
        over_sets = interval([statistics.mean(group) for group in ahead]) if ahead else ""
        over_all = interval([each for group in ahead for each in group]) if ahead else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {mean:.1f} | {over_sets} | {over_all} |")
    return "\n".join(lines)


def _cell(group: Sequence[float], *, constant: bool) -> str:
    if not group:
        return "—"
    return f"{statistics.mean(group):.1f}" + ("" if constant else f" ({min(group):.1f} to {max(group):.1f})")


def below_default(recorded: Recorded) -> str:
    """By set: tlopt ahead of the stronger untuned point, with the standard error over seeds."""
    groups = paired(recorded.final("tlopt"), recorded.of_stronger_untuned(), recorded.sets)
    found = []
    for data, group in zip(recorded.sets, groups, strict=True):
        error = statistics.stdev(group) / math.sqrt(len(group)) if len(group) > 1 else math.nan
        found.append(f"{data} {100 * statistics.mean(group):+.1f} ± {100 * error:.1f}")
    return "ahead of the stronger untuned point, with standard error: " + ", ".join(found)


def sooner(recorded: Recorded, goal: Callable[[Sequence[Curve], str], float]) -> str:
    """The ratios of the script's median time to tlopt's, by set, and their median."""
    curves, ratios = recorded.curves, dict[str, float]()
    for data in recorded.sets:
        target = goal(curves, data)
        theirs, ours = (
            statistics.median(c.reached(target) for c in curves if (c.data, c.system) == (data, system))
            for system in ("plain", "tlopt")
        )
        ratios[data] = theirs / ours if math.isfinite(ours) else 0.0
    each = ", ".join(f"{data} {ratio:.1f}" for data, ratio in ratios.items())
    return f"sooner than the script: {each}; median {statistics.median(ratios.values()):.1f}"


def report(folder: Path, plot: Path | None) -> None:
    """Print the tables of the comparison in `folder`; draw it into `plot`."""
    from benchmarks.peers.curves import targets

    recorded = Recorded.read(folder)
    plain = recorded.of_untuned(PLAIN_LABEL)
    print(table(recorded.curves, {data: accuracy for (data, _), accuracy in plain.items()}))
    if recorded.final("tlopt"):
        print(f"\n{final_table(recorded)}\n\n{below_default(recorded)}")
        print(sooner(recorded, lambda curves, data: targets(curves, data)[0]))
        print(f"confirmed in time: {_confirmed(recorded)}")
    if plot is not None:
        draw(recorded.curves, recorded.settings["seconds"], plot)


def _confirmed(recorded: Recorded) -> str:
    own = [run for run in recorded.runs if run["system"] == "tlopt"]
    in_time = [r for r in own if r["choice"] and r["choice"]["seconds"] <= recorded.settings["seconds"]]
    return f"{len(in_time)} of {len(own)} searches"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="--out of benchmarks.peers.compare")
    parser.add_argument("--plot", type=Path, help="PNG")
    args = parser.parse_args()
    report(args.folder, args.plot)


if __name__ == "__main__":
    main()
