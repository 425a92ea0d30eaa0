"""The tables of recorded runs: accuracy of each method by set, and what tlopt is ahead by.

python -m benchmarks.proof.report benchmarks/proof/results.jsonl
"""

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.proof.run import DEFAULTS, KEPT_LP_FT, LP_FT, SVM
from benchmarks.proof.searches import RATE, WITH, WITHOUT
from tlopt.confirmation.evidence import Lead, odds_min, std_error_of_lead
from tlopt.confirmation.interval import half_width
from tlopt.spec.default_names import KEPT_LABEL, LINEAR_LABEL, PARTLY_LABEL, PLAIN_LABEL, PROBE_LABEL

BEST_DEFAULT = "the best of four defaults on validation"
BEST_OF_FIVE = "the best of these and the partly frozen network"
TITLES = {
    PLAIN_LABEL: "default fine-tuning",
    PROBE_LABEL: "linear probe, by gradients",
    LINEAR_LABEL: "linear probe, logistic",
    SVM: "linear SVM",
    RATE.name: "tuned rate alone",
    WITHOUT.name: "tlopt without insight",
    WITH.name: "tlopt with insight",
}
METHODS = (
    *(PLAIN_LABEL, KEPT_LABEL, PROBE_LABEL, LINEAR_LABEL, SVM, LP_FT, KEPT_LP_FT, BEST_DEFAULT, BEST_OF_FIVE),
    *(RATE.name, WITHOUT.name, WITH.name),
)
N_SETS_MIN = 3  # for an interval
N_INITIAL = 6  # defaults and other initial points of the proposed search
PARTLY_FROZEN = (PARTLY_LABEL, "trial 5")  # a default, or the last initial point where it was none yet
N_VAL = 48  # validation images
Row = Mapping[str, Any]
Rows = Mapping[tuple[str, int], Row]  # by set and seed
Runs = Mapping[str, Mapping[tuple[str, int], Row]]  # by method; set and seed


def read(*files: Path) -> Runs:
    """The recorded runs, and those of the default that is best on validation."""
    found: dict[str, dict[tuple[str, int], Row]] = {}
    for line in (line for file in files for line in file.read_text().splitlines()):
        row = json.loads(line)
        found.setdefault(row["method"], {})[row["data"], row["seed"]] = row
    keys = set.intersection(*(set(found.get(name, ())) for name in DEFAULTS))
    best = {key: _best_default([found[n][key] for n in DEFAULTS]) for key in keys}
    of_five = {
        key: _best_of_five(best[key], found[PLAIN_LABEL][key]["epochs"], row)
        for key, row in found.get(WITH.name, {}).items()
        if key in keys
    }
    return found | {BEST_DEFAULT: best, BEST_OF_FIVE: of_five}


def _best_default(rows: Sequence[Row]) -> Row:
    best = max(rows, key=lambda row: statistics.fmean(row["val"]))
    return {**best, "epochs": sum(row["epochs"] for row in rows)}


def _best_of_five(default: Row, n_epochs: int, searched: Row) -> Row:
    """The better on validation of the best default and of the partly frozen network.

    The latter's runs are those of the confirmation; where it has left that after the first seed, the default.

    Args:
        n_epochs: of a network that is trained with all seeds.
    """
    candidates = {each["label"]: each for each in searched.get("candidates", ())}
    each = next((candidates[label] for label in PARTLY_FROZEN if label in candidates), None)
    if each is None or len(each["test"]) < len(default["test"]):
        return default
    better = statistics.fmean(each["val"]) > statistics.fmean(default["val"])
    return {**default, **(each if better else {}), "epochs": default["epochs"] + n_epochs}


def table(found: Runs) -> str:
    """A row for each method: accuracy in %, and what tlopt with insight is ahead by, in points."""
    sets = sorted({data for rows in found.values() for data, _ in rows})
    columns = ("method", "epochs", "mean", "tlopt with insight ahead by", *sets)
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return "\n".join([*lines, *(_line(found, method, sets) for method in METHODS)])


def _line(found: Runs, method: str, sets: Sequence[str]) -> str:
    rows = found.get(method, {})
    ahead = "" if method == WITH.name else interval(by_set(gains(found, method)).values(), sign="+")
    means = by_set({key: 100 * statistics.fmean(row["test"]) for key, row in rows.items()})
    cells = [
        TITLES.get(method, method),
        f"{statistics.fmean(row['epochs'] for row in rows.values()):.0f}" if rows else "",
        f"{statistics.fmean(means.values()):.1f}" if len(means) == len(sets) else "",
        ahead,
    ]
    return f"| {' | '.join([*cells, *(_cell(rows, name) for name in sets)])} |"


def _cell(rows: Mapping[tuple[str, int], Row], name: str) -> str:
    runs = [100 * value for (data, _), row in rows.items() if data == name for value in row["test"]]
    return interval(runs)


def interval(values: Iterable[float], *, sign: str = "") -> str:
    """The mean with its 95 % t interval, as in "61.2 ± 3.0"; "" for fewer than three values."""
    known = list(values)
    if len(known) < N_SETS_MIN:
        return ""
    return f"{statistics.fmean(known):{sign}.1f} ± {half_width(statistics.stdev(known), len(known)):.1f}"


def gains(found: Runs, method: str) -> dict[tuple[str, int], float]:
    """Points that tlopt with insight is ahead of `method` by, for each set and seed that both have."""
    ours, theirs = found.get(WITH.name, {}), found.get(method, {})
    return {
        key: 100 * (statistics.fmean(ours[key]["test"]) - statistics.fmean(theirs[key]["test"]))
        for key in sorted(ours.keys() & theirs.keys())
    }


def by_set(values: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """Means over seeds."""
    rows: dict[str, list[float]] = {}
    for (data, _), value in sorted(values.items()):
        rows.setdefault(data, []).append(value)
    return {data: statistics.fmean(row) for data, row in rows.items()}


def searches(found: Runs) -> str:
    """A row for each search: epochs, what was chosen, and what a better choice would have gained."""
    columns = (
        *("search", "searches", "trials", "epochs: search", "confirmation", "a default chosen"),
        *("best finalist on test ahead of the chosen by", "ranges that `tlopt next` changes"),
    )
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return "\n".join([*lines, *(_search_line(found, method.name) for method in (RATE, WITHOUT, WITH))])


def _search_line(found: Runs, method: str) -> str:
    rows = found.get(method, {})
    if not rows:
        return f"| {TITLES[method]} | 0 |" + " |" * 6
    lost = by_set({key: lost_by_choice(row) for key, row in rows.items()})
    means = (statistics.fmean(row[key] for row in rows.values()) for key in _COUNTS)
    defaults = Counter(row["chosen"] for row in rows.values() if not row["chosen"].startswith("trial"))
    cells = [
        TITLES[method],
        str(len(rows)),
        *(f"{mean:.0f}" for mean in means),
        str(defaults.total()),
        interval(lost.values(), sign="+"),
        str(sum(row["next_changes"] or 0 for row in rows.values())),
    ]
    return f"| {' | '.join(cells)} |"


_COUNTS = ("n_trials", "search_epochs", "confirm_epochs")


def lost_by_choice(row: Row) -> float:
    """Points by which the best candidate on test is ahead of the chosen one, among those with every seed.

    At least 0, also by chance: the best of several noisy accuracies is a lucky one.
    """
    whole = [each for each in row["candidates"] if len(each["test"]) == len(row["test"])]
    best = max(statistics.fmean(each["test"]) for each in whole)
    return 100 * (best - statistics.fmean(row["test"]))


def chosen(found: Runs) -> Iterator[str]:
    """How often tlopt with insight has chosen what."""
    for words, count in Counter(map(_kind, found.get(WITH.name, {}).values())).most_common():
        yield f"- {count}: {words}"


def _kind(row: Row) -> str:
    if not row["chosen"].startswith("trial"):
        return f"{row['chosen']}, a default"
    point, number = row["point"], int(row["chosen"].split()[-1])
    if point.get("classifier", "network") != "network":
        return f"{point['classifier']}, an initial point"
    return "a point that the sampler drew" if number >= N_INITIAL else "the partly frozen initial point"


def ahead_of_searches(found: Runs) -> str:
    """A row for each search: points that the best of the first five trials is ahead by."""
    lines = ["| search | searches | first five ahead by | at least equal on |", "| --- " * 4 + "|"]
    for name in (RATE.name, WITHOUT.name, WITH.name):
        ahead = by_set(_ahead(found[BEST_OF_FIVE], found.get(name, {})))
        equal = sum(round(each, 6) >= 0 for each in ahead.values())
        cells = (TITLES[name], str(len(found.get(name, ()))), interval(ahead.values(), sign="+"))
        lines.append(f"| {' | '.join(cells)} | {equal} of {len(ahead)} |")
    return "\n".join(lines)


def _ahead(ours: Rows, theirs: Rows) -> dict[tuple[str, int], float]:
    """Points of test accuracy by which `ours` are ahead, for each set and seed that both have."""
    means = [
        {key: 100 * statistics.fmean(row["test"]) for key, row in rows.items()} for rows in (ours, theirs)
    ]
    return {key: means[0][key] - means[1][key] for key in sorted(means[0].keys() & means[1].keys())}


def after_first_five(found: Runs) -> str:
    """A row for each way to choose a later point over the best of the first five: how often, and its gain."""
    lines = ["| later point chosen | searches | gain |", "| --- " * 3 + "|"]
    whole = found[BEST_OF_FIVE]
    shipped = odds_min(N_VAL, others=False)
    for title, odds in (("by its mean", 0.0), (f"at odds of {shipped:g} to 1, as shipped", shipped)):
        taken = {key: _later(row, whole[key], odds) for key, row in found[WITH.name].items() if key in whole}
        chosen = {key: whole[key] if row is None else row for key, row in taken.items()}
        gained = by_set(_ahead(chosen, whole))
        n = sum(row is not None for row in taken.values())
        lines.append(f"| {title} | {n} of {len(taken)} | {interval(gained.values(), sign='+')} |")
    return "\n".join(lines)


def _later(searched: Row, best: Row, odds: float) -> Row | None:
    """The best later candidate on validation with every seed, if it is ahead of `best` at these odds."""
    whole = [each for each in searched["candidates"] if len(each["val"]) == len(best["val"])]
    later = [
        each for each in whole if each["label"].startswith("trial") and each["label"] not in PARTLY_FROZEN
    ]
    if not later:
        return None
    point = max(later, key=lambda each: statistics.fmean(each["val"]))
    error = std_error_of_lead([each["val"] for each in whole], "accuracy", N_VAL)
    means = (statistics.fmean(each["val"]) for each in (point, best))
    ahead = Lead(point=point["label"], over="", mean=next(means) - next(means), std_error=error)
    return point if ahead.mean > 0 and ahead.odds >= odds else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="JSON lines")
    found = read(*parser.parse_args().results)
    parts = (table(found), searches(found), "\n".join(chosen(found)))
    print(*parts, ahead_of_searches(found), after_first_five(found), sep="\n\n")


if __name__ == "__main__":
    main()
