"""Learning curves of random points of one space, all trained to the end: a JSON file per data set.

    python -m benchmarks.defaults.record_curves DATA/flowers5 DATA/rsscn7 --points 40 --epochs 8

Points 0 and 1 are the linear probe and plain fine-tuning, the others random draws, the same for every set.
The validation images are divided: `val` is what a search would see after each epoch, `judge` is used once,
after the last. Test images are never read. The file is written after each point; a second start continues
it.
"""

import argparse
import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from filelock import FileLock
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from benchmarks.common.planted_weights import BUNDLED
from benchmarks.common.study_file import study_text
from tlopt import spec
from tlopt.errors import Diverged
from tlopt.search.defaults import defaults
from tlopt.search.space import suggest
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import Point, seed_for
from tlopt.training.devices import configure_process
from tlopt.training.loop import predict_logits, train_epochs
from tlopt.training.metrics import compute_metrics
from tlopt.trial.workspace import Workspace

SEARCH = {
    "resolution": 64,
    "batch_size": 16,
    "transfer_depth": {"int": [8, 17]},
    "freeze_depth": {"int": [0, 17]},
    "lr": {"log": [1e-4, 2e-2]},
    "lr_ratio": {"log": [0.03, 1.0]},
    "l2_sp": {"log": [1e-4, 1.0], "zero": True},
    "augmentation": {"uniform": [0.0, 1.0]},
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One data set with the points to run on it.

    Attributes:
        train: Indices of the training images.
        val: Indices of the images that a search would see after each epoch.
        judge: Indices of other validation images, used after the last epoch.
    """

    workspace: Workspace
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    judge: NDArray[np.int64]
    points: list[tuple[dict[str, Any], Point]]
    file: Path


def curves_study(source: Path, epochs: int, n_points: int) -> str:
    """The study file of the recording on one data set."""
    return study_text(
        "curves",
        data={"source": source},
        model={"backbone": BUNDLED},
        budget={"trials": n_points, "epochs": epochs},
        search=SEARCH,
        more={"seed": 7},
    )


def draw_points(workspace: Workspace, n_points: int) -> list[tuple[dict[str, Any], Point]]:
    """Parameters and points: probe, plain fine-tuning, `n_points - 2` random ones; the same in every call."""
    found = defaults(workspace.study, workspace.facts, [PROBE_LABEL, PLAIN_LABEL])
    known = [(default.params or {}, default.point) for default in found]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=workspace.study.seed))
    trials = [study.ask() for _ in range(n_points - len(known))]
    points = [suggest(trial, workspace.study, workspace.facts) for trial in trials]
    return [*known, *((trial.params, point) for trial, point in zip(trials, points, strict=True))]


def prepare(source: Path, folder: Path, *, n_points: int, epochs: int, n_train: int, n_val: int) -> Task:
    """The task of one data set, with `n_train` and `n_val` images in proportion to the classes."""
    study = spec.loads(curves_study(source, epochs, n_points), source.name)
    workspace = Workspace.open(study, torch.device("cpu"))
    split, labels = workspace.data.splits[0], workspace.data.labels
    train, _ = train_test_split(split.train, train_size=n_train, stratify=labels[split.train], random_state=0)
    val, judge = train_test_split(split.val, train_size=n_val, stratify=labels[split.val], random_state=0)
    file = folder / f"{source.name}.json"
    points = draw_points(workspace, n_points)
    return Task(workspace=workspace, train=train, val=val, judge=judge, points=points, file=file)


def read_or_begin(task: Task) -> dict[str, Any]:
    """The recording so far, or an empty one."""
    if task.file.exists():
        recorded: dict[str, Any] = json.loads(task.file.read_text())
        return recorded
    return {
        "data": task.file.stem,
        "classes": task.workspace.n_classes,
        "images": {"train": len(task.train), "val": len(task.val), "judge": len(task.judge)},
        "epochs": task.workspace.study.budget.epochs,
        "search": SEARCH,
        "versions": {name: version(name) for name in ("torch", "optuna", "scikit-learn")},
        "points": [],
    }


def record_point(task: Task, number: int) -> dict[str, Any]:
    """Train point `number`; if it diverges, its curve ends early and `judge` is None."""
    params, point = task.points[number]
    images = task.workspace.images(point)
    run = task.workspace.start_run(point, seed=seed_for("curves", number), train=task.train)
    row: dict[str, Any] = {"number": number, "params": params, "freeze_depth": point.freeze_depth}
    row |= {"accuracy": [], "log_loss": [], "seconds": [], "judge": None}
    try:
        for epoch in train_epochs(run, images, task.train, task.val):
            assert epoch.val is not None, "there are validation images"
            row["accuracy"].append(round(epoch.val.accuracy, 4))
            row["log_loss"].append(round(epoch.val.log_loss, 4))
            row["seconds"].append(round(epoch.seconds, 2))
    except Diverged:
        return row
    judged = compute_metrics(predict_logits(run, images, task.judge), images.labels[task.judge])
    row["judge"] = round(judged.accuracy, 4)
    return row


def record_next(task: Task, number: int) -> None:
    """Record point `number` unless the file already has it."""
    lock = FileLock(f"{task.file}.lock")
    with lock:
        if any(row["number"] == number for row in read_or_begin(task)["points"]):
            return
    row = record_point(task, number)
    with lock:
        recorded = read_or_begin(task)
        rows = sorted([*recorded["points"], row], key=lambda row: row["number"])
        lines = ",\n".join(json.dumps(row) for row in rows)
        head = json.dumps({**recorded, "points": "ROWS"}, indent=1)
        task.file.write_text(head.replace('"ROWS"', f"[\n{lines}\n]") + "\n")
    print(time.strftime("%H:%M:%S"), task.file.stem, number, row["accuracy"], row["judge"], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/ and val/")
    parser.add_argument("--points", type=int, default=40, help="points, the two defaults included")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--train", type=int, default=72, help="training images")
    parser.add_argument("--val", type=int, default=48, help="images a search would see")
    parser.add_argument("--processes", type=int, default=1, help="processes that record side by side")
    parser.add_argument("--share", type=int, default=0, help="number of this process, from 0")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "curves", help="folder")
    args = parser.parse_args()
    configure_process(1)
    args.out.mkdir(exist_ok=True)
    tasks = [
        prepare(
            source, args.out, n_points=args.points, epochs=args.epochs, n_train=args.train, n_val=args.val
        )
        for source in args.data
    ]
    for number in range(args.share, args.points, args.processes):
        for task in tasks:
            record_next(task, number)


if __name__ == "__main__":
    main()
