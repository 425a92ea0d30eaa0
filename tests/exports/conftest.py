"""Exports of untrained networks."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from finished import CLASS_NAMES, make_contents, make_point, planted, save_untrained

from tlopt.exports.read import Export, read_export
from tlopt.exports.write import write_export
from tlopt.spec.point import Point

Exporter = Callable[[Point, str], Export]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """The export of an untrained network: `exporter(point, resize)`; equal ones are written once."""

    @cache
    def write(point: Point, resize: str) -> Export:
        folder = tmp_path_factory.mktemp("export")
        weights = save_untrained(point, folder / "run.safetensors", n_classes=len(CLASS_NAMES))
        contents = make_contents(planted(point), resize=resize)
        return read_export(write_export(folder / "best", contents, weights_file=weights, overwrite=False))

    return write


@pytest.fixture(scope="session")
def export(exporter: Exporter) -> Export:
    """An export of an untrained ResNet-18 with three classes, at 32 pixels. Not to be changed."""
    return exporter(make_point(), "crop")
