"""What the systems of `first_to_accuracy.py` share: a search's job, the space, reports; nothing of torch."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from optuna.trial import FixedTrial

from tlopt import spec
from tlopt.model.build import n_blocks
from tlopt.model.facts import Limits
from tlopt.model.rates import usual_lr
from tlopt.search.space import suggest
from tlopt.spec import Study
from tlopt.spec.dimensions import Choice, Int, Log
from tlopt.spec.point import Point

# as `tlopt init` writes it for so few images, but for the size; workers end by time, not by trials
STUDY = """
name = "first"
seed = {seed}
[data]
source = "{source}"
views = 8
[model]
backbone = "{backbone}"
precision = "auto"
layout = "auto"
[budget]
trials = 10000
epochs = {epochs}
[search]
resolution = {resolution}
batch_size = 16
transfer_depth = {{ int = [{half}, {n_blocks}] }}
freeze_depth = {{ int = [0, {n_blocks}] }}
lr = {{ log = [1e-4, 2e-2] }}
lr_ratio = {{ log = [0.03, 1.0] }}
l2_sp = {{ log = [0.5, 50.0], zero = true }}
augmentation = {{ choice = [0.2, 0.7] }}
[pruner]
kind = "median"
min_epochs = {min_epochs}
"""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What all searches of a comparison share."""

    seconds: float  # of a search, its start included
    epochs: int  # of a trial, at most
    resolution: int
    backbone: str


def study_text(source: Path, seed: int, size: Size) -> str:
    """The study file of one search; `min_epochs` by the rule of `tlopt init`."""
    n = n_blocks(size.backbone)
    return STUDY.format(
        source=source,
        seed=seed,
        backbone=size.backbone,
        epochs=size.epochs,
        resolution=size.resolution,
        half=n // 2,
        n_blocks=n,
        min_epochs=max(2, size.epochs // 2),
    )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One search by one system, as its process reads it from a file."""

    data: str  # a folder with train/ and val/
    folder: str  # of the search alone, empty at first but for study.toml
    seed: int
    began: float  # seconds since 1970: when the system's process was started
    seconds: float  # of the search, from then on

    @classmethod
    def from_arguments(cls) -> Self:
        """The job whose file is the last argument of this process."""
        return cls.read(Path(sys.argv[-1]))

    @classmethod
    def read(cls, file: Path) -> Self:
        """The job that `write` wrote."""
        return cls(**json.loads(file.read_text()))

    def write(self) -> Path:
        """Into its folder."""
        file = Path(self.folder) / "job.json"
        file.write_text(json.dumps(asdict(self)))
        return file

    @property
    def seconds_left(self) -> float:
        """Until the search ends, at least 0."""
        return max(0.0, self.began + self.seconds - time.time())

    @property
    def study(self) -> Study:
        """Space and budget."""
        return spec.load(Path(self.folder) / "study.toml")

    def report(self, trial: str, point: Point, epoch: int, accuracy: float) -> None:
        """Write a report down; several processes may."""
        seconds = time.time() - self.began
        row = {"seconds": seconds, "trial": trial, "point": point.as_dict(), "epoch": epoch}
        line = json.dumps({**row, "accuracy": accuracy}) + "\n"
        file = os.open(self._reports, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)

    def reports(self) -> list[dict[str, Any]]:
        """What was reported so far, as it came."""
        if not self._reports.exists():
            return []
        return [json.loads(line) for line in self._reports.read_text().splitlines()]

    @property
    def _reports(self) -> Path:
        return Path(self.folder) / "reports.jsonl"


def limits(study: Study) -> Limits:
    """What the space needs to know of the network, without images or weights."""
    (backbone,) = study.model.backbones
    return Limits(
        n_blocks={backbone: n_blocks(backbone)},
        transferable=True,
        resolution={backbone: 224},
        plain_lr={backbone: usual_lr(backbone)},
    )


def point_of(study: Study, params: Mapping[str, Any]) -> Point:
    """The point that drawn values mean, whoever drew them."""
    return suggest(FixedTrial(dict(params)), study, limits(study))


def searched(study: Study) -> dict[str, Int | Log | Choice]:
    """The dimensions that are drawn, by name; a `Log` from `drawn_low` on."""
    return {name: d for name, d in study.search.items() if isinstance(d, Int | Log | Choice)}
