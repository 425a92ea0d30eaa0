"""Training on a GPU: images per second and GPU utilisation, in the plain script and in tlopt.

    python -m benchmarks.speed.gpu DATA/flowers5 --backbones resnet50 vit_b_16 --resolution 224

Whole epochs over train/, alternating in one process; first epochs, which choose kernels and fill caches, are
left out. The plain script has as many loader processes as there are cores. Prints a Markdown table of
medians. For trials per hour see `benchmarks.speed.whole_study --device cuda --workers 1`. `--planted` fetches
no weights; `--device cpu` is a dry run without a GPU.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from benchmarks.common.plain_script import Machine, train_batches
from benchmarks.common.planted_weights import plant_weights
from benchmarks.common.study_file import ANY_DEPTH, FASTEST, study_text
from tlopt import spec
from tlopt.search.space import resolve
from tlopt.spec.point import Point
from tlopt.system.cpus import n_cores
from tlopt.training.devices import choose_device, configure_process
from tlopt.training.loop import train_epochs
from tlopt.trial.autotune import measure_numerics
from tlopt.trial.workspace import Workspace

SHARES = (0.0, 0.5)
VIEWS = 2
WAYS = ("plain script", "plain script, bfloat16", "tlopt, streamed", "tlopt", "tlopt, kept features")


def gpu_study(source: Path, backbone: str, resolution: int, batch_size: int) -> str:
    """The study file: default values, any freeze depth, fastest numerics."""
    return study_text(
        "gpu",
        data={"source": source, "views": VIEWS},
        model={"backbone": backbone, **FASTEST},
        budget={"trials": 1, "epochs": 99},
        search={"resolution": resolution, "batch_size": batch_size, "freeze_depth": ANY_DEPTH},
    )


@dataclass
class Way:
    """One way of training: seconds per epoch, and samples of GPU utilisation in percent."""

    epochs: Iterator[object]
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def train(self, device: torch.device) -> None:
        """Train one more epoch."""
        with _busy(device) as busy:
            start = time.perf_counter()
            next(self.epochs)
            self.seconds.append(time.perf_counter() - start)
        self.busy += busy


@contextmanager
def _busy(device: torch.device) -> Iterator[list[float]]:
    """GPU utilisation in percent within the block, from nvidia-smi every 100 ms; empty on a CPU."""
    found: list[float] = []
    if device.type != "cuda":
        yield found
        return
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]
    command = ["nvidia-smi", f"--id={device.index or 0}", *query]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as looking:
        try:
            yield found
        finally:
            looking.terminate()
            found += [float(line) for line in (looking.communicate()[0] or "").split()]


def open_case(args: argparse.Namespace, backbone: str, device: torch.device) -> Workspace:
    """Images and network, with this machine's fastest numerics."""
    text = gpu_study(args.data.absolute(), backbone, args.resolution, args.batch_size)
    workspace = Workspace.open(spec.loads(text, "gpu.toml"), device)
    workspace.numerics.update(
        measure_numerics(workspace.study, workspace.weights, n_classes=workspace.n_classes, device=device)
    )
    return workspace


def begin(workspace: Workspace, data: Path, point: Point, name: str) -> Iterator[object]:
    """The training epochs of `point`, one way."""
    if name in WAYS[:2]:
        machine = Machine(n_cores(), str(workspace.device), autocast=name == WAYS[1])
        return train_batches(data, point, machine)
    train, keeps = workspace.data.splits[0].train, name == WAYS[4]
    data_keys = workspace.study.data.model_copy(update={"views": VIEWS if keeps else 0})
    study = workspace.study.model_copy(update={"data": data_keys})
    own = replace(workspace, study=study)
    run, images = own.start_run(point, seed=0, train=train), own.images(point, allow_resident=name != WAYS[2])
    return train_epochs(run, images, train, None, own.feature_store(run, images) if keeps else None)


def measure(workspace: Workspace, data: Path, share: float, args: argparse.Namespace) -> list[str]:
    """The cells of a row: images per second and GPU utilisation by way."""
    values = {"freeze_depth": share, "resolution": args.resolution, "batch_size": args.batch_size}
    point = resolve(values, workspace.study.model.backbones[0], 99, workspace.facts)
    ways = {name: Way(begin(workspace, data, point, name)) for name in WAYS}
    for _ in range(VIEWS + args.repeats):
        for way in ways.values():
            way.train(workspace.device)
    n_images = len(workspace.data.splits[0].train)
    return [
        f"{n_images / statistics.median(way.seconds[VIEWS:]):.0f}"
        + (f", {statistics.mean(way.busy):.0f} %" if way.busy else "")
        for way in ways.values()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "vit_b_16"])
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--planted", action="store_true", help="random weights instead of pretrained ones")
    args = parser.parse_args()
    device = choose_device(args.device)
    configure_process(0)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}: images per second, GPU utilisation\n")
    print("| backbone | frozen | " + " | ".join(WAYS) + " |")
    print("| --- | --- |" + " --- |" * len(WAYS))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLOPT_CACHE"] = f"{folder}/cache"
        if args.planted:
            plant_weights(Path(folder) / "torch", args.backbones)
        for backbone in args.backbones:
            workspace = open_case(args, backbone, device)
            for share in SHARES:
                cells = measure(workspace, args.data, share, args)
                numerics = workspace.numerics[backbone]
                print(f"| {backbone} ({numerics}) | {share:.0%} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
