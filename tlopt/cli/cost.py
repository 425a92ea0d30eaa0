"""`tlopt cost`."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from tlopt.cli.options import Device

app = typer.Typer()
out = Console(highlight=False)


@app.command()
def cost(
    networks: Annotated[
        list[str],
        typer.Argument(metavar="EXPORT|BACKBONE...", help="Folders of exports and names of backbones."),
    ],
    resolution: Annotated[
        int | None,
        typer.Option(min=8, help="Pixels per side for backbones; default: of their weights."),
    ] = None,
    latency: Annotated[
        bool,
        typer.Option("--latency", help="Measure it on this device, relative to the first network."),
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch, besides one.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each network whose median is given.")] = 15,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Count parameters, multiply-adds and bytes of trained networks and backbones, and measure latency."""
    from tlopt.app.compact.cost import LatencyRequest, costs_of, costs_shown

    request = LatencyRequest(batch_size=batch, n_rounds=rounds, device=device) if latency else None
    found = costs_of(networks, resolution=resolution, latency=request)
    if as_json:
        sys.stdout.write(json.dumps(found.as_dict()) + "\n")
    else:
        out.print(costs_shown(found))
