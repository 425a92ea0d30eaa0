"""Which criterion and scope of `tlopt prune` lose the least accuracy?

    python -m benchmarks.compact.criteria DATA/{dtd10,flowers5,rsscn7} --out results.jsonl

Fine-tunes a network on each set and seed, prunes it to half of its multiply-adds by each criterion and scope,
and adds a line for each result. A second start goes on where the first ended. Prints the points of
validation accuracy lost, paired by set and seed. No decision is made by that accuracy, so that it is no
optimistic measure here.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from scipy.stats import t as student

from tlopt import spec
from tlopt.compact.prune import PruningRound, Recipe, prune
from tlopt.errors import Diverged
from tlopt.model.network import Network
from tlopt.search.defaults import defaults
from tlopt.spec.default_names import PLAIN_LABEL
from tlopt.spec.trial_spec import Criterion, PruneGoal, Scope
from tlopt.training.loop import train_epochs
from tlopt.trial.workspace import Workspace

N_ROUNDS, EPOCHS, SHARE = 3, 3, 0.5
CRITERIA: tuple[Criterion, ...] = ("taylor", "l1", "batch_norm")  # "history" trains for a round more
CHOICES = list(product(CRITERIA, get_args(Scope)))

_STUDY = """
name = "criteria"
[data]
source = '{source}'
[model]
backbone = "efficientnet_lite0"
[budget]
trials = 1
epochs = {epochs}
[search]
resolution = 64
batch_size = 16
train_images = 300
lr = 0.001
"""


def results_of(folder: Path, seed: int, done: set[tuple[str, int, str]]) -> Iterator[dict[str, Any]]:
    """The accuracy before and after each way of pruning that is not yet `done`."""
    missing = [each for each in CHOICES if (folder.name, seed, " ".join(each)) not in done]
    if not missing:
        return
    study = spec.loads(_STUDY.format(source=folder, epochs=5), "criteria.toml")
    workspace = Workspace.open(study, torch.device("cpu"))
    point = next(row.point for row in defaults(study, workspace.facts) if row.label == PLAIN_LABEL)
    split = workspace.data.splits[0]
    run = workspace.start_run(point, seed=seed, train=split.train)
    for _ in train_epochs(run, workspace.images(point), split.train, split.val):
        pass
    recipe = Recipe(
        point=replace(point, epochs=EPOCHS),
        images=workspace.images(point),
        train=split.train,
        val=split.val,
        pretrained={},
        n_classes=workspace.n_classes,
        seed=seed,
        device=torch.device("cpu"),
    )
    for criterion, scope in missing:
        goal = PruneGoal(
            quantity="multiply_adds",
            share=SHARE,
            criterion=criterion,
            scope=scope,
            n_rounds=N_ROUNDS,
            loss_max=1.0,
        )
        yield {"data": folder.name, "seed": seed, "way": f"{criterion} {scope}"} | _pruned(
            run.network, recipe, goal
        )


def _pruned(network: Network, recipe: Recipe, goal: PruneGoal) -> dict[str, Any]:
    try:
        rounds = [each for each in prune(network, recipe, goal) if isinstance(each, PruningRound)]
    except Diverged:
        return {"before": None, "after": 0.0, "parameters": None}
    first, last = rounds[0], rounds[-1]
    return {
        "before": round(first.val.accuracy, 4),
        "after": round(last.val.accuracy, 4),
        "parameters": round(last.cost.parameters / first.cost.parameters, 3),
    }


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown: accuracy by set, and points behind the best way; of sets and seeds with every way.

    Differences are paired and have a 95 % t interval over sets and seeds.
    """
    after = {(row["data"], row["seed"], row["way"]): 100 * row["after"] for row in rows}
    before = {(row["data"], row["seed"]): 100 * row["before"] for row in rows if row["before"] is not None}
    ways = [" ".join(each) for each in CHOICES]
    units = [unit for unit in sorted(before) if all((*unit, way) in after for way in ways)]
    names = sorted({name for name, _ in units})
    ways.sort(key=lambda way: -float(np.mean([after[*unit, way] for unit in units])))
    yield f"| way | points lost | behind the first | {' | '.join(names)} |"
    yield "| --- |" + " --- |" * (2 + len(names))
    whole = " | ".join(f"{np.mean([before[u] for u in units if u[0] == name]):.1f}" for name in names)
    yield f"| before | | | {whole} |"
    for way in ways:
        lost = np.array([before[unit] - after[*unit, way] for unit in units])
        behind = np.array([after[*unit, ways[0]] - after[*unit, way] for unit in units])
        half = student.ppf(0.975, len(units) - 1) * behind.std(ddof=1) / len(units) ** 0.5
        cells = (f"{np.mean([after[*u, way] for u in units if u[0] == name]):.1f}" for name in names)
        compared = "" if way == ways[0] else f"{behind.mean():.1f} ± {half:.1f}"
        yield f"| {way} | {lost.mean():.1f} | {compared} | {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """Run what is missing from the results, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    done = {(row["data"], row["seed"], row["way"]) for row in rows}
    for seed, folder in product(range(asked.seeds), asked.data):
        for row in results_of(folder.resolve(), seed, done):
            rows.append(row)
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
