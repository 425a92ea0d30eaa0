"""Whether searching the batch size pays: chosen by validation among 8, 16 and 32, against always 8.

    python -m benchmarks.recipes.batch_sizes

From the recorded runs with statistics of the batch ("train") and with kept ones; nothing is trained. Prints a
Markdown table in points of test accuracy, with Student's t intervals over sets. The oracle knows which batch
size is the best on test.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from tlopt.confirmation.interval import half_width

RESULTS = Path(__file__).with_name("results.jsonl")
SIZES = (8, 16, 32)


def recipe(base: str, size: int) -> str:
    """The recorded recipe of `base` with this batch size; 16 is its own."""
    return base if size == 16 else f"{base}, batch {size}"


def gains(base: str, found: dict[tuple[str, str], dict[str, float]]) -> tuple[list[float], list[float]]:
    """Gains over batches of 8 by set: of the best on validation, and of the best on test."""
    chosen, oracle = list[float](), list[float]()
    for data in sorted({data for data, _ in found}):
        rows = [found[data, recipe(base, size)] for size in SIZES]
        val, test = (np.array([row[f"{split}_accuracy"] for row in rows]) for split in ("val", "test"))
        chosen.append(100 * float(test[val.argmax()] - test[0]))
        oracle.append(100 * float(test.max() - test[0]))
    return chosen, oracle


def interval(values: list[float]) -> str:
    """The mean with its 95 % t interval."""
    return f"{np.mean(values):+.2f} ± {half_width(float(np.std(values, ddof=1)), len(values)):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="runs of benchmarks.recipes.run")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.results.read_text().splitlines()]
    found = {
        (row["data"], row["recipe"]): row["scores"]["last"]
        for row in rows
        if row["seed"] == 0 and "last" in row["scores"]
    }
    print("| statistics | chosen by validation | oracle |\n| --- | --- | --- |")
    for base in ("train", "kept"):
        print(f"| {base} | {' | '.join(map(interval, gains(base, found)))} |")


if __name__ == "__main__":
    main()
