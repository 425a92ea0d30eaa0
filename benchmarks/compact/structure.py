"""What does it bring to search the structure of the deeper layers, beside a smaller backbone alone?

    python -m benchmarks.compact.structure DATA/{dtd10,flowers5,rsscn7} --out structure.jsonl

On each set, three searches with the same number of trials: the rates of fine-tuning the whole network; these
and how many blocks of it are used; and these and the neck and head in place of the others. The best point of
each on validation, and the best of the last search with at most half of the whole network's multiply-adds,
are trained over further seeds and measured on test images. Adds a line for each trial and each of these runs;
a second start goes on where the first ended. Prints a table.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution

from tlopt import spec
from tlopt.compact.cost import count
from tlopt.data.load import test_split
from tlopt.errors import Diverged
from tlopt.search.space import decode_params, search_space, suggest_params
from tlopt.spec import Study
from tlopt.spec.point import Point
from tlopt.training.inference import exported_logits
from tlopt.training.loop import train_epochs
from tlopt.training.metrics import compute_metrics
from tlopt.training.run import Run
from tlopt.trial.workspace import Workspace

HALF = "structure, at most half"
_COMMON = """
name = "structure"
[data]
source = '{source}'
[model]
backbone = "efficientnet_lite0"
[budget]
trials = 1
epochs = 4
[search]
resolution = 64
batch_size = 16
train_images = 240
norm_depth = 1.0
lr = {{ log = [3e-4, 1e-2] }}
lr_ratio = {{ log = [0.03, 1.0] }}
"""
_DEPTH = "backbone_depth = { uniform = [0.3, 1.0] }\n"
_NECK = """
neck_layers = { int = [0, 2] }
neck_width = { choice = [64, 128, 256] }
neck_kernel = { choice = [1, 3] }
neck_convolution = { choice = ["plain", "separable"] }
head_layers = { int = [0, 1] }
"""
SEARCHES = {"whole": "", "backbone_depth": _DEPTH, "structure": _DEPTH + _NECK}


@dataclass(frozen=True)
class Bench:
    """The results of one set of images, and the file they are added to."""

    folder: Path
    out: Path
    n_trials: int
    seeds: range

    def study(self, search: str) -> Study:
        """The study of a search."""
        return spec.loads(_COMMON.format(source=self.folder) + SEARCHES[search], search)

    def rows(self) -> list[dict[str, Any]]:
        """The lines of this set so far."""
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        return [row for row in map(json.loads, lines) if row["data"] == self.folder.name]

    def add(self, **row: Any) -> None:
        """Add a line."""
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"data": self.folder.name, **row}) + "\n")

    def run(self) -> None:
        """Whatever is missing of this set."""
        workspace = Workspace.open(self.study("whole"), torch.device("cpu"))
        for search in SEARCHES:
            self._search(search, workspace)
        for name, point in self.winners().items():
            done = {row["seed"] for row in self.rows() if row["kind"] == "run" and row["name"] == name}
            for seed in sorted(set(self.seeds) - done):
                run, _ = _trained(workspace, point, seed)
                self.add(kind="run", name=name, seed=seed, test=_tested(workspace, run), **_cost(run))

    def _search(self, search: str, workspace: Workspace) -> None:
        """The trials of a search that are missing; the sampler sees those before."""
        study, facts = self.study(search), workspace.facts
        sampler = optuna.samplers.TPESampler(multivariate=True, n_startup_trials=4, seed=0)
        opened, space = optuna.create_study(direction="maximize", sampler=sampler), search_space(study)
        for row in self.rows():
            if row["kind"] == "trial" and row["name"] == search:
                opened.add_trial(_known(row, space))
        while len(opened.trials) < self.n_trials:
            trial = opened.ask()
            point = decode_params(suggest_params(trial, space), study, facts)
            run, accuracy = _trained(workspace, point, 1000 + trial.number)
            opened.tell(trial, accuracy)
            self.add(
                kind="trial",
                name=search,
                params=trial.params,
                point=point.as_dict(),
                val=accuracy,
                **_cost(run),
            )

    def winners(self) -> dict[str, Point]:
        """The best point on validation of each search, and of small ones of the last."""
        trials = [row for row in self.rows() if row["kind"] == "trial"]
        whole = max(row["multiply_adds"] for row in trials if row["name"] == "whole")
        groups = {name: [row for row in trials if row["name"] == name] for name in SEARCHES}
        groups[HALF] = [row for row in groups["structure"] if row["multiply_adds"] <= whole / 2]
        best = {name: max(rows, key=lambda row: row["val"]) for name, rows in groups.items() if rows}
        return {name: Point.from_dict(row["point"]) for name, row in best.items()}


def _known(row: dict[str, Any], space: dict[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    return optuna.create_trial(params=row["params"], distributions=space, value=row["val"])


def _trained(workspace: Workspace, point: Point, seed: int) -> tuple[Run, float]:
    """The trained run of a point, and its accuracy on validation; 0 if it diverges."""
    split = workspace.data.splits[0]
    run = workspace.start_run(point, seed=seed, train=split.train)
    images = workspace.images(point)
    try:
        for _ in train_epochs(run, images, split.train, None):
            pass
    except Diverged:
        return run, 0.0
    logits = exported_logits(run.network, images, point, split.val, workspace.device)
    return run, compute_metrics(logits, images.labels[split.val]).accuracy


def _tested(workspace: Workspace, run: Run) -> float:
    held_out = test_split(workspace.study.data, seed=workspace.study.seed)
    images, indices = workspace.test_images(held_out, run.point), np.arange(len(held_out.labels))
    logits = exported_logits(run.network, images, run.point, indices, workspace.device)
    return compute_metrics(logits, held_out.labels).accuracy


def _cost(run: Run) -> dict[str, int]:
    found = count(run.network.net, run.point.resolution)
    return {"parameters": found.parameters, "multiply_adds": found.multiply_adds}


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown: test accuracy, mean and range over seeds, and size, for each set and way."""
    runs = [row for row in rows if row["kind"] == "run"]
    yield "| set | search | test accuracy | parameters | multiply-adds |"
    yield "| --- | --- | --- | --: | --: |"
    for data in sorted({row["data"] for row in runs}):
        of = {name: [r for r in runs if (r["data"], r["name"]) == (data, name)] for name in (*SEARCHES, HALF)}
        whole = of["whole"][0]
        for name, found in of.items():
            if found:
                yield f"| {data} | {name} | {_line(found, whole)} |"


def _line(found: Sequence[dict[str, Any]], whole: dict[str, Any]) -> str:
    tests = [100 * row["test"] for row in found]
    shares = (f"{100 * found[0][key] / whole[key]:.0f} %" for key in ("parameters", "multiply_adds"))
    return " | ".join([f"{np.mean(tests):.1f} ({min(tests):.1f} to {max(tests):.1f})", *shares])


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--trials", type=int, default=24, help="of each search")
    parser.add_argument("--seeds", type=int, default=3, help="of each best point")
    parser.add_argument("--out", type=Path, default=Path("structure.jsonl"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bench = partial(Bench, out=asked.out, n_trials=asked.trials, seeds=range(asked.seeds))
    for folder in asked.data:
        bench(folder.resolve()).run()
    print("\n".join(table([row for folder in asked.data for row in bench(folder.resolve()).rows()])))


if __name__ == "__main__":
    main(sys.argv[1:])
