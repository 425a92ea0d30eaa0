"""The time of a training step on a busy machine, with threads that spin or sleep while they wait.

    python -m benchmarks.speed.busy

Other processes compute without a pause, none to one per core. Both kinds of waiting take turns, each in a
process of its own, since OpenMP reads its settings once. Prints a Markdown table.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

SPINS: Mapping[str, str] = {}  # as OpenMP does by default
SLEEPS = {"OMP_WAIT_POLICY": "passive"}
WARM_UP_STEPS = 2


@contextmanager
def others(n: int) -> Iterator[None]:
    """`n` processes that compute until the block ends."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def seconds_per_step(setting: Mapping[str, str], args: argparse.Namespace) -> float:
    """Seconds of a step in a process of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    child = [
        "-m",
        "benchmarks.speed.busy",
        "--child",
        "--backbone",
        args.backbone,
        "--threads",
        str(args.threads),
    ]
    command = [sys.executable, *child, "--seconds", str(args.seconds)]
    return float(subprocess.check_output(command, env=environment | dict(setting), text=True))


def train(backbone: str, n_threads: int, seconds: float) -> float:
    """Train on random images; returns the seconds of a step."""
    import torch

    from tlopt.model.build import untrained_network
    from tlopt.model.weights import load_weights

    torch.set_num_threads(n_threads)
    network = untrained_network(load_weights(backbone, "none"), 64, seed=0).net.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    images, labels = torch.rand(16, 3, 64, 64), torch.randint(0, 2, (16,))
    n_steps, begin = -WARM_UP_STEPS, 0.0
    while n_steps < 1 or time.perf_counter() - begin < seconds:
        if n_steps == 0:
            begin = time.perf_counter()
        optimizer.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(network(images), labels))
        optimizer.step()
        n_steps += 1
    return (time.perf_counter() - begin) / n_steps


def row(n_others: int, spinning: Sequence[float], sleeping: Sequence[float]) -> str:
    """The row of a table: medians, and the ratio of each round's pair."""
    ratios = [a / b for a, b in zip(spinning, sleeping, strict=True)]
    milliseconds = " | ".join(f"{1e3 * statistics.median(each):.0f}" for each in (spinning, sleeping))
    ratio = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
    return f"| {n_others} | {milliseconds} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(train(args.backbone, args.threads, args.seconds))
        return
    print(
        "| other processes | spinning, ms | sleeping, ms | spinning / sleeping |\n| --: | --: | --: | --: |"
    )
    for n_others in range((os.cpu_count() or 1) + 1):
        with others(n_others):
            pairs = [[seconds_per_step(each, args) for each in (SPINS, SLEEPS)] for _ in range(args.rounds)]
        print(row(n_others, [pair[0] for pair in pairs], [pair[1] for pair in pairs]), flush=True)


if __name__ == "__main__":
    main()
