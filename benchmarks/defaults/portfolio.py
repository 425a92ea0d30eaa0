"""Points to start a search from, and their order, learnt from the recorded runs of recipes.

    python -m benchmarks.defaults.portfolio benchmarks/recipes/{results,further}.jsonl

The next point of a list is the one that most raises the test accuracy of the point that validation chooses
among those so far, in the mean over sets and seeds. A length is judged on each set by the list learnt on the
other sets. Prints two Markdown tables: lists from nothing, and lists that continue the defaults, which every
search runs. `tlopt/search/portfolio.py` has the points of the second as far as they are supported.
"""

import argparse
import json
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recipes.recipes import LAST
from tlopt.confirmation.interval import half_width
from tlopt.search.portfolio import DEFAULT_RECIPES, STARTS

LENGTH_MAX = 8
# The initial points before the list was learnt.
BEFORE = (*DEFAULT_RECIPES[:2], "last fifth fresh, others frozen", DEFAULT_RECIPES[2])
# Recipes that are points of a search; tried without effect: a head at ten times the rate, alone or not.
CANDIDATES = (
    *DEFAULT_RECIPES,
    "last fifth fresh, others frozen",
    "kept, only the last third trained",
    "kept, body 1e-4",
    "kept, batch 8",
    "kept, head from the probe",
    "kept, head 0.003",
    "kept, head 0.01, alone for 2 epochs",
    "train, body 3e-3",
    "train",
)
Case = tuple[str, int]  # set and seed


@dataclass(frozen=True)
class Run:
    """Accuracies of one recorded run, in percent, and its validation log-loss."""

    val: float
    val_log_loss: float
    test: float


Runs = Mapping[str, Mapping[Case, Run]]  # by recipe


def read(files: Iterable[Path]) -> dict[str, dict[Case, Run]]:
    """The recorded runs in `files`, with the weights after the last step."""
    found: dict[str, dict[Case, Run]] = {}
    for line in (line for file in files for line in file.read_text().splitlines()):
        row = json.loads(line)
        scores = row["scores"][LAST]
        run = Run(100 * scores["val_accuracy"], scores["val_log_loss"], 100 * scores["test_accuracy"])
        found.setdefault(row["recipe"], {})[row["data"], row["seed"]] = run
    return found


def complete(runs: Runs) -> dict[str, Mapping[Case, Run]]:
    """The candidates that have a run for every case that any candidate has."""
    known = {name: runs[name] for name in CANDIDATES if name in runs}
    cases = {case for own in known.values() for case in own}
    return {name: own for name, own in known.items() if own.keys() == cases}


def over_seeds(runs: Runs) -> dict[str, dict[Case, Run]]:
    """The runs with their seeds' mean, as a confirmation chooses."""
    found: dict[str, dict[Case, Run]] = {}
    for name, own in runs.items():
        by_set: dict[str, list[Run]] = {}
        for (data, _), run in sorted(own.items()):
            by_set.setdefault(data, []).append(run)
        found[name] = {
            (data, 0): Run(*(statistics.fmean(column) for column in zip(*map(_values, each), strict=True)))
            for data, each in by_set.items()
        }
    return found


def _values(run: Run) -> tuple[float, float, float]:
    return run.val, run.val_log_loss, run.test


def chosen_test(runs: Runs, names: Sequence[str], case: Case) -> float:
    """Test accuracy of the recipe with the best validation accuracy, then log-loss; the first of equals."""
    best = max(names, key=lambda name: (runs[name][case].val, -runs[name][case].val_log_loss))
    return runs[best][case].test


def learn(runs: Runs, cases: Collection[Case], length: int, start: Sequence[str] = ()) -> tuple[str, ...]:
    """The list of `length` recipes that continues `start` greedily."""
    names = tuple(start)
    while len(names) < min(length, len(runs)):

        def value(name: str, so_far: tuple[str, ...] = names) -> float:
            return statistics.fmean(chosen_test(runs, (*so_far, name), case) for case in cases)

        names = (*names, max((name for name in runs if name not in names), key=value))
    return names


@dataclass(frozen=True)
class Judged:
    """A length of list on sets that it was not learnt from."""

    accuracy: float  # on test, in percent, mean over sets
    std_error: float  # of its difference to the best length's, over sets; 0 for that one
    gains: tuple[float, ...]  # points over `BEFORE` by set

    @property
    def gain_words(self) -> str:
        """Mean gain with its 95 % t interval."""
        half = half_width(statistics.stdev(self.gains), len(self.gains))
        return f"{statistics.fmean(self.gains):+.1f} ± {half:.1f}"


def judge(runs: Runs, start: Sequence[str], lengths: Sequence[int]) -> dict[int, Judged]:
    """Each length of list, learnt without the set that it is judged on."""
    cases = sorted(next(iter(runs.values())))
    sets = sorted({data for data, _ in cases})
    by_length: dict[int, list[float]] = {length: [] for length in lengths}
    before = []
    for data in sets:
        own, others = [c for c in cases if c[0] == data], [c for c in cases if c[0] != data]
        names = learn(runs, others, max(lengths), start)
        for length in lengths:
            by_length[length].append(statistics.fmean(chosen_test(runs, names[:length], c) for c in own))
        before.append(statistics.fmean(chosen_test(runs, BEFORE, case) for case in own))
    best = max(by_length.values(), key=statistics.fmean)
    return {
        length: Judged(
            accuracy=statistics.fmean(values),
            std_error=statistics.stdev(a - b for a, b in zip(values, best, strict=True)) / len(sets) ** 0.5,
            gains=tuple(a - b for a, b in zip(values, before, strict=True)),
        )
        for length, values in by_length.items()
    }


def n_supported(judged: Mapping[int, Judged]) -> int:
    """The shortest length whose accuracy is within one standard error of the best one's [Breiman 1984]."""
    best = max(each.accuracy for each in judged.values())
    return min(length for length, each in judged.items() if each.accuracy >= best - each.std_error)


def learnt_starts(runs: Runs) -> tuple[str, ...]:
    """The recipes that follow the defaults, as many as leave-one-set-out supports."""
    found = complete(runs)
    lengths = range(len(DEFAULT_RECIPES), min(LENGTH_MAX, len(found)) + 1)
    supported = n_supported(judge(found, DEFAULT_RECIPES, lengths))
    cases = next(iter(found.values()))
    return learn(found, cases, supported, DEFAULT_RECIPES)[len(DEFAULT_RECIPES) :]


def table(runs: Runs, start: Sequence[str]) -> str:
    """The Markdown table of the lists that continue `start`."""
    found = complete(runs)
    cases = next(iter(found.values()))
    lengths = range(max(len(start), 1), min(LENGTH_MAX, len(found)) + 1)
    names = learn(found, cases, max(lengths), start)
    single, mean = judge(found, start, lengths), judge(over_seeds(found), start, lengths)
    lines = [
        "| points | the last of them | by one run: accuracy, % | against before | by two runs: accuracy, % "
        "| against before |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for length in lengths:
        cells = (f"{each[length].accuracy:.1f} | {each[length].gain_words}" for each in (single, mean))
        lines.append(f"| {length} | {names[length - 1]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"supported: {n_supported(single)}, by two runs: {n_supported(mean)}"])


def main() -> None:
    """Learn and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="JSON lines of benchmarks.recipes.run")
    runs = read(parser.parse_args().results)
    print(table(runs, ()), table(runs, DEFAULT_RECIPES), sep="\n\n")
    print(
        "\nlearnt:",
        ", ".join(learnt_starts(runs)) or "none",
        "\nshipped:",
        ", ".join(s.recipe for s in STARTS),
    )


if __name__ == "__main__":
    main()
