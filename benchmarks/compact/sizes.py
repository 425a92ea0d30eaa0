"""How small does a network become without losing more than one point, and what does each stage bring?

    python -m benchmarks.compact.sizes DATA --sources OUT --out sizes.jsonl

`DATA` has the sets of `TARGETS` and of `SOURCES`. For each network and set: a search of rates for the whole
network, and one of the structure of its upper blocks; then, for each seed, the best point of the first and a
small one of the second are trained, and both are pruned in rounds. Networks without pretrained weights are
first trained here on the sources. Adds a line for the searches of each network and set, and one for each
seed, with the options that differ from their defaults; a second start goes on where the first ended. Prints
the tables of `benchmarks.compact.sizes_tables`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import torch

import tlopt
from benchmarks.common.images import link_drawn
from benchmarks.compact.sizes_cell import Cell
from benchmarks.compact.sizes_settings import FIRST, HEADER, LITE0, WAYS, Settings
from benchmarks.compact.sizes_tables import tables

TARGETS = ("rsscn7", "flowers5", "dtd10")
SOURCES = ("fashion10", "signdigits", "trash6")
NETWORKS = (LITE0, "vgg16_bn@0.125", "timm:resnet50@0.25", "densenet121@0.25")
_SOURCE_COUNT, _SOURCE_EPOCHS = 400, 8  # images of each source


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
        values = {"source": source_images(data, out / "images"), "backbone": backbone, "weights": "none"}
        text = HEADER.format(**values, epochs=_SOURCE_EPOCHS, resolution=Settings().resolution)
        text = text.replace("[model]", "test_fraction = 0.0\n[model]")
        config.write_text(text + "lr = 0.003\naugmentation = 0.2")
        tlopt.train(config, folder)
    return str((folder / "weights.safetensors").absolute())


def main(arguments: Sequence[str]) -> None:
    """Run what is missing from the results, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sources", type=Path, default=Path("sources"), help="folder of the source networks")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("sizes.jsonl"))
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--sets", nargs="+", default=TARGETS)
    own = Settings()
    parser.add_argument("--resolution", type=int, default=own.resolution, help="in pixels per side")
    parser.add_argument("--epochs", type=int, default=own.epochs, help="of each trial and run")
    parser.add_argument("--train", type=int, default=own.train, help="training images")
    parser.add_argument("--val", type=int, default=own.val, help="validation images")
    parser.add_argument("--test", type=int, default=own.test, help="test images")
    parser.add_argument("--rates", type=int, default=own.rates, help="trials of rates beside the defaults")
    parser.add_argument("--structures", type=int, default=own.structures, help="structures that are trained")
    parser.add_argument(
        "--limit",
        type=float,
        default=own.limit,
        help="share of the whole network's multiply-adds that a structure may have, as [constraints]; 0: any",
    )
    parser.add_argument("--resolutions", type=int, nargs="+", default=own.resolutions, help="within --limit")
    parser.add_argument("--first", choices=FIRST, default=own.first, help="structures within --limit")
    parser.add_argument("--end", type=float, default=own.end, help="share of multiply-adds after the rounds")
    parser.add_argument("--rounds", type=int, default=own.rounds)
    parser.add_argument("--round-epochs", type=int, default=own.round_epochs)
    parser.add_argument("--last-epochs", type=int, default=own.last_epochs, help="after the last removal")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=own.ways)
    asked = parser.parse_args(arguments)
    given: dict[str, Any] = {each.name: getattr(asked, each.name) for each in fields(Settings)}
    for key in ("resolutions", "ways"):
        given[key] = tuple(given[key])
    settings = Settings(**given)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    asked.sources.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    for seed, data, backbone in product(range(asked.seeds), asked.sets, asked.networks):
        links = asked.sources.absolute() / settings.folder / data
        folder = link_drawn(asked.data.resolve() / data, links, settings.counts, seed=0)
        weights = source_weights(backbone, asked.data.resolve(), asked.sources)
        for row in _missing(Cell(backbone, folder, weights, settings), seed, rows):
            rows.append(row)
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print("\n".join(tables(rows)))


def _missing(cell: Cell, seed: int, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines of a cell and seed that are not among `rows`."""
    own = [row for row in rows if _header(row) == cell.header]
    if any(row["kind"] == "run" and row["seed"] == seed for row in own):
        return
    search = next((row for row in own if row["kind"] == "search"), None)
    if search is None:
        search = cell.header | cell.searched(_whole(cell, rows))
        yield search
    yield cell.header | cell.run(search, seed)


def _whole(cell: Cell, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Trials of the whole network that lines with other settings of the structures have; else none."""
    names = (cell.backbone, cell.folder.name)
    searches = (row for row in rows if row["kind"] == "search" and (row["network"], row["data"]) == names)
    for row in searches:
        if Settings(**row.get("settings", {})).of_whole == cell.settings.of_whole:
            return list(row["whole"])
    return ()


def _header(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("network", "data", "settings") if key in row}


if __name__ == "__main__":
    main(sys.argv[1:])
