"""A search from the view of its process: job, space, reports. Shared by all systems; no torch."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import tomlkit

from tlopt import spec
from tlopt.model.build import n_blocks
from tlopt.model.facts import BackboneFacts
from tlopt.model.rates import has_batch_norm, usual_lr
from tlopt.search.defaults import defaults
from tlopt.search.space import decode_params, encode_point, resolve
from tlopt.spec import Study
from tlopt.spec.default_names import KEPT_LABEL, PLAIN_LABEL
from tlopt.spec.dimensions import Choice, Int, Log
from tlopt.spec.point import Point

LINEAR_DRAW = "linear_draw"  # 0: logistic regression, 1: a linear SVM, others: a network
LINEAR_DRAWS = 10  # so that a tenth of the draws are each of both: they have nothing to search
UNTUNED = (PLAIN_LABEL, KEPT_LABEL)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Settings that all searches of a comparison share."""

    seconds: float  # per search on one core, including its start
    epochs: int  # per trial, at most
    resolution: int
    backbone: str


def study_of(proposed: str, seed: int) -> str:
    """The study file of one search, from the file that `tlopt init` proposed for the images.

    Objective, class weights and mirroring are the same for all sets, so that accuracies are of one kind and
    the referee trains as the searches did. All images are used.
    """
    document: dict[str, Any] = tomlkit.parse(proposed)
    document |= {"name": "search", "seed": seed, "objective": "accuracy"}
    document["data"]["flip"] = True
    document["data"].pop("images_max", None)
    document["search"].pop("class_weights", None)
    return tomlkit.dumps(document)


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


def untuned_points(study: Study) -> dict[str, Point]:
    """Plain fine-tuning and, for networks with batch norm, fine-tuning with kept statistics, by label."""
    return {default.label: default.point for default in defaults(study, facts(study), UNTUNED)}


def searched(study: Study) -> dict[str, Int | Log | Choice]:
    """The dimensions that other systems draw, by name.

    They are the study's. Where linear classifiers are among them, `LINEAR_DRAW` takes the place of the
    choice: of its three options, random draws would take a network in a third of the trials only.
    """
    own: dict[str, Int | Log | Choice] = {
        name: each for name, each in study.search.items() if isinstance(each, Int | Log | Choice)
    }
    linear = {LINEAR_DRAW: Int(0, LINEAR_DRAWS - 1)} if own.pop("classifier", None) else {}
    return {**own, **linear}


def point_of(study: Study, params: Mapping[str, Any]) -> Point:
    """The point given by the drawn values `params` of the dimensions in `searched`."""
    own = facts(study)
    kind = {0: "logistic", 1: "svm"}.get(int(params.get(LINEAR_DRAW, LINEAR_DRAWS - 1)))
    if kind is not None:
        (backbone,) = study.model.backbones
        values = {"classifier": kind, "resolution": _fixed(study, "resolution")}
        return resolve(values, backbone, study.budget.epochs, own)
    return decode_params({**params, "classifier": "network"}, study, own)


def _fixed(study: Study, name: str) -> Any:
    return getattr(study.search[name], "value")  # noqa: B009


def user_prior(study: Study) -> dict[str, Any]:
    """Drawn values of fine-tuning with kept statistics, or plain fine-tuning: what a user would expect."""
    *_, expected = untuned_points(study).values()
    params = encode_point(replace(expected, classifier="network"), study, facts(study))
    if params is None:
        raise SystemExit("the proposed space has no point of fine-tuning, which priors are taken from")
    own = {name: params[name] for name in searched(study) if name in params}
    return own | ({LINEAR_DRAW: LINEAR_DRAWS // 2} if LINEAR_DRAW in searched(study) else {})
