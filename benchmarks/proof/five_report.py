"""The tables of `first_five`: accuracies by set, and what tlopt's first five trials are ahead by.

python -m benchmarks.proof.five_report benchmarks/proof/first_five.jsonl
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.proof.first_five import CONFIRMED, FIVE, JUDGED, REFEREE, SETS, TPE, Row, finished
from benchmarks.proof.report import by_set, interval

OURS = "five"
TITLES = {
    OURS: "best of the first five, confirmed",
    "last": "TPE, best last value",
    "confirmed": "TPE, best of three confirmed",
}
PARTS = {OURS: FIVE, "last": TPE, "confirmed": CONFIRMED}
Draws = Mapping[tuple[str, int], Mapping[str, Row]]


def judged(found: Draws) -> Draws:
    """The draws whose first pass has ended."""
    return {key: parts for key, parts in found.items() if REFEREE in parts}


def accuracies(found: Draws, name: str) -> dict[tuple[str, int], float]:
    """Mean test accuracy, in percent, of what was chosen, by set and draw."""
    (referee,) = (part for part, names in JUDGED.items() if name in names)
    return {
        key: 100 * statistics.fmean(parts[referee][name]) for key, parts in found.items() if referee in parts
    }


def gains(found: Draws, name: str) -> dict[str, float]:
    """Points that the first five are ahead by, by set."""
    ours, theirs = accuracies(found, OURS), accuracies(found, name)
    return by_set({key: ours[key] - theirs[key] for key in theirs})


def table(found: Draws) -> str:
    """Markdown: a row for each way of choosing, a column for each set."""
    sets = [each.name for each in SETS if any(data == each.name for data, _ in found)]
    head = f"| chosen | epochs | mean | first five ahead by | at least equal on | {' | '.join(sets)} |"
    lines = [_line(found, name, sets) for name in TITLES if accuracies(found, name)]
    return "\n".join([head, "| --- " * (5 + len(sets)) + "|", *lines])


def _line(found: Draws, name: str, sets: Sequence[str]) -> str:
    means, ahead = by_set(accuracies(found, name)), gains(found, name)
    rows = [parts[PARTS[name]] for parts in found.values() if PARTS[name] in parts]
    equal = sum(round(each, 6) >= 0 for each in ahead.values())
    cells = [
        TITLES[name],
        f"{statistics.fmean(row[f'{name}_epochs'] for row in rows):.0f}",
        f"{statistics.fmean(means.values()):.1f}" if len(means) == len(sets) else "",
        *(("", "") if name == OURS else (interval(ahead.values(), sign="+"), f"{equal} of {len(ahead)}")),
        *(f"{means[each]:.1f}" if each in means else "" for each in sets),
    ]
    return f"| {' | '.join(cells)} |"


def choices(found: Draws) -> str:
    """How often which of the first five was chosen."""
    chosen = Counter(parts[FIVE][OURS]["label"] for parts in found.values())
    return "chosen: " + ", ".join(f"{label} {n}" for label, n in chosen.most_common())


def draws(found: Draws) -> Iterator[str]:
    """Draws of each set."""
    counts = Counter(data for data, _ in found)
    yield from (f"{data} {n}" for data, n in counts.items())


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("results", type=Path, help="JSON lines of benchmarks.proof.first_five")
    found = judged(finished(parser.parse_args().results))
    print(f"draws: {', '.join(draws(found))}", table(found), choices(found), sep="\n\n")


if __name__ == "__main__":
    main()
