"""Accuracy lost by a fixed number of views: the same runs with new views in each epoch and with fixed ones.

    python -m benchmarks.defaults.views DATA/flowers5 DATA/trash6 --epochs 12 --seeds 5

Plain fine-tuning and a network with its lower half frozen, on 150 training images; accuracy on all validation
images after the last epoch, paired by seed. Prints a Markdown table.
"""

import argparse
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common.images import link_images
from benchmarks.common.planted_weights import BUNDLED
from benchmarks.common.study_file import ANY_DEPTH, study_text
from tlopt import spec
from tlopt.search.space import resolve
from tlopt.spec.point import Point, seed_for
from tlopt.training.devices import configure_process
from tlopt.training.loop import train_epochs
from tlopt.trial.workspace import Workspace

VIEWS = (0, 1, 2, 4, 8)


def views_study(source: Path, backbone: str, epochs: int) -> str:
    """The study file: any freeze depth."""
    return study_text(
        "views",
        data={"source": source},
        model={"backbone": backbone},
        budget={"trials": 1, "epochs": epochs},
        search={"resolution": 64, "batch_size": 16, "freeze_depth": ANY_DEPTH},
    )


def accuracy(workspace: Workspace, point: Point, n_views: int, seed: int) -> float:
    """Validation accuracy, in [0, 1], of one run after its last epoch."""
    data = workspace.study.data.model_copy(update={"views": n_views})
    # other views for each seed: the number of views is measured, not their choice
    study = workspace.study.model_copy(update={"data": data, "seed": seed})
    own = replace(workspace, study=study)
    split, images = own.data.splits[0], own.images(point)
    run = own.start_run(point, seed=seed_for("views", seed), train=split.train)
    *_, last = train_epochs(run, images, split.train, split.val, own.feature_store(run, images))
    assert last.val is not None, "there are validation images"
    return last.val.accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/ and val/")
    parser.add_argument("--backbone", default=BUNDLED)
    parser.add_argument("--images", type=int, default=150, help="training images")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    configure_process(0)
    print(
        "| images | frozen | new views, % | "
        + " | ".join(f"{n} view{'s' if n > 1 else ''}" for n in VIEWS[1:])
        + " |"
    )
    print("| --- | --- | --- |" + " --- |" * len(VIEWS[1:]))
    for source in args.data:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TLOPT_CACHE"] = f"{folder}/cache"
            data = link_images(source, Path(folder) / "data", {"train": args.images, "val": None})
            text = views_study(data, args.backbone, args.epochs)
            workspace = Workspace.open(spec.loads(text, "views.toml"), torch.device("cpu"))
            for share in (0.0, 0.5):
                values = {"freeze_depth": share, "resolution": 64, "batch_size": 16}
                point = resolve(values, args.backbone, args.epochs, workspace.facts)
                found = {
                    n: [100 * accuracy(workspace, point, n, seed) for seed in range(args.seeds)]
                    for n in VIEWS
                }
                cells = [_difference(found[n], found[0]) for n in VIEWS[1:]]
                mean = statistics.mean(found[0])
                print(f"| {source.name} | {share:.0%} | {mean:.1f} | " + " | ".join(cells) + " |", flush=True)


def _difference(these: list[float], those: list[float]) -> str:
    """Mean of the paired differences and its standard error."""
    rows = [a - b for a, b in zip(these, those, strict=True)]
    return f"{statistics.mean(rows):+.1f} ± {statistics.stdev(rows) / len(rows) ** 0.5:.1f}"


if __name__ == "__main__":
    main()
