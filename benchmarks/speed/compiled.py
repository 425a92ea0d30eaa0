"""Cost of compiling training steps at the start of a trial, and its gain per epoch.

    python -m benchmarks.speed.compiled DATA/flowers5 --images 128 --repeats 5

The same trial with and without `model.compile`, alternating epoch by epoch in one process, after another
compiled trial that started with an empty compiler cache. Precision and layout are this machine's fastest.
Prints a Markdown table; epochs are medians.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.common.images import link_images
from benchmarks.common.planted_weights import plant_weights
from benchmarks.speed.epochs import Case, allocate, open_case, point_of
from tlopt.training.loop import train_epochs

SHARES = (0.0, 0.5)


def epochs(case: Case, share: float, compiles: bool) -> Iterator[float]:
    """Train; yields the seconds of each epoch."""
    point, workspace = point_of(case.workspace, share), case.workspace
    model = workspace.study.model.model_copy(update={"compile": compiles})
    own = replace(
        workspace,
        study=workspace.study.model_copy(update={"model": model}),
        numerics={point.backbone: case.chosen},
    )
    run, images = own.start_run(point, seed=0, train=case.train), own.images(point)
    start = time.perf_counter()
    for _ in train_epochs(run, images, case.train, None):
        yield time.perf_counter() - start
        start = time.perf_counter()


def measure(case: Case, share: float, repeats: int) -> dict[str, float]:
    """Seconds: compiling with an empty cache and with a filled one, an epoch with and without it."""
    cold = next(epochs(case, share, True))
    compiled, plain = epochs(case, share, True), epochs(case, share, False)
    warm = next(compiled)
    next(plain)
    pairs = [(next(compiled), next(plain)) for _ in range(repeats)]
    seconds, usual = (statistics.median(row) for row in zip(*pairs, strict=True))
    return {"cold": cold - seconds, "warm": warm - seconds, "usual": usual, "compiled": seconds}


def row(found: dict[str, float]) -> str:
    """The cells of a row."""
    gain = found["usual"] - found["compiled"]
    pays = f"{found['warm'] / gain:.0f}" if gain > 0 else "never"
    start = " | ".join(f"{found[name]:.1f}" for name in ("cold", "warm"))
    return f"{start} | {found['usual']:.3f} | {found['compiled']:.3f} | {pays} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "resnet18"])
    parser.add_argument("--images", type=int, default=128, help="training images")
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print("| backbone | frozen | compiling, s | again, s | epoch, s | compiled, s | epochs that pay |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLOPT_CACHE"] = f"{folder}/cache"
        plant_weights(Path(folder) / "torch", args.backbones)
        data = link_images(args.data, Path(folder) / "data", {"train": args.images, "val": None})
        allocate(True)
        for backbone in args.backbones:
            case = open_case(data, backbone, args.resolution)
            for share in SHARES:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/inductor-{backbone}-{share}"
                cells = row(measure(case, share, args.repeats))
                print(f"| {backbone} ({case.chosen}) | {share:.0%} | {cells}", flush=True)


if __name__ == "__main__":
    main()
