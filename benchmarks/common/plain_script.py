"""The script that tlopt is compared with: the same trials with torchvision's loaders and plain torch.

    python -m benchmarks.common.plain_script DATA/flowers5 --points points.json --out values.jsonl

Each trial reads weights and folder anew, decodes and augments every image with PIL in loader processes, and
runs the frozen blocks forward in every step. Network, parameter groups and schedule are tlopt's own, so that
a point has the same meaning in both.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tlopt.model.build import build
from tlopt.model.linear_head import LinearKind, Task, fit_linear_head
from tlopt.model.network import Network
from tlopt.model.partition import partition_for, penalised
from tlopt.model.weights import Weights, load_weights
from tlopt.spec.point import Point, seed_for
from tlopt.training.optim import make_groups, schedule_factor


@dataclass(frozen=True)
class Machine:
    """Processes, device and precision of the script."""

    n_loaders: int = 2  # processes that decode images
    device: str = "cpu"
    autocast: bool = False  # to bfloat16


@dataclass(frozen=True)
class Part:
    """A part of a training, for systems that promote trials."""

    epochs: int  # trained in all when it ends
    begun: Path | None  # state file that an earlier part wrote; None for the first part
    kept: Path  # state file to write at the end

    @property
    def first(self) -> int:
        """Epochs that earlier parts have trained."""
        return 0 if self.begun is None else int(torch.load(self.begun, weights_only=True)["epochs"])


def loader(folder: Path, weights: Weights, point: Point, machine: Machine, *, train: bool) -> DataLoader:  # type: ignore[type-arg]
    """Batches of the images in `folder`, augmented if `train`."""
    side, a = point.resolution, point.augmentation
    views = (
        [
            transforms.RandomResizedCrop(side, scale=(1 - 0.75 * a, 1)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.4 * a, 0.4 * a, 0.4 * a),
        ]
        if train
        else [transforms.Resize(round(side * 8 / 7)), transforms.CenterCrop(side)]
    )
    chain = [*views, transforms.ToTensor(), transforms.Normalize(weights.mean, weights.std)]
    return DataLoader(
        ImageFolder(str(folder), transforms.Compose(chain)),
        batch_size=point.batch_size,
        shuffle=train,
        num_workers=machine.n_loaders,
        persistent_workers=machine.n_loaders > 0,
        pin_memory=machine.device != "cpu",
    )


def train_batches(
    data: Path, point: Point, machine: Machine, seed: int = 0, part: Part | None = None
) -> Iterator[tuple[nn.Module, Weights, float]]:
    """Train `point`; yields network, weights and mean training loss after each epoch.

    A linear classifier is fitted at once: a single epoch, its loss NaN.
    """
    torch.manual_seed(seed)
    weights = load_weights(point.backbone, "default")
    if point.is_linear:
        yield linear_network(data, point, weights, machine, seed), weights, math.nan
        return
    batches = loader(data / "train", weights, point, machine, train=True)
    n_classes = len(batches.dataset.classes)  # type: ignore[attr-defined]
    device = torch.device(machine.device)
    network = build(point, n_classes=n_classes, weights=weights, seed=seed).to(device)
    parts = partition_for(network, point)
    parameters = dict(network.net.named_parameters())
    for name in parts.fixed:
        if name in parameters:
            parameters[name].requires_grad_(False)
    groups = make_groups(parameters, parts, point)
    decay = {*parts.fresh, *parts.head}
    anchored = penalised(network).intersection(parts.transferred) if point.l2_sp else frozenset[str]()
    rows = [
        {
            "params": [parameters[name]],
            "rate": group.lr,
            "weight_decay": _decay(name in decay, parameters[name], point),
            "anchor": parameters[name].detach().clone() if name in anchored else None,
        }
        for group in groups
        for name in group.names
    ]
    optimizer = torch.optim.AdamW(rows, lr=point.lr, betas=(point.momentum, 0.999))
    n_steps = len(batches)
    first = 0 if part is None else _begin(part, network, optimizer, seed)
    for epoch in range(first, point.epochs if part is None else part.epochs):
        network.set_mode(point.freeze_depth, point.norm_depth)
        total = 0.0
        for step, (images, labels) in enumerate(batches, epoch * n_steps):
            factor = schedule_factor(
                step,
                n_steps=point.epochs * n_steps,
                warmup_fraction=point.warmup_fraction,
                schedule=point.schedule,
            )
            for row in optimizer.param_groups:
                row["lr"] = row["rate"] * factor
            optimizer.zero_grad()
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=machine.autocast):
                loss = F.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            _pull(optimizer, point.l2_sp)
            total += loss.item()
        yield network, weights, total / n_steps
    if part is not None:
        state = {"network": network.net.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"epochs": part.epochs}, part.kept)


def _begin(part: Part, network: Network, optimizer: torch.optim.Optimizer, seed: int) -> int:
    """Load the state with which `part` begins; returns the number of epochs that it has trained."""
    if part.begun is None:
        return 0
    state = torch.load(part.begun, weights_only=True)
    network.net.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    torch.manual_seed(seed_for(seed, part.first))  # other images first, other views
    return part.first


@torch.inference_mode()
def linear_network(data: Path, point: Point, weights: Weights, machine: Machine, seed: int) -> Network:
    """The pretrained network with a linear classifier fitted on its features of train/, as tlopt fits it."""
    batches = loader(data / "train", weights, point, machine, train=False)
    labels = np.array(batches.dataset.targets)  # type: ignore[attr-defined]
    network = build(point, n_classes=int(labels.max()) + 1, weights=weights, seed=seed)
    network.to(machine.device).eval()
    depth = len(network.blocks)
    features = [network.between(images.to(machine.device), 0, depth).flatten(1) for images, _ in batches]
    kind: LinearKind = "svm" if point.classifier == "svm" else "logistic"
    task = Task(
        kind=kind,
        features=torch.cat(features).cpu().double().numpy(),
        labels=labels,
        units=np.arange(len(labels)),
        n_classes=int(labels.max()) + 1,
        balanced=False,
        seed=seed,
    )
    head = fit_linear_head(task)
    for name, values in (("weight", head.weight), ("bias", head.bias)):
        network.head.get_parameter(name).copy_(torch.from_numpy(values))
    return network


def _decay(decays: bool, parameter: nn.Parameter, point: Point) -> float:
    return point.l2 if decays and parameter.dim() > 1 else 0.0


@torch.no_grad()
def _pull(optimizer: torch.optim.Optimizer, strength: float) -> None:
    """L2-SP toward the anchors, decoupled as AdamW's decay is."""
    for row in optimizer.param_groups:
        if row["anchor"] is not None:
            row["params"][0].lerp_(row["anchor"], row["lr"] * strength)


@torch.no_grad()
def hits(network: nn.Module, batches: DataLoader, machine: Machine) -> NDArray[np.bool_]:  # type: ignore[type-arg]
    """Whether each image of `batches` is classified correctly."""
    network.eval()
    with torch.autocast(machine.device.partition(":")[0], torch.bfloat16, enabled=machine.autocast):
        found = [(network(images.to(machine.device)).argmax(1).cpu(), labels) for images, labels in batches]
    return torch.cat([ours == labels for ours, labels in found]).numpy()


def accuracy(network: nn.Module, batches: DataLoader, machine: Machine) -> float:  # type: ignore[type-arg]
    """Accuracy of `network` on `batches`, in [0, 1]."""
    return float(hits(network, batches, machine).mean())


def epochs(
    data: Path, point: Point, machine: Machine, seed: int = 0, part: Part | None = None
) -> Iterator[float]:
    """Train `point`; yields validation accuracy, in [0, 1], after each epoch."""
    batches = None
    for network, weights, _ in train_batches(data, point, machine, seed, part):
        batches = batches or loader(data / "val", weights, point, machine, train=False)
        yield accuracy(network, batches, machine)


def run_points(data: Path, points: list[Point], machine: Machine, out: Path) -> None:
    """Train each of `points` to the end; write a JSON line for each: seconds since the start, value."""
    start = time.perf_counter()
    with out.open("w") as file:
        for number, point in enumerate(points):
            *_, value = epochs(data, point, machine, seed=number)
            file.write(json.dumps({"seconds": time.perf_counter() - start, "value": value}) + "\n")
            file.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--points", type=Path, required=True, help="JSON list of points")
    parser.add_argument("--loaders", type=int, default=2, help="loader processes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    args = parser.parse_args()
    points = [Point.from_dict(row) for row in json.loads(args.points.read_text())]
    run_points(args.data, points, Machine(args.loaders, args.device), args.out)


if __name__ == "__main__":
    main()
