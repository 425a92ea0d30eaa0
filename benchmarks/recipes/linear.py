"""Linear classifiers against the linear probe that gradients train, on drawn training images.

    python -m benchmarks.recipes.linear DATA/{flowers5,dtd10,signdigits}

All three see the same frozen EfficientNet-Lite0 through tlopt's own trials; test images are the same for all.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tlopt import spec
from tlopt.confirmation.interval import half_width
from tlopt.data.dataset import Split
from tlopt.data.load import test_split
from tlopt.search.defaults import defaults
from tlopt.search.space import resolve
from tlopt.spec.point import Point, seed_for
from tlopt.spec.trial_spec import TrialSpec
from tlopt.training.inference import exported_logits
from tlopt.training.metrics import compute_metrics
from tlopt.trial.execution import begin_training, training_events
from tlopt.trial.workspace import Workspace

STUDY = """
name = "linear"
[data]
source = "{source}"
[model]
backbone = "efficientnet_lite0"
[budget]
trials = 1
epochs = {epochs}
[search]
resolution = {resolution}
classifier = {{ choice = ["network", "logistic", "svm"] }}
freeze_depth = {{ int = [0, 17] }}
"""


def drawn(labels: np.ndarray[tuple[int], np.dtype[np.int64]], n: int, seed: int) -> Split:
    """`n` training images, in proportion to the classes; the others validate."""
    random = np.random.default_rng(seed_for("linear", seed))
    places = np.empty(len(labels))
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        places[own] = (random.permutation(len(own)) + 0.5) / len(own)
    order = np.argsort(places, kind="stable")
    return Split(train=np.sort(order[:n]), val=np.sort(order[n:]))


def points(workspace: Workspace) -> dict[str, Point]:
    """The three points that are compared."""
    probe = defaults(workspace.study, workspace.facts)[0].point
    linear = {
        name: resolve(
            {"classifier": name, "resolution": probe.resolution},
            probe.backbone,
            workspace.study.budget.epochs,
            workspace.facts,
        )
        for name in ("logistic", "svm")
    }
    return {"linear probe": probe, **linear}


def scores(workspace: Workspace, n_train: int, seed: int) -> dict[str, tuple[float, float, float]]:
    """Test accuracy, test log-loss and processor seconds by name, on one draw of training images."""
    split = drawn(workspace.data.labels, n_train, seed)
    workspace = replace(workspace, data=replace(workspace.data, splits=(split,)))
    held_out = test_split(workspace.study.data, seed=workspace.study.seed)
    found = {}
    for name, point in points(workspace).items():
        task = TrialSpec(point=point, seeds=(seed,), splits=(0,), label="", prunable=False)
        start = time.process_time()
        training = begin_training(task, workspace, n_micro_batches=1)
        for _ in training_events(training):
            pass
        seconds = time.process_time() - start
        images = workspace.test_images(held_out, point)
        indices = np.arange(len(held_out.labels))
        logits = exported_logits(training.runs[0].network, images, point, indices, workspace.device)
        measured = compute_metrics(logits, held_out.labels)
        found[name] = (measured.accuracy, measured.log_loss, seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--images", type=int, default=240, help="to train on")
    parser.add_argument("--epochs", type=int, default=12, help="of the linear probe")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--draws", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for source in args.data:
        text = STUDY.format(source=source, epochs=args.epochs, resolution=args.resolution)
        workspace = Workspace.open(spec.loads(text, "linear.toml"), torch.device("cpu"))
        rows = [scores(workspace, args.images, seed) for seed in range(args.draws)]
        for name in rows[0]:
            accuracy, loss, seconds = (statistics.fmean(row[name][i] for row in rows) for i in range(3))
            gains = [100 * (row[name][0] - row["linear probe"][0]) for row in rows]
            half = half_width(statistics.stdev(gains), len(gains))
            gain = f"{statistics.fmean(gains):+.1f} ± {half:.1f}"
            print(
                f"| {source.name} | {name} | {100 * accuracy:.1f} | {gain} | {loss:.3f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
