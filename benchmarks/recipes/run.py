"""Accuracy of fine-tuning recipes that differ in one key, on few images.

    python -m benchmarks.recipes.run \\
        DATA/{dtd10,fashion10,flowers5,rsscn7,signdigits,trash6} --out results.jsonl

Adds a JSON line for each finished run to the file and skips runs that it already contains, so that a second
start continues the first. `report` makes a table of them.
"""

import argparse
import json
import re
import time
from pathlib import Path

import torch

from benchmarks.recipes.fine_tuning import fine_tune, score_probe
from benchmarks.recipes.images import draw
from benchmarks.recipes.recipes import AVERAGED, PROBE, RECIPES, Recipe, runs


def finished(out: Path) -> set[tuple[str, str, int]]:
    """Set, recipe and seed of the lines in `out`."""
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return {(row["data"], row["recipe"], row["seed"]) for row in rows}


def record(data: Path, recipe: str, seed: int, counts: list[int]) -> dict[str, object]:
    """One run as a line of the file."""
    start = time.process_time()
    images = draw(data, counts, seed)
    if recipe == PROBE:
        scores = score_probe(images, Recipe().resolution)
    else:
        scores = fine_tune(images, RECIPES[recipe], seed, averaged=recipe in AVERAGED)
    rounded = {name: {k: round(v, 4) for k, v in row.items()} for name, row in scores.items()}
    seconds = round(time.process_time() - start, 1)
    return {"data": data.name, "recipe": recipe, "seed": seed, "cpu_seconds": seconds, "scores": rounded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/, val/ and test/")
    parser.add_argument("--images", nargs=3, type=int, default=[96, 48, 300], help="to train, validate, test")
    parser.add_argument("--match", default="", help="a regular expression for recipes; all if omitted")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = finished(args.out)
    for recipe, seed in (run for run in runs() if re.search(args.match, run[0])):
        for data in args.data:
            if (data.name, recipe, seed) not in done:
                line = json.dumps(record(data, recipe, seed, args.images))
                with args.out.open("a") as file:
                    file.write(line + "\n")
                print(line, flush=True)


if __name__ == "__main__":
    main()
