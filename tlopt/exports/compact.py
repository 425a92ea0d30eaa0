"""Exports of pruned networks: an export with a smaller network and an account of the pruning."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors.torch import save
from torch import nn

from tlopt.compact.cost import InferenceCost, Latency, measure_latency
from tlopt.compact.prune import Pruning, PruningRound
from tlopt.errors import DataError
from tlopt.exports.card import usage
from tlopt.exports.read import (
    CLASSES,
    CONFIG,
    DECODING,
    PREPROCESSING,
    PROGRAM,
    WEIGHTS,
    Export,
    inference_cost,
    load_module,
    whole_cost,
    whole_network,
)
from tlopt.exports.result import FORMAT_COMPACT, RESULT, read_result
from tlopt.exports.write import CARD, STUDY, check_target, write_program
from tlopt.model.network import Network
from tlopt.spec.objectives import measured, percent_words
from tlopt.spec.trial_spec import PruneGoal
from tlopt.system.atomic import replacing_folder, write_atomically
from tlopt.system.words import counted, size_words

_LATENCY_ROUNDS = 15
_AS_BEFORE = (CONFIG, CLASSES, PREPROCESSING, DECODING, STUDY)  # files of both exports


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned:
    """The account of a pruning: its goal, and every round, the kept one among them."""

    goal: PruneGoal
    rounds: tuple[PruningRound, ...]  # round 0 is the network before
    kept: PruningRound
    network: Network  # of the kept round, in eval mode
    epochs: int  # of each round
    n_val: int  # validation images
    identity: str  # digest of the network before, the images, the recipe and the goal

    @classmethod
    def of(cls, pruning: Pruning, *, identity: str) -> Self:
        """The account of a finished pruning."""
        return cls(
            goal=pruning.goal,
            rounds=tuple(pruning.rounds),
            kept=pruning.kept,
            network=pruning.network,
            epochs=pruning.recipe.point.epochs,
            n_val=len(pruning.recipe.val),
            identity=identity,
        )

    @property
    def reached(self) -> bool:
        """Whether the kept network is as small as wanted."""
        return self.kept.index == self.goal.n_rounds


def write_compact(folder: Path, source: Export, pruned: Pruned, *, overwrite: bool) -> Path:
    """Write the kept network to `folder`, which appears when complete; return its path.

    Files that do not depend on the network are copied from `source`. Beside `weights.safetensors`, from which
    tlopt takes the shapes, the network is written as a program of `torch.export` that needs torch alone.

    Raises:
        DataError: `folder` must not be replaced or cannot be written.
    """
    folder = folder.absolute()
    check_target(folder, overwrite=overwrite)
    try:
        with replacing_folder(folder) as part:
            _fill(part, source, pruned)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


@dataclass(frozen=True, kw_only=True)
class CompactCost:
    """What a network of the account costs in use, beside the others."""

    name: Literal["whole", "before", "here"]  # all blocks and channels; before pruning; the exported one
    counted: InferenceCost
    latency: Latency  # of one image on the CPU, relative to the first network

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        latency = {"latency_ms": 1e3 * self.latency.seconds, "latency_ratio": self.latency.ratio}
        return {"network": self.name, **asdict(self.counted), **latency}


def compact_costs(source: Export, net: nn.Module, cost: InferenceCost) -> tuple[CompactCost, ...]:
    """The costs of the network that `source` was shortened from, if it was, of `source`, and of `net`.

    Latency is measured in turns, on the CPU with the threads of this process.

    Args:
        net: the pruned network, in eval mode on the CPU; `cost` is what it costs.
    """
    cpu = torch.device("cpu")
    networks: dict[Literal["whole", "before", "here"], tuple[nn.Module, InferenceCost]] = {}
    if source.point.is_shortened:
        networks["whole"] = whole_network(source), whole_cost(source)
    networks["before"] = load_module(source, cpu), inference_cost(source)
    networks["here"] = net, cost
    image = torch.rand(1, 3, *2 * [source.resolution], generator=torch.Generator().manual_seed(0))
    nets = {str(name): each for name, (each, _) in networks.items()}
    latency = measure_latency(nets, dict.fromkeys(nets, image), n_rounds=_LATENCY_ROUNDS)
    return tuple(
        CompactCost(name=name, counted=counted, latency=latency[name])
        for name, (_, counted) in networks.items()
    )


def _fill(folder: Path, source: Export, pruned: Pruned) -> None:
    for name in _AS_BEFORE:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    net = pruned.network.net.cpu().eval()
    state = {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}
    write_atomically(folder / WEIGHTS, save(state))
    write_program(net, source.resolution, folder / PROGRAM)
    export = replace(source, folder=folder, is_compact=True)
    cost = inference_cost(export)
    costs = compact_costs(source, net, cost)
    result = json.dumps(measured(_result(source, pruned, costs)), indent=2)
    write_atomically(folder / RESULT, result + "\n")
    write_atomically(folder / CARD, "\n".join(_card(export, source, pruned, costs)) + "\n")


def _result(source: Export, pruned: Pruned, costs: Sequence[CompactCost]) -> dict[str, Any]:
    """result.json of the source, whose verdict is about the whole network, and the account of the pruning."""
    before = read_result(source.folder)
    goal = asdict(pruned.goal)
    rounds = [
        {"round": each.index, "kept": each is pruned.kept, **_amounts(each), "val": each.val.as_dict()}
        for each in pruned.rounds
    ]
    return {
        **before,
        "format": FORMAT_COMPACT,
        "network": {**before.get("network", {}), **asdict(costs[-1].counted)},
        "pruned": {
            **goal,
            "epochs": pruned.epochs,
            "n_val": pruned.n_val,
            "identity": pruned.identity,
            "rounds": rounds,
        },
        "costs": [each.as_dict() for each in costs],
    }


def _amounts(each: PruningRound) -> dict[str, int]:
    return {"parameters": each.cost.parameters, "multiply_adds": each.cost.multiply_adds}


def _card(export: Export, source: Export, pruned: Pruned, costs: Sequence[CompactCost]) -> Iterator[str]:
    before, kept, goal = pruned.rounds[0], pruned.kept, pruned.goal
    classes = counted(len(export.class_names), "class", "classes")
    yield f"# {source.folder.absolute().name}, pruned: {classes} with {export.backbone}"
    yield ""
    yield (
        f"An image classifier for {classes}: the network {export.backbone} at {export.resolution} x"
        f" {export.resolution} pixels, with channels removed and trained on. It has"
        f" {costs[-1].counted.words}:"
        f" {percent_words(kept.cost.parameters / before.cost.parameters)} of the parameters and"
        f" {percent_words(kept.cost.multiply_adds / before.cost.multiply_adds)} of the multiply-adds of the"
        " network before. Written by tlopt."
    )
    yield ""
    yield (
        f"Validation accuracy **{percent_words(kept.val.accuracy)}**, before"
        f" {percent_words(before.val.accuracy)} ({counted(pruned.n_val, 'image')}). These images decided when"
        " to stop, so the number is optimistic. The test images were not used: no test result of the network"
        " before is one of this network."
    )
    yield ""
    yield "## What it costs"
    yield ""
    yield from _costs_table(costs)
    yield ""
    yield "## How it was pruned"
    yield ""
    wanted = f"{percent_words(goal.share)} of the {goal.quantity.replace('multiply_adds', 'multiply-adds')}"
    yield (
        f"Goal: {wanted} in {counted(goal.n_rounds, 'round')} of {counted(pruned.epochs, 'epoch')}, by the"
        f" criterion {goal.criterion} ({goal.scope}), losing at most {100 * goal.loss_max:.1f} points of"
        " validation accuracy."
    )
    if not pruned.reached:
        yield ""
        yield "The goal was not reached: the next round lost more than that, or its training diverged."
    yield ""
    yield "| round | parameters | multiply-adds | validation accuracy |"
    yield "| --: | --: | --: | --: |"
    for each in pruned.rounds:
        mark = "→ " if each is kept else ""
        cells = (
            f"{each.cost.parameters:,}",
            f"{each.cost.multiply_adds:,}",
            percent_words(each.val.accuracy),
        )
        yield f"| {mark}{each.index} | {' | '.join(cells)} |"
    yield ""
    yield "## Use"
    yield ""
    yield from usage(export)
    yield ""
    yield "## Limits"
    yield ""
    yield "- It predicts one of its classes for every image, even with confidence for images of other things."
    yield "- `config.toml` is of the network before: `tlopt train config.toml ../trained` trains a whole one."


_NAMES = {"whole": "whole network", "before": "before pruning", "here": "this network"}


def _costs_table(costs: Sequence[CompactCost]) -> Iterator[str]:
    """The costs of all networks, those after the first with the quotient to it."""
    first = costs[0]
    yield "| | parameters | multiply-adds | file size | time for one image |"
    yield "| --- | --: | --: | --: | --: |"
    for each in costs:
        here, there = each.counted, first.counted
        pairs = (
            (f"{here.parameters:,}", there.parameters / here.parameters),
            (f"{here.multiply_adds:,}", there.multiply_adds / here.multiply_adds),
            (size_words(here.weights_bytes), there.weights_bytes / here.weights_bytes),
            (f"{1e3 * each.latency.seconds:.3g} ms", 1 / each.latency.ratio),
        )
        cells = (words if each is first else f"{words} (÷ {quotient:.2f})" for words, quotient in pairs)
        yield f"| {_NAMES[each.name]} | {' | '.join(cells)} |"
    yield ""
    threads = counted(torch.get_num_threads(), "thread")
    yield (
        f"÷ is relative to the first row. The time is the median of {_LATENCY_ROUNDS} rounds, in each of"
        f" which every network takes its turn, on the CPU of the exporting machine with {threads};"
        " `tlopt cost EXPORT... --latency` measures it elsewhere, and for batches."
    )
    yield ""
    yield (
        "Parameters are what training changes, without the statistics of batch norms that the file has, too."
        " Multiply-adds are those of convolutions, linear layers and matrix products; counters of other tools"
        " may leave out those within attention."
    )
