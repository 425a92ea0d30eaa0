"""Parameters, multiply-adds, bytes and latency of exports and backbones, side by side."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlopt.errors import NotReady
from tlopt.spec.objectives import measured
from tlopt.system.words import counted, si_words, size_words

if TYPE_CHECKING:
    from torch import nn

    from tlopt.compact.cost import InferenceCost, Latency

COUNTED = (
    "Multiply-adds per image: those of convolutions, linear layers and matrix products, attention included."
    " File size: of the weights on disk."
)


@dataclass(frozen=True, kw_only=True)
class LatencyRequest:
    """How latency is measured."""

    batch_size: int = 32  # besides single images
    n_rounds: int = 15
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """One network: the folder of its export or its backbone's name, its input and what it costs."""

    name: str
    resolution: int  # pixels per side
    n_classes: int
    cost: "InferenceCost"
    latency: Mapping[int, "Latency"] = field(default_factory=dict)  # by batch size; empty if not measured

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        numbers = {"name": self.name, "resolution": self.resolution, "n_classes": self.n_classes}
        latency = {str(size): asdict(each) for size, each in self.latency.items()}
        return {**numbers, **asdict(self.cost), **({"latency": latency} if latency else {})}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Several networks; latencies are relative to the first."""

    rows: tuple[CostRow, ...]
    measured: str = ""  # how latency was measured, in words; empty if it was not

    def as_dict(self) -> dict[str, Any]:
        """The costs for JSON."""
        how = {"measured": self.measured} if self.measured else {}
        written: dict[str, Any] = measured({"networks": [row.as_dict() for row in self.rows]})
        return {**how, **written}


def costs_of(
    names: Sequence[str], *, resolution: int | None = None, latency: LatencyRequest | None = None
) -> Costs:
    """The cost of each network.

    Args:
        names: folders of exports and names of backbones; a folder of that name comes first.
        resolution: pixels per side for backbones; default: of their default weights. Exports have their own.
        latency: how to measure it; None to count only.

    Raises:
        SpecError: a name is no supported backbone, or the resolution does not suit it.
        NotReady, DataError, WeightsError: a folder is no export, or is damaged.
    """
    subjects = [_Subject.of(name, resolution) for name in dict.fromkeys(names)]
    rows = tuple(subject.row() for subject in subjects)
    if latency is None:
        return Costs(rows=rows)
    return _with_latency(subjects, rows, latency)


@dataclass(frozen=True)
class _Subject:
    """A network that is named by the user."""

    name: str
    resolution: int | None  # for a backbone

    @staticmethod
    def of(name: str, resolution: int | None) -> "_Subject":
        if Path(name).is_dir():
            return _Subject(name, None)
        if os.sep in name:
            from tlopt.exports.read import no_export

            raise NotReady(no_export(name, "there is no such folder"))
        from tlopt.model.build import check_resolution
        from tlopt.model.weights import load_weights

        weights = load_weights(name, "none")
        chosen = resolution or weights.resolution
        check_resolution(weights, chosen)
        return _Subject(name, chosen)

    def row(self) -> CostRow:
        """What is counted; builds no tensors."""
        if self.resolution is None:
            from tlopt.exports.read import inference_cost, read_export

            export = read_export(Path(self.name))
            return CostRow(
                name=self.name,
                resolution=export.resolution,
                n_classes=len(export.class_names),
                cost=inference_cost(export),
            )
        from tlopt.compact.cost import count
        from tlopt.model.build import outlined

        network = outlined(self.name, self.resolution)
        return CostRow(
            name=self.name,
            resolution=self.resolution,
            n_classes=network.head.get_parameter("weight").shape[0],
            cost=count(network.net, self.resolution),
        )

    def network(self) -> "nn.Module":
        """The network in eval mode on the CPU, a backbone's with random weights."""
        import torch

        from tlopt.exports.read import load_module, read_export
        from tlopt.model.build import untrained_network
        from tlopt.model.weights import load_weights

        if self.resolution is None:
            return load_module(read_export(Path(self.name)), torch.device("cpu"))
        return untrained_network(load_weights(self.name, "none"), self.resolution, seed=0).net.eval()


def _with_latency(subjects: Sequence[_Subject], rows: tuple[CostRow, ...], request: LatencyRequest) -> Costs:
    import torch

    from tlopt.compact.cost import measure_latency
    from tlopt.training.devices import choose_device

    device = choose_device(request.device)
    networks = {subject.name: subject.network().to(device) for subject in subjects}
    found: dict[int, dict[str, Latency]] = {}
    for size in dict.fromkeys((1, request.batch_size)):
        images = {row.name: torch.rand(size, 3, *2 * [row.resolution], device=device) for row in rows}
        found[size] = measure_latency(networks, images, n_rounds=request.n_rounds)
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    return Costs(
        rows=tuple(
            replace(row, latency={size: each[row.name] for size, each in found.items()}) for row in rows
        ),
        measured=f"{device}{threads}, float32, median of {counted(request.n_rounds, 'round')}",
    )


def costs_shown(costs: Costs) -> Group:
    """A table with a row for each network, and what its columns mean."""
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("network", overflow="fold")
    for title in ("pixels", "parameters", "multiply-adds", "file size"):
        table.add_column(title, justify="right", no_wrap=True)
    for size in costs.rows[0].latency:
        table.add_column(f"batch of {size}\nms   ratio", justify="right", no_wrap=True)
    for row in costs.rows:
        table.add_row(*_cells(row))
    notes: list[RenderableType] = [Text(COUNTED)]
    if costs.measured:
        first = costs.rows[0].name
        notes.append(Text(f"Latency of a batch: {costs.measured}; ratio to {first}, taken within rounds."))
    return Group(table, *notes)


def _cells(row: CostRow) -> Iterator[str]:
    yield row.name
    yield str(row.resolution)
    yield si_words(row.cost.parameters)
    yield si_words(row.cost.multiply_adds)
    yield size_words(row.cost.weights_bytes)
    for each in row.latency.values():
        yield f"{each.seconds * 1e3:.1f}  {each.ratio:5.2f}"
