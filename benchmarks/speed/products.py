"""Training epochs with convolutions of few positions as products of matrices, and as oneDNN has them.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.products DATA/trash6

Processor time of epochs in bfloat16 on one thread; each point trains two epochs with and two without, in
turns, the first of which is not counted. Views and features of frozen blocks are kept before. Networks other
than the bundled one have random weights.
"""

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common.images import link_images
from benchmarks.common.planted_weights import BUNDLED, plant_weights
from benchmarks.common.study_file import ANY_DEPTH, study_text
from tlopt import spec
from tlopt.search.defaults import defaults
from tlopt.spec.default_names import PLAIN_LABEL
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import TrialSpec
from tlopt.training import kernels
from tlopt.training.devices import configure_process
from tlopt.training.loop import Epoch
from tlopt.trial.execution import begin_training, training_events
from tlopt.trial.workspace import Workspace

SHARES = (0.0, 0.5, 0.75, 0.9)  # of the blocks, frozen
LIMITS = ("_POSITIONS_MAX", "_POSITIONS_PER_CHANNEL")


def opened(source: Path, backbone: str, args: argparse.Namespace) -> Workspace:
    """The images and weights of a study in bfloat16, channels last."""
    text = study_text(
        "products",
        data={"source": source, "views": 1},
        model={"backbone": backbone, "precision": "bfloat16", "layout": "channels_last"},
        budget={"trials": 1, "epochs": 2},
        search={"resolution": args.resolution, "batch_size": args.batch_size, "freeze_depth": ANY_DEPTH},
    )
    workspace = Workspace.open(spec.loads(text, "products.toml"), torch.device("cpu"))
    workspace.use_numerics({backbone: "bfloat16 channels_last"})
    return workspace


def second_epoch(workspace: Workspace, point: Point) -> float:
    """Seconds of processor time of the second epoch."""
    task = TrialSpec(point=point, seeds=(1,), splits=(0,), label="", prunable=False)
    start = ended = 0.0
    for event in training_events(begin_training(task, workspace, n_micro_batches=1)):
        if isinstance(event, Epoch):
            start, ended = ended, time.process_time()
    return ended - start


def measured(workspace: Workspace, share: float, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of epochs with products and without, measured in turns."""
    (plain,) = defaults(workspace.study, workspace.facts, [PLAIN_LABEL])
    (n_blocks,) = workspace.facts.n_blocks.values()
    point = replace(plain.point, freeze_depth=round(share * n_blocks))
    limits = {name: getattr(kernels, name) for name in LIMITS}
    with_products, without = list[float](), list[float]()
    for _ in range(repeats):
        for times, on in ((with_products, 1), (without, 0)):
            for name, value in limits.items():
                setattr(kernels, name, on * value)
            times.append(second_epoch(workspace, point))
    for name, value in limits.items():
        setattr(kernels, name, value)
    return with_products, without


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "resnet50", BUNDLED])
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=128, help="to train on; half as many validate")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    configure_process(1)
    print("| network | frozen | epoch, s | with products, s | times faster (least, greatest) |")
    print("| --- " * 5 + "|")
    with tempfile.TemporaryDirectory() as name:
        plant_weights(Path(name) / "torch", args.backbones)
        os.environ["TLOPT_CACHE"] = str(Path(name) / "cache")
        counts = {"train": args.images, "val": args.images // 2, "test": 10}
        source = link_images(args.data, Path(name) / "images", counts)
        for backbone in args.backbones:
            workspace = opened(source, backbone, args)
            for share in SHARES:
                fast, usual = measured(workspace, share, args.repeats)
                ratios = [b / a for a, b in zip(fast, usual, strict=True)]
                middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
                times = f"{statistics.median(usual):.2f} | {statistics.median(fast):.2f}"
                cells = f"{times} | {middle:.2f} ({least:.2f} to {most:.2f})"
                print(f"| {backbone} | {share:.0%} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
