"""A search from the view of its process: job, space, reports. Shared by all systems; no torch."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from optuna.trial import FixedTrial

from benchmarks.common.study_file import FASTEST, study_text
from tlopt import spec
from tlopt.model.build import n_blocks
from tlopt.model.facts import BackboneFacts
from tlopt.model.rates import has_batch_norm, usual_lr
from tlopt.search.defaults import defaults
from tlopt.search.space import suggest
from tlopt.spec import Study
from tlopt.spec.default_names import PLAIN_LABEL
from tlopt.spec.dimensions import Choice, Int, Log
from tlopt.spec.point import Point


@dataclass(frozen=True, kw_only=True)
class Size:
    """Settings that all searches of a comparison share."""

    seconds: float  # per search, including its start
    epochs: int  # per trial, at most
    resolution: int
    backbone: str


def search_study(source: Path, seed: int, size: Size) -> str:
    """The study file of one search: as `tlopt init` writes it for so few images, but for `size`."""
    n = n_blocks(size.backbone)
    return study_text(
        "first",
        data={"source": source, "views": 8},
        model={"backbone": size.backbone, **FASTEST},
        budget={"trials": 10_000, "epochs": size.epochs},  # searches end by time, not by trials
        search={
            "resolution": size.resolution,
            "batch_size": 16,
            "transfer_depth": {"int": [n // 2, n]},
            "freeze_depth": {"int": [0, n]},
            "lr": {"log": [1e-4, 2e-2]},
            "lr_ratio": {"log": [0.03, 1.0]},
            "l2_sp": {"log": [0.5, 50.0], "zero": True},
            "augmentation": {"choice": [0.2, 0.7]},
        },
        more={"seed": seed, "pruner": {"kind": "median", "min_epochs": max(2, size.epochs // 2)}},
    )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One search by one system, passed to its process as a file.

    Attributes:
        data: Folder with train/ and val/.
        folder: Folder of this search, which contains study.toml.
        seed: Seed of the search.
        began: Start of the system's process, seconds since 1970.
        seconds: Duration of the search from then on.
    """

    data: str
    folder: str
    seed: int
    began: float
    seconds: float

    @classmethod
    def from_arguments(cls) -> Self:
        """The job in the file that is this process's last argument."""
        return cls.read(Path(sys.argv[-1]))

    @classmethod
    def read(cls, file: Path) -> Self:
        """The job in `file`, as written by `write`."""
        return cls(**json.loads(file.read_text()))

    def write(self) -> Path:
        """Write the job into its folder; returns the file."""
        file = Path(self.folder) / "job.json"
        file.write_text(json.dumps(asdict(self)))
        return file

    @property
    def seconds_left(self) -> float:
        """Seconds until the search ends, at least 0."""
        return max(0.0, self.began + self.seconds - time.time())

    @property
    def study(self) -> Study:
        """The study with space and budget."""
        return spec.load(Path(self.folder) / "study.toml")

    def report(self, trial: str, point: Point, epoch: int, accuracy: float) -> None:
        """Append a report; several processes may do so at once."""
        seconds = time.time() - self.began
        row = {"seconds": seconds, "trial": trial, "point": point.as_dict(), "epoch": epoch}
        line = json.dumps({**row, "accuracy": accuracy}) + "\n"
        file = os.open(self._reports, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)

    def reports(self) -> list[dict[str, Any]]:
        """The reports so far, in order of arrival."""
        if not self._reports.exists():
            return []
        return [json.loads(line) for line in self._reports.read_text().splitlines()]

    @property
    def _reports(self) -> Path:
        return Path(self.folder) / "reports.jsonl"


def facts(study: Study) -> BackboneFacts:
    """Facts of the network that the space depends on, without images or weights."""
    (backbone,) = study.model.backbones
    return BackboneFacts(
        n_blocks={backbone: n_blocks(backbone)},
        transferable=True,
        resolution={backbone: 224},
        batch_norm={backbone: has_batch_norm(backbone)},
        plain_lr={backbone: usual_lr(backbone)},
    )


def untuned_point(size: Size) -> Point:
    """Plain fine-tuning, the second default of every study with the space of the comparison."""
    study = spec.loads(search_study(Path("images"), 0, size), "study.toml")
    (untuned,) = defaults(study, facts(study), [PLAIN_LABEL])
    return untuned.point


def point_of(study: Study, params: Mapping[str, Any]) -> Point:
    """The point given by the drawn values `params`."""
    return suggest(FixedTrial(dict(params)), study, facts(study))


def searched(study: Study) -> dict[str, Int | Log | Choice]:
    """The dimensions that are drawn, by name."""
    return {name: d for name, d in study.search.items() if isinstance(d, Int | Log | Choice)}
