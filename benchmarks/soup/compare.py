"""Are a soup and an ensemble of confirmed runs better on test images than the network that is exported alone?

    python -m benchmarks.soup.compare DATA/{flowers5,rsscn7,dtd10} --work WORK --out results.jsonl

Trains linear probe, plain fine-tuning, fine-tuning with kept statistics and the partly frozen network with
the seeds of a confirmation on each set and seed, which also draws the training images; chooses among the
first three by their mean on validation, and makes a soup and an ensemble as `tlopt export` does. Adds a line
for each set and seed; a second start goes on where the first ended. Prints Markdown tables of test accuracy
with 95 % t intervals over sets and seeds.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recipes.images import draw
from tlopt import spec
from tlopt.confirmation.combined import Combined
from tlopt.confirmation.combining import CombinedNetwork, make_ensemble, make_soup
from tlopt.confirmation.held_out import WeightsFile, read_test_of, trained, validate
from tlopt.confirmation.interval import half_width
from tlopt.confirmation.predictions import Source
from tlopt.confirmation.verdict import Confirmed, Verdict, ranked
from tlopt.search.defaults import defaults
from tlopt.search.plan import confirm_seed
from tlopt.spec.default_names import PLAIN_LABEL
from tlopt.spec.point import Point
from tlopt.spec.search_keys import in_blocks
from tlopt.trial.workspace import Workspace

N_TRAIN, N_VAL, N_TEST, N_SEEDS = 240, 120, 300, 3
PARTLY_FROZEN = "partly frozen"
WAYS: dict[str, Callable[..., CombinedNetwork]] = {
    "soup of all runs": make_soup,
    "soup of the chosen point": partial(make_soup, n_points=1),
    "ensemble of the chosen point": make_ensemble,
    "ensemble of the two best points": partial(make_ensemble, n_points=2),
}

_STUDY = """
name = "soup"
seed = {seed}
[data]
source = '{source}'
[model]
backbone = "efficientnet_lite0"
[budget]
trials = 1
epochs = 5
[search]
resolution = 96
batch_size = 16
lr = 0.001
[confirm]
seeds = {n_seeds}
"""


def link(data: Path, seed: int, folder: Path) -> Path:
    """A folder of links to the images of `data`; the seed draws those for training."""
    images = draw(data, (N_TRAIN, N_VAL, N_TEST), seed)
    for subset in (images.train, images.val, images.test):
        for file in subset.files:
            target = folder / file.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(file)
    return folder


def points_of(workspace: Workspace) -> dict[str, Point]:
    """The trained defaults, and the partly frozen network with plain fine-tuning's other keys."""
    known = {row.label: row.point for row in defaults(workspace.study, workspace.facts)}
    plain = known[PLAIN_LABEL]
    depth = in_blocks(0.8, workspace.facts.n_blocks[plain.backbone])
    frozen = replace(plain, transfer_depth=depth, freeze_depth=depth, anchor_depth=depth)
    return {label: point for label, point in known.items() if not point.is_linear} | {PARTLY_FROZEN: frozen}


def measured(workspace: Workspace, label: str, point: Point, number: int, file: WeightsFile) -> Confirmed:
    """A candidate with the validation and test metrics of all its seeds."""
    seeds = tuple(confirm_seed(workspace.study, replicate) for replicate in range(N_SEEDS))
    val, test = [], []
    for replicate, seed in enumerate(seeds):
        at = file(number, replicate)
        network = trained(workspace, point, seed, replicate, at).network
        source = Source.of(point, seed, workspace.fingerprints)
        val.append(validate(workspace, network, point, source, workspace.data.splits[0].val)[0].as_dict())
        test.append(read_test_of(workspace, network, point, source, at))
    return Confirmed(number=number, label=label, point=point, seeds=seeds, val=tuple(val), test=tuple(test))


def verdict_of(rows: Sequence[Confirmed]) -> Verdict:
    """The choice by the mean on validation; all rows are defaults."""
    return Verdict(
        study="soup",
        objective="accuracy",
        direction="maximize",
        rows=ranked(rows, "accuracy", "maximize"),
        n_expected=N_SEEDS * len(rows),
        n_finished=N_SEEDS * len(rows),
        test_readings=1,
    )


def result_of(data: Path, seed: int, work: Path) -> dict[str, Any]:
    """All numbers of one set and seed."""
    folder = work / f"{data.name}-{seed}"
    source = link(data, seed, folder / "images")
    study = spec.loads(_STUDY.format(source=source, seed=seed, n_seeds=N_SEEDS), "soup.toml")
    workspace = Workspace.open(study, torch.device("cpu"))

    def file(number: int, replicate: int) -> Path:
        return folder / "weights" / f"{number}-{replicate}.safetensors"

    rows = [
        measured(workspace, label, point, number, file)
        for number, (label, point) in enumerate(points_of(workspace).items())
    ]
    verdict = verdict_of([row for row in rows if row.label != PARTLY_FROZEN])
    ways = {name: _combined(workspace, verdict, make, file) for name, make in WAYS.items()}
    return {
        "data": data.name,
        "seed": seed,
        "runs": {row.label: {"val": _accuracies(row.val), "test": _accuracies(row.test)} for row in rows},
        "log_loss": {row.label: [round(each["log_loss"], 4) for each in row.test] for row in rows},
        "chosen": verdict.chosen.label,
        "exported": verdict.exported_replicate,
        "ways": ways,
    }


def _combined(
    workspace: Workspace, verdict: Verdict, make: Callable[..., CombinedNetwork], file: WeightsFile
) -> dict[str, Any]:
    found = make(workspace, verdict, file)
    first, combined = found.combined.members[0], found.combined
    source = Source.of(first.point, first.seed, workspace.fingerprints)
    at = file(99, 0)
    test = read_test_of(workspace, found.net, first.point, source, at)
    val = validate(workspace, found.net, first.point, source, found.val)[0].as_dict()
    return {
        "members": _members(combined),
        "tried": [[round(each.value, 4), each.kept] for each in combined.additions],
        "val": round(val["accuracy"], 4),
        "test": round(test["accuracy"], 4),
        "log_loss": round(test["log_loss"], 4),
    }


def _members(combined: Combined) -> list[str]:
    return [f"{member.label} {member.replicate}" for member in combined.members]


def _accuracies(rows: Sequence[dict[str, float]]) -> list[float]:
    return [round(row["accuracy"], 4) for row in rows]


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown: each way against the network that is exported alone, paired by set and seed."""
    alone = np.array([row["runs"][row["chosen"]]["test"][row["exported"]] for row in rows])
    mean = np.array([np.mean(row["runs"][row["chosen"]]["test"]) for row in rows])
    losses = np.array([row["log_loss"][row["chosen"]][row["exported"]] for row in rows])
    names = sorted({row["data"] for row in rows})
    titles = ["network", "members", "test accuracy, %", "against the exported one", "against the seeds' mean"]
    yield f"| {' | '.join([*titles, 'log-loss', *names])} |"
    yield "| --- | --- | --- | --- | --- | --- |" + " --- |" * len(names)
    yield _line("exported alone", "1", alone, ("", ""), f"{losses.mean():.3f}", rows, names)
    gained = with_interval(mean - alone, 100, 1)
    yield _line("mean of the chosen point's seeds", "1", mean, (gained, ""), "", rows, names)
    for way in WAYS:
        test = np.array([row["ways"][way]["test"] for row in rows])
        sizes = [len(row["ways"][way]["members"]) for row in rows]
        loss = np.array([row["ways"][way]["log_loss"] for row in rows])
        members = f"{np.mean(sizes):.1f}"
        against = with_interval(test - alone, 100, 1), with_interval(test - mean, 100, 1)
        yield _line(way, members, test, against, with_interval(loss - losses, 1, 3), rows, names)


def _line(
    name: str,
    members: str,
    test: "np.ndarray[Any, Any]",
    against: tuple[str, str],
    loss: str,
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
) -> str:
    of = [f"{100 * test[[row['data'] == each for row in rows]].mean():.1f}" for each in names]
    cells = [name, members, f"{100 * test.mean():.1f}", *against, loss, *of]
    return f"| {' | '.join(cells)} |"


def with_interval(values: "np.ndarray[Any, Any]", scale: int, digits: int) -> str:
    """The mean with its 95 % t interval."""
    half = half_width(float(values.std(ddof=1)), len(values))
    return f"{scale * values.mean():+.{digits}f} ± {scale * half:.{digits}f}"


def default_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown: test accuracy of what the mean on validation chooses among three and among four defaults."""
    yield "| chosen among | test accuracy, % | against three | partly frozen chosen |"
    yield "| --- | --- | --- | --- |"
    three = np.array([_test(row, _chosen(row, -1)) for row in rows])
    yield f"| three defaults | {100 * three.mean():.1f} | | |"
    labels = [_chosen(row, None) for row in rows]
    four = np.array([_test(row, label) for row, label in zip(rows, labels, strict=True)])
    n = f"{labels.count(PARTLY_FROZEN)} of {len(rows)}"
    cells = (f"{100 * four.mean():.1f}", with_interval(four - three, 100, 1), n)
    yield f"| and the partly frozen network | {' | '.join(cells)} |"
    yield ""
    for label in rows[0]["runs"]:
        yield f"- {label}: {100 * np.mean([_test(row, label) for row in rows]):.1f} %"


def _test(row: dict[str, Any], label: str) -> float:
    return float(np.mean(row["runs"][label]["test"]))


def _chosen(row: dict[str, Any], end: int | None) -> str:
    labels: list[str] = list(row["runs"])[:end]
    return max(labels, key=lambda label: float(np.mean(row["runs"][label]["val"])))


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing from the results, then print the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="folder for links and weights")
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)

    def recorded() -> list[dict[str, Any]]:
        return [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []

    for seed, folder in product(asked.seeds, asked.data):
        if (folder.name, seed) not in {(row["data"], row["seed"]) for row in recorded()}:
            row = result_of(folder.resolve(), seed, asked.work.resolve())
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    rows = recorded()
    print("\n".join([*table(rows), "", *default_table(rows)]))


if __name__ == "__main__":
    main(sys.argv[1:])
