"""The table of recorded runs: each change against its base, paired by set and seed.

python -m benchmarks.recipes.report benchmarks/recipes/{results,further}.jsonl
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recipes.recipes import AVERAGED, LAST, PROBE, RECIPES
from tlopt.confirmation.interval import half_width

FAR = 2.0  # points of accuracy; smaller differences are no reason for a key
BASES = (*AVERAGED, "train, body 1e-3")
# Compared with every base, and with the last one alone.
COMMON = (PROBE, *AVERAGED, *(name for name in RECIPES if name.startswith("kept in the")))
CONTENDERS = (
    "train, body 3e-3", "kept, body 1e-4", "kept, head from the probe", "kept, only the last third trained",
    "last fifth fresh, others frozen", "last fifth fresh, others kept",
)  # fmt: skip
N_SETS_MIN = 3  # for an interval
Accuracy = Mapping[tuple[str, str], Mapping[tuple[str, int], float]]  # by recipe, weights; set, seed; percent


@dataclass(frozen=True)
class Change:
    """A recipe, or other weights of its run, and what it is compared with."""

    recipe: str
    weights: str
    base: str

    @property
    def label(self) -> str:
        """The change without the name of its base."""
        own = "" if self.recipe == self.base else self.recipe.removeprefix(f"{self.base}, ")
        return ", ".join(part for part in (own, "" if self.weights == LAST else self.weights) if part)


def read(*files: Path) -> Accuracy:
    """Test accuracy of the runs in `files`."""
    found: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
    for line in (line for file in files for line in file.read_text().splitlines()):
        row = json.loads(line)
        for weights, scores in row["scores"].items():
            own = found.setdefault((row["recipe"], weights), {})
            own[row["data"], row["seed"]] = 100 * scores["test_accuracy"]
    return found


def changes(found: Accuracy, base: str) -> Iterator[Change]:
    """The recipes compared with `base`: those that change one key of it, and some that differ in more."""
    for recipe in (PROBE, *RECIPES):
        further = base == BASES[-1] and recipe in CONTENDERS
        if recipe != base and (recipe in COMMON or recipe.startswith(f"{base},") or further):
            yield Change(recipe, LAST, base)
    others = (weights for recipe, weights in found if recipe == base and weights != LAST)
    yield from (Change(base, weights, base) for weights in others)


def differences(found: Accuracy, change: Change) -> dict[str, list[float]]:
    """Points gained by a change over its base, by set: one number for each seed that both have."""
    ours, base = found.get((change.recipe, change.weights), {}), found[change.base, LAST]
    rows: dict[str, list[float]] = {}
    for key in sorted(ours.keys() & base.keys()):
        rows.setdefault(key[0], []).append(ours[key] - base[key])
    return rows


def row(change: Change, rows: Mapping[str, Sequence[float]], sets: Iterable[str]) -> str:
    """One line of the table."""
    means = {name: statistics.fmean(values) for name, values in rows.items()}
    half = half_width(statistics.stdev(means.values()), len(means))
    ahead, behind = sum(m > FAR for m in means.values()), sum(m < -FAR for m in means.values())
    cells = [f"{means[name]:+.1f}" if name in means else "" for name in sets]
    n_runs = sum(len(values) for values in rows.values())
    mean = f"{statistics.fmean(means.values()):+.1f} ± {half:.1f}"
    return f"| {' | '.join([change.label, str(n_runs), mean, f'{ahead} / {behind}', *cells])} |"


def table(found: Accuracy, base: str) -> str:
    """A Markdown table of the changes of one base, the largest gain first."""
    sets = sorted({name for name, _ in found[base, LAST]})
    compared = [(change, differences(found, change)) for change in changes(found, base)]
    usable = [(change, rows) for change, rows in compared if len(rows) >= N_SETS_MIN]
    usable.sort(key=lambda pair: -statistics.fmean(statistics.fmean(v) for v in pair[1].values()))
    levels = {name: [v for (own, _), v in found[base, LAST].items() if own == name] for name in sets}
    mean = statistics.fmean(statistics.fmean(values) for values in levels.values())
    head = f"| {base}: accuracy, % | {sum(map(len, levels.values()))} | {mean:.1f} | | "
    lines = [
        f"| change | runs | points gained | ahead / behind | {' | '.join(sets)} |",
        "| --- |" + " --- |" * (3 + len(sets)),
        head + " | ".join(f"{statistics.fmean(levels[name]):.1f}" for name in sets) + " |",
    ]
    return "\n".join([*lines, *(row(change, rows, sets) for change, rows in usable)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="JSON lines, as run wrote them")
    args = parser.parse_args()
    found = read(*args.results)
    print("\n\n".join(table(found, base) for base in BASES))


if __name__ == "__main__":
    main()
