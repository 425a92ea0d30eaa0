"""Do measures of fit rank networks by their accuracy after fine-tuning?

    OMP_NUM_THREADS=1 python -m benchmarks.insight.backbones run DATA --out backbones.jsonl --work /tmp/nets
    python -m benchmarks.insight.backbones report benchmarks/insight/backbones.jsonl

`run` trains the networks on source sets, measures their fit to the training images of other sets and
fine-tunes them there. It adds a JSON line for each finished fit and fine-tuning and goes on where it was
stopped.

`report` prints Spearman's rank correlation of each measure with the accuracy on test images over networks, by
set and as the mean over sets, with the interval that 95 % of 2,000 draws of networks, with replacement, lie
in.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.common.images import link_drawn
from benchmarks.common.study_file import study_text
from tlopt import spec
from tlopt.data.load import load_data, test_split
from tlopt.insight.fit import measure_fit
from tlopt.insight.images import TrainingImages
from tlopt.insight.measures import chosen
from tlopt.model.weights import load_weights
from tlopt.search.defaults import defaults
from tlopt.spec.default_names import PLAIN_LABEL, SCRATCH_LABEL
from tlopt.spec.sections import DataSpec
from tlopt.training.inference import exported_logits
from tlopt.training.loop import train_epochs
from tlopt.training.metrics import compute_metrics
from tlopt.training.run import Run
from tlopt.trial.workspace import Workspace

SOURCES = ("fashion10", "signdigits", "emoji_g2t")
TARGETS = ("flowers5", "rsscn7", "dtd10", "trash6")
IMAGES = {"train": 96, "val": 20, "test": 200}  # of a target; validation images are not used
SOURCE_IMAGES = {"train": 300, "val": 20, "test": 20}
EPOCHS = 6  # of a fine-tuning
RESOLUTION = 64
N_DRAWS = 2000
MEASURES = tuple(measure for measure in chosen(()) if measure.by_block)
LITE0 = "efficientnet_lite0"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Origin:
    """A network: its backbone, the weights that it began with, and its training on a source set."""

    backbone: str
    begun_with: str  # "default", which is ImageNet, or "none"
    source: str = ""
    epochs: int = 0  # on the source

    @property
    def name(self) -> str:
        """As in "efficientnet_lite0, ImageNet, fashion10 2"."""
        parts = (self.backbone, {"default": "ImageNet", "none": "random"}[self.begun_with])
        return ", ".join((*parts, *((f"{self.source} {self.epochs}",) if self.epochs else ())))


NETWORKS = (
    Origin(LITE0, "default"),
    *(Origin(LITE0, "default", source, epochs) for source in SOURCES for epochs in (2, 12)),
    Origin(LITE0, "none"),
    Origin("resnet18", "none"),
    *(Origin("resnet18", "none", source, 12) for source in SOURCES),
    Origin("resnet18", "none", "fashion10", 2),
    Origin("mobilenet_v3_small", "none"),
    *(Origin("mobilenet_v3_small", "none", source, 12) for source in SOURCES),
)


def opened(source: Path, origin: Origin, weights: str, epochs: int) -> Workspace:
    """The images of `source` and a network; nothing is searched."""
    text = study_text(
        "network",
        data={"source": source, "views": 8},
        model={"backbone": origin.backbone, "weights": weights},
        budget={"trials": 1, "epochs": epochs},
        search={"resolution": RESOLUTION, "batch_size": 16},
    )
    return Workspace.open(spec.loads(text, "network.toml"), torch.device("cpu"))


def plain_run(workspace: Workspace, seed: int) -> Run:
    """Plain fine-tuning, or training from scratch, at its start."""
    (plain,) = defaults(workspace.study, workspace.facts, (PLAIN_LABEL, SCRATCH_LABEL))
    return workspace.start_run(plain.point, seed=seed, train=workspace.data.splits[0].train)


def make_weights(data: Path, folder: Path) -> Mapping[Origin, str]:
    """The weights of each network, "default" or a file in `folder`; trains those that are missing."""
    files = {
        origin: folder / f"{origin.name.replace(', ', '-').replace(' ', '-')}.safetensors"
        for origin in NETWORKS
    }
    for origin, file in files.items():
        if not file.exists() and origin.begun_with == "none" and not origin.epochs:
            workspace = opened(data / TARGETS[0], origin, "none", 1)
            workspace.save_weights(plain_run(workspace, seed=0), file)
        elif not file.exists() and origin.epochs:
            _train_on_source(data, folder, origin, file)
    return {each: str(file) if file.exists() else "default" for each, file in files.items()}


def _train_on_source(data: Path, folder: Path, origin: Origin, file: Path) -> None:
    source = link_drawn(data / origin.source, folder / "images" / origin.source, SOURCE_IMAGES, 0)
    workspace = opened(source, origin, origin.begun_with, origin.epochs)
    run = plain_run(workspace, seed=1)
    images, split = workspace.images(run.point), workspace.data.splits[0]
    *_, last = train_epochs(run, images, split.train, None)
    workspace.save_weights(run, file)
    print(f"{origin.name}: accuracy {last.train_accuracy:.2f} in training", flush=True)


def fit(source: Path, origin: Origin, weights: str) -> dict[str, float | None]:
    """The measures of the whole network by name."""
    of = DataSpec(source=str(source))
    images = TrainingImages.of(load_data(of, seed=0), of)
    found = measure_fit(
        load_weights(origin.backbone, weights),
        images,
        MEASURES,
        resolution=RESOLUTION,
        device=torch.device("cpu"),
    )
    return {name: None if value is None else round(value, 5) for name, value in found.network.values.items()}


def test_accuracy(source: Path, origin: Origin, weights: str, seed: int) -> float:
    """Accuracy on test images after plain fine-tuning, in [0, 1]."""
    workspace = opened(source, origin, weights, EPOCHS)
    run = plain_run(workspace, seed)
    for _ in train_epochs(run, workspace.images(run.point), workspace.data.splits[0].train, None):
        pass
    held_out = test_split(workspace.study.data, seed=0)
    images, indices = workspace.test_images(held_out, run.point), np.arange(len(held_out.labels))
    logits = exported_logits(run.network, images, run.point, indices, workspace.device)
    return round(compute_metrics(logits, held_out.labels).accuracy, 4)


def run_all(data: Path, out: Path, work: Path, seeds: int) -> None:
    """Add the missing lines to `out`."""
    weights = make_weights(data, work)
    done = {(row["data"], row["network"], row.get("seed")) for row in _rows(out)}
    for seed in (None, *range(seeds)):  # fits first, which take a tenth of the time
        for name in TARGETS:
            drawn = link_drawn(data / name, work / "images" / f"{name}-{seed or 0}", IMAGES, seed or 0)
            for origin in NETWORKS:
                if (name, origin.name, seed) not in done:
                    row = {"data": name, "network": origin.name}
                    _add(out, row | _measured(drawn, origin, weights[origin], seed))


def _measured(drawn: Path, origin: Origin, weights: str, seed: int | None) -> dict[str, Any]:
    """The accuracy of a fine-tuning with this seed; without a seed, the fit."""
    if seed is None:
        return {"fit": fit(drawn, origin, weights)}
    return {"seed": seed, "test": test_accuracy(drawn, origin, weights, seed)}


def _add(out: Path, row: Mapping[str, Any]) -> None:
    line = json.dumps(row)
    with out.open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Rank correlations of the measures with test accuracy over networks, as lines of Markdown tables.

    One table for all networks, and one for those that begin with ImageNet's weights.
    """
    for title, group in (
        ("all networks", [each.name for each in NETWORKS]),
        ("begun with ImageNet", [each.name for each in NETWORKS if each.begun_with == "default"]),
        ("begun with random weights", [each.name for each in NETWORKS if each.begun_with == "none"]),
    ):
        yield from ("", *_table(rows, title, group))


def _table(rows: Sequence[Mapping[str, Any]], title: str, group: Sequence[str]) -> Iterator[str]:
    accuracy = accuracies(rows)
    fits = {(row["data"], row["network"]): row["fit"] for row in rows if "fit" in row}
    sets = [name for name in TARGETS if all((name, each) in accuracy for each in group)]
    names = [f"{name} ({len(group)})" for name in sets]
    yield f"| {title} | {' | '.join(names)} | mean |"
    yield "| --- " * (len(sets) + 2) + "|"
    y = np.array([[accuracy[name, each] for each in group] for name in sets])
    columns = {"begun with ImageNet": [[float("ImageNet" in each) for each in group] for _ in sets]}
    columns |= {
        measure.column.title: [[fits[name, each][measure.name] or 0.0 for each in group] for name in sets]
        for measure in MEASURES
    }
    for column, values in columns.items():
        x = np.array(values)
        if sets and np.ptp(x):
            yield f"| {column} | {' | '.join(correlations(x, y))} |"


def accuracies(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Test accuracy by set and network, mean over seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if "test" in row:
            found.setdefault((row["data"], row["network"]), []).append(row["test"])
    return {key: statistics.fmean(values) for key, values in found.items()}


def correlations(x: Floats, y: Floats) -> Iterator[str]:
    """Spearman's rank correlation in each row of x and y, (sets, networks), and their mean, with intervals.

    A draw of networks is the same for all sets.
    """
    rng, n = np.random.default_rng(0), x.shape[1]
    found = [_ranks(x, y)]
    for _ in range(N_DRAWS):
        drawn = rng.integers(0, n, n)
        found.append(_ranks(x[:, drawn], y[:, drawn]))
    values = np.array(found)
    for column in (*values.T, values.mean(axis=1)):
        low, high = np.nanquantile(column[1:], (0.025, 0.975))
        yield f"{column[0]:.2f} ({low:.2f} to {high:.2f})"


def _ranks(x: Floats, y: Floats) -> list[float]:
    """Spearman's correlation by row; NaN where all values are equal."""
    pairs = zip(x, y, strict=True)
    return [float(spearmanr(*pair).statistic) if all(map(np.ptp, pair)) else np.nan for pair in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("data", type=Path)
    run.add_argument("--out", type=Path, required=True, help="JSON lines")
    run.add_argument("--work", type=Path, required=True, help="folder for weights and links")
    run.add_argument("--seeds", type=int, default=2)
    report = commands.add_parser("report")
    report.add_argument("file", type=Path, help="JSON lines")
    args = parser.parse_args()
    if args.command == "report":
        print(*table(_rows(args.file)), sep="\n")
        return
    torch.set_num_threads(1)
    run_all(args.data, args.out, args.work, args.seeds)


if __name__ == "__main__":
    main()
