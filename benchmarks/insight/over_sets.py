"""Gains of a grid's recipes over its first one, on several image sets and over them.

    tlopt curves photos.toml --json > photos.json          # for each set
    python -m benchmarks.insight.over_sets photos.json flowers.json ...

Every row is a recipe: for each set its mean over seeds with half of the 95 % t interval, and last the gain in
pairs of the same seed, averaged within sets, with half of the 95 % t interval over sets. Prints a table.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Recipes = Mapping[str, NDArray[np.float64]]  # values of the seeds, %, by the name of the recipe


def read(file: Path) -> Recipes:
    """The recipes that `tlopt curves --json` has written, in their order."""
    curves = json.loads(file.read_text())["curves"]
    return {curve["keys"]["recipe"]: 100 * np.array(curve["values"][0]) for curve in curves}


def half_width(values: NDArray[np.float64]) -> float:
    """Half of the 95 % t interval of the mean."""
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


def over_sets(sets: Sequence[Recipes], name: str, reference: str) -> str:
    """The gain of a recipe over another, as in "+4.4 ± 1.6"."""
    gains = np.array([(recipes[name] - recipes[reference]).mean() for recipes in sets])
    return f"{gains.mean():+.1f} ± {half_width(gains):.1f}"


def row(sets: Sequence[Recipes], name: str, first: str) -> str:
    """The cells of a recipe."""
    cells = [f"{recipes[name].mean():.1f} ± {half_width(recipes[name]):.1f}" for recipes in sets]
    return " | ".join(["", name, *cells, "" if name == first else over_sets(sets, name, first), ""]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "files", type=Path, nargs="+", help="what `tlopt curves --json` wrote, one for each set"
    )
    parser.add_argument(
        "--compare", nargs=2, metavar="RECIPE", help="print the gain of one over another, too"
    )
    args = parser.parse_args()
    sets = [read(file) for file in args.files]
    first, *_ = names = list(sets[0])
    print("| recipe |", *(f"{file.stem} |" for file in args.files), f"minus {first} |")
    print("| --- |", *len(sets) * ["--: |"], "--: |")
    for name in names:
        print(row(sets, name, first))
    if args.compare:
        better, worse = args.compare
        each = [f"{(recipes[better] - recipes[worse]).mean():+.1f}" for recipes in sets]
        print(f"\n{better} minus {worse}: {', '.join(each)}; over sets {over_sets(sets, better, worse)}")


if __name__ == "__main__":
    main()
