"""How small does a network become without losing more than one point, and what does each stage bring?

    python -m benchmarks.compact.sizes DATA --sources OUT --out sizes.jsonl

`DATA` has the sets of `TARGETS` and of `SOURCES`. For each network and set: a search of rates for the whole
network, and one of the structure of its upper blocks, with as many trials; then, for each seed, the best
point of the first and a small one of the second are trained, and both are pruned in rounds. Networks without
pretrained weights are first trained here on the sources. Adds a line for the searches of each network and
set, and one for each seed; a second start goes on where the first ended. Prints the tables of
`benchmarks.compact.sizes_tables`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
import torch
from torch import Tensor, nn
from torch.nn import functional

import tlopt
from benchmarks.common.images import link_drawn
from benchmarks.compact.sizes_tables import tables
from tlopt import spec
from tlopt.compact.cost import count, measure_latency
from tlopt.compact.prune import PruningRound, Recipe, begin_pruning, pruning_events
from tlopt.data.load import test_split
from tlopt.errors import Diverged, SpecError
from tlopt.model.network import Network
from tlopt.search.defaults import Default, defaults
from tlopt.search.portfolio import KEPT_RATE
from tlopt.search.space import decode_params, search_space, suggest_params
from tlopt.spec import Study
from tlopt.spec.default_names import KEPT_LABEL, PARTLY_LABEL, PLAIN_LABEL
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import PruneGoal, recipe_point
from tlopt.training import step
from tlopt.training.inference import exported_logits
from tlopt.training.loop import train_epochs
from tlopt.training.metrics import compute_metrics
from tlopt.training.run import Run
from tlopt.trial.workspace import Workspace

TARGETS = ("rsscn7", "flowers5", "dtd10")
SOURCES = ("fashion10", "signdigits", "trash6")
NETWORKS = ("efficientnet_lite0", "vgg16_bn@0.125", "timm:resnet50@0.25", "densenet121@0.25")
COUNTS = {"train": 160, "val": 150, "test": 400}
_SOURCE_COUNT = 400  # images of each source
DEFAULTS = (PLAIN_LABEL, KEPT_LABEL, PARTLY_LABEL)
LITE0 = NETWORKS[0]  # has ImageNet weights
RESOLUTION, EPOCHS = 48, 5
N_RATES, N_STRUCTURES = 1, 4  # trials of each search; the first also has the three defaults
SHARE, N_ROUNDS, ROUND_EPOCHS = 0.4, 2, 3  # 63 and 40 % of the multiply-adds
LOSS_MAX = 0.01
DISTILLATION, _TEMPERATURE = 0.5, 2.0
_DEPTHS = (0.35, 0.5, 0.65)  # of the first structures
_PARTLY = {  # as the default of that name
    "neck_layers": 1,
    "neck_width": 128,
    "neck_convolution": "plain",
    "lr": 0.001,
    "lr_ratio": 1.0,
    "norm_depth": 0.0,
}
_LATENCY_BATCH, _LATENCY_ROUNDS = 16, 9
_STUDY = """
name = "sizes"
[data]
source = '{source}'
[model]
backbone = "{backbone}"
weights = '{weights}'
[budget]
trials = 1
epochs = {epochs}
[search]
resolution = {resolution}
batch_size = 16
lr = {{ log = [3e-4, 1e-2] }}
lr_ratio = {{ log = [0.1, 1.0] }}
norm_depth = {{ choice = [0.0, 1.0] }}
"""
_STRUCTURE = """
backbone_depth = { uniform = [0.3, 0.8] }
neck_layers = { int = [0, 1] }
neck_width = { choice = [64, 128, 256] }
neck_convolution = { choice = ["plain", "separable"] }
freeze_depth = { uniform = [0.0, 1.0] }
"""
_SOURCE_EPOCHS = 8


def source_images(data: Path, folder: Path) -> Path:
    """Links to test images of `SOURCES`, in a folder for each class."""
    for name in SOURCES:
        some = link_drawn(data / name, folder / name, {"test": _SOURCE_COUNT}, seed=0)
        for file in sorted((some / "test").rglob("*.*")):
            link = folder / "all" / f"{name}-{file.parent.name}" / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(file.resolve())
    return folder / "all"


def source_weights(backbone: str, data: Path, out: Path) -> str:
    """The weights of a network that is trained on the sources, unless it is there; "default" for Lite0."""
    if backbone == LITE0:
        return "default"
    folder = out / backbone.replace(":", "-")
    if not (folder / "weights.safetensors").exists():
        config = out / f"{folder.name}.toml"
        text = _STUDY.partition("lr = ")[0] + "lr = 0.003\naugmentation = 0.2"
        values = {"source": source_images(data, out / "images"), "backbone": backbone, "weights": "none"}
        config.write_text(
            text.format(**values, epochs=_SOURCE_EPOCHS, resolution=RESOLUTION).replace(
                "[model]", "test_fraction = 0.0\n[model]"
            )
        )
        tlopt.train(config, folder)
    return str((folder / "weights.safetensors").absolute())


@dataclass(frozen=True)
class Cell:
    """A network and a set of images."""

    backbone: str
    folder: Path
    weights: str

    @property
    def names(self) -> dict[str, str]:
        """What its lines begin with."""
        return {"network": self.backbone, "data": self.folder.name}

    def study(self, *, structure: bool = False) -> Study:
        """The study of the rates alone, or also of the structure."""
        text = _STUDY.format(
            source=self.folder,
            backbone=self.backbone,
            weights=self.weights,
            epochs=EPOCHS,
            resolution=RESOLUTION,
        )
        return spec.loads(text + _STRUCTURE * structure, "sizes.toml")

    @cached_property
    def workspace(self) -> Workspace:
        """Images and weights."""
        return Workspace.open(self.study(), torch.device("cpu"))

    # Searches

    def searched(self) -> dict[str, Any]:
        """The trials of both searches."""
        study, facts = self.study(), self.workspace.facts
        known = [
            each for each in defaults(study, facts) if each.label in (PLAIN_LABEL, KEPT_LABEL, PARTLY_LABEL)
        ]
        first = [self._trial(each.point, number) | {"label": each.label} for number, each in enumerate(known)]
        whole = [*first, *self._rates(known, first)]
        return {"kind": "search", "whole": whole, "structure": self._structures()}

    def _rates(self, known: Sequence[Default], rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Rates of the whole network by TPE, which knows the defaults."""
        space = search_space(self.study())
        opened = optuna.create_study(direction="maximize", sampler=_sampler())
        for each, row in zip(known, rows, strict=True):
            if each.params is not None:
                opened.add_trial(
                    optuna.create_trial(params=each.params, distributions=space, value=row["val"])
                )
        for index in range(N_RATES):
            trial = opened.ask()
            point = decode_params(suggest_params(trial, space), self.study(), self.workspace.facts)
            row = self._trial(point, 100 + index)
            opened.tell(trial, row["val"])
            yield row

    def _structures(self) -> list[dict[str, Any]]:
        """Structures by TPE for accuracy and multiply-adds.

        The first ones are partly frozen, as the default of that name: four fifths of their blocks are frozen,
        and a layer of the neck is fresh.
        """
        study = self.study(structure=True)
        space = search_space(study)
        opened = optuna.create_study(directions=["maximize", "minimize"], sampler=_sampler())
        for depth in _DEPTHS:
            values = {"backbone_depth": depth, "freeze_depth": 0.8 * depth, **_PARTLY}
            opened.enqueue_trial(values)
        rows = []
        for index in range(N_STRUCTURES):
            trial = opened.ask()
            point = decode_params(suggest_params(trial, space), study, self.workspace.facts)
            rows.append(self._trial(point, 200 + index))
            opened.tell(trial, [rows[-1]["val"], rows[-1]["multiply_adds"]])
        return rows

    def _trial(self, point: Point, seed: int) -> dict[str, Any]:
        network = self.trained(point, seed)
        return {"point": point.as_dict(), "val": self.accuracies(network, point)["val"], **_cost(network)}

    # Runs

    def run(self, search: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """One seed: both networks, and what each way of pruning makes of them."""
        whole, small = whole_and_small(search)
        networks: dict[str, nn.Module] = {}
        rows: dict[str, list[dict[str, Any]]] = {}
        network = self.trained(whole, seed)
        rows["whole"] = [self._row(network, whole)]
        networks["whole"] = network.net
        goal = PruneGoal(quantity="multiply_adds", share=SHARE, n_rounds=N_ROUNDS, loss_max=1.0)
        gentle = _gentle(whole)
        rows["l1"], _ = self._pruned(network, gentle, replace(goal, criterion="l1"), seed)
        rows["stage 2"], nets = self._pruned(network, gentle, goal, seed)
        if whole.freeze_depth:
            own = recipe_point(whole, epochs=ROUND_EPOCHS)
            rows["stage 2 all fast"], _ = self._pruned(network, own, goal, seed)
        networks |= {f"stage 2 {index}": net for index, net in enumerate(nets, 1)}
        network = self.trained(small, seed)
        rows["structure"] = [self._row(network, small)]
        networks["structure 0"] = network.net
        rows["tlopt"], nets = self._pruned(network, _gentle(small), goal, seed)
        networks |= {f"tlopt {index}": net for index, net in enumerate(nets, 1)}
        with _taught_by(network):
            rows["tlopt taught"], _ = self._pruned(network, _gentle(small), goal, seed)
        latency = {} if seed else _latencies(networks)
        return {"kind": "run", "seed": seed, "rows": rows, "latency": latency}

    def trained(self, point: Point, seed: int) -> Network:
        """The network of `point` after training; of a run that diverges, as it is then."""
        split, images = self.workspace.data.splits[0], self.workspace.images(point)
        run = self.workspace.start_run(point, seed=seed, train=split.train)
        try:
            for _ in train_epochs(run, images, split.train, None):
                pass
        except Diverged:
            pass
        return run.network

    def _row(self, network: Network, point: Point) -> dict[str, Any]:
        return self.accuracies(network, point, test=True) | _cost(network)

    def accuracies(self, network: Network, point: Point, *, test: bool = False) -> dict[str, float]:
        """On validation, and on test images if asked; with logits that are not finite 0."""
        workspace, device = self.workspace, self.workspace.device
        val = workspace.data.splits[0].val
        images = {"val": (workspace.images(point), val)}
        if test:
            held_out = test_split(workspace.study.data, seed=workspace.study.seed)
            images["test"] = (workspace.test_images(held_out, point), np.arange(len(held_out.labels)))
        found = {}
        for name, (some, indices) in images.items():
            logits = exported_logits(network, some, point, indices, device)
            right = (
                compute_metrics(logits, some.labels[indices]).accuracy if np.isfinite(logits).all() else 0.0
            )
            found[name] = round(right, 4)
        return found

    def _pruned(
        self, network: Network, point: Point, goal: PruneGoal, seed: int
    ) -> tuple[list[dict[str, Any]], list[nn.Module]]:
        """The networks after each round, trained by `point`; fewer if one diverges or can't be so small."""
        workspace, split = self.workspace, self.workspace.data.splits[0]
        recipe = Recipe(
            point=point,
            images=workspace.images(point),
            train=split.train,
            val=split.val,
            pretrained=workspace.weights[self.backbone].state,
            n_classes=workspace.n_classes,
            seed=seed,
            device=workspace.device,
        )
        rows, nets = [], []
        try:
            pruning = begin_pruning(network, recipe, goal)
            for event in pruning_events(pruning):
                if isinstance(event, PruningRound) and event.index:
                    rows.append(self._row(pruning.network, point))
                    nets.append(pruning.network.net)
        except (Diverged, SpecError) as error:
            print(f"{self.names}, {goal.words}: {error}", flush=True)
        return rows, nets


def whole_and_small(search: Mapping[str, Any]) -> tuple[Point, Point]:
    """By validation: the best whole network, and the smallest structure that loses no more than allowed.

    If each structure loses more, the best one.
    """
    whole = max(search["whole"], key=lambda row: float(row["val"]))
    structures = search["structure"]
    within = [row for row in structures if row["val"] >= whole["val"] - LOSS_MAX - 1e-9]
    small = (
        min(within, key=lambda row: int(row["multiply_adds"]))
        if within
        else max(structures, key=lambda row: float(row["val"]))
    )
    return Point.from_dict(whole["point"]), Point.from_dict(small["point"])


def _gentle(point: Point) -> Point:
    """tlopt's recipe for a pruned network, except that blocks which were frozen are trained with care.

    They keep their batch-norm statistics, and have the share of the rate that the default with kept
    statistics has.
    """
    share = KEPT_RATE[point.optimizer] if point.freeze_depth else 1.0
    return replace(
        recipe_point(point, epochs=ROUND_EPOCHS),
        lr_ratio=share * point.lr_ratio,
        norm_depth=max(point.norm_depth, point.freeze_depth),
    )


@contextmanager
def _taught_by(teacher: Network) -> Iterator[None]:
    """Training steps learn half from `teacher` within the block, both at temperature 2 (Hinton et al. 2015).

    For points without frozen blocks, whose steps begin with the views.
    """
    expected: list[Tensor] = []
    logits_of, cross_entropy = step._logits, functional.cross_entropy

    def logits(run: Run, features: Tensor, freeze_depth: int) -> Tensor:
        with torch.no_grad():
            expected[:] = [teacher.suffix(features, freeze_depth)]
        return logits_of(run, features, freeze_depth)

    def loss(found: Tensor, *args: Any, **options: Any) -> Tensor:
        own, its = (functional.log_softmax(each / _TEMPERATURE, dim=1) for each in (found, *expected))
        taught = functional.kl_div(own, its, reduction="batchmean", log_target=True)
        mean = cross_entropy(found, *args, **options)
        return (1 - DISTILLATION) * mean + DISTILLATION * _TEMPERATURE**2 * taught

    teacher.eval()
    losses = SimpleNamespace(cross_entropy=loss, one_hot=functional.one_hot)
    with patch.object(step, "_logits", logits), patch.object(step, "F", losses):
        yield


def _sampler() -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(multivariate=True, n_startup_trials=3, seed=0)


def _cost(network: Network) -> dict[str, int]:
    found = count(network.net, RESOLUTION)
    return {"parameters": found.parameters, "multiply_adds": found.multiply_adds}


def _latencies(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, float]]:
    """Latencies relative to the whole network, by batch size and network."""
    nets = {name: net.eval().requires_grad_(False) for name, net in networks.items()}
    found: dict[str, dict[str, float]] = {}
    for size in (1, _LATENCY_BATCH):
        images = {name: torch.rand(size, 3, RESOLUTION, RESOLUTION) for name in nets}
        rows = measure_latency(nets, images, n_rounds=_LATENCY_ROUNDS * (4 if size == 1 else 1))
        found[str(size)] = {name: round(row.ratio, 3) for name, row in rows.items()}
    return found


def main(arguments: Sequence[str]) -> None:
    """Run what is missing from the results, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sources", type=Path, default=Path("sources"), help="folder of the source networks")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("sizes.jsonl"))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    asked.sources.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    for seed, data, backbone in product(range(asked.seeds), TARGETS, NETWORKS):
        folder = link_drawn(asked.data.resolve() / data, asked.sources.absolute() / data, COUNTS, seed=0)
        cell = Cell(backbone, folder, source_weights(backbone, asked.data.resolve(), asked.sources))
        for row in _missing(cell, seed, rows):
            rows.append(cell.names | row)
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(tables(rows)))


def _missing(cell: Cell, seed: int, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines of a cell and seed that are not among `rows`."""
    own = [row for row in rows if all(row[key] == value for key, value in cell.names.items())]
    if any(row["kind"] == "run" and row["seed"] == seed for row in own):
        return
    search = next((row for row in own if row["kind"] == "search"), None)
    if search is None:
        search = cell.searched()
        yield search
    yield cell.run(search, seed)


if __name__ == "__main__":
    main(sys.argv[1:])
