"""`tlopt fit`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tlopt.cli.options import Device, Storage
from tlopt.errors import SpecError

if TYPE_CHECKING:
    from tlopt.insight.record import Comparison, Fit

app = typer.Typer()
out = Console(highlight=False)


@app.command()
def fit(
    target: Annotated[
        str,
        typer.Argument(metavar="STUDY|IMAGES", help="A study, or images as tlopt init takes them."),
    ],
    backbones: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Networks to compare; default: the study's.")
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Default: all; networks are ranked by the first."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGES", help="Images that the networks were pretrained on: adds EMD similarity."
        ),
    ] = None,
    resolution: Annotated[int | None, typer.Option(min=8, help="Pixels per side.")] = None,
    images: Annotated[
        int | None,
        typer.Option(min=2, help="Training images to use at most; default: 1000, or 3 of each class."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG; default: exports/NAME.fit.png.")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="EXPORT", help="Compare the pretrained network with that of an export instead."),
    ] = None,
    storage: Storage = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Measure how well pretrained networks suit the training images, block by block, without training.

    The values are stored with the study if it has been started. Test and validation images are not read.
    """
    from tlopt.app import fit as fits

    request = fits.FitRequest(
        backbones=_names(backbones),
        measures=_names(measures),
        source=source,
        resolution=resolution,
        images_max=images,
        figure=figure,
        device=device,
    )
    if against is not None and source is not None:
        raise SpecError("--source adds a measure of fit, and --against compares networks: name one of them")
    subject = fits.open_subject(target, request, storage_url=storage, progress=True)
    if against is not None:
        _show_comparison(subject.name, fits.compare_with_export(subject, against), as_json=as_json)
        return
    found = fits.measure(subject, request.measures, progress=True)
    drawn = fits.draw_figure(found, figure or fits.figure_file(subject), title=f"Fit to {subject.name}")
    _show_fits(subject.name, found, drawn, as_json=as_json)


def _show_fits(name: str, found: "list[Fit]", drawn: Path | None, *, as_json: bool) -> None:
    from tlopt.app.fit_tables import fits_shown

    if as_json:
        said = {"name": name, "figure": drawn and str(drawn), "fits": [each.as_dict() for each in found]}
        sys.stdout.write(json.dumps(said) + "\n")
        return
    out.print(fits_shown(name, found))
    if drawn is not None:
        out.print(f"figure: {drawn}", markup=False, soft_wrap=True)


def _show_comparison(name: str, compared: "Comparison", *, as_json: bool) -> None:
    from tlopt.app.fit_tables import comparison_shown

    if as_json:
        sys.stdout.write(json.dumps({"name": name, **asdict(compared)}) + "\n")
    else:
        out.print(comparison_shown(name, compared))


def _names(text: str | None) -> tuple[str, ...]:
    """The names in a list with commas; empty for None."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
