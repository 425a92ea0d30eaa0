"""The referee: trains points again with new seeds and evaluates them on images that no search has seen.

It trains with the plain script, fresh views in each epoch. A point is trained once for all systems that found
it, and its time is not counted for any of them.
"""

import json
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.plain_script import Machine, accuracy, loader, train_batches
from tlopt.spec.point import Point, seed_for
from tlopt.system.cpus import n_cores

SEEDS = 3


@dataclass(frozen=True)
class Case:
    """One point on one set of images."""

    data: Path
    point: Point

    @property
    def key(self) -> tuple[str, str]:
        """Name of the images and the point as JSON: equal for the same point on the same images."""
        return self.data.name, json.dumps(self.point.as_dict(), sort_keys=True)


def judge(case: Case, seed: int) -> float:
    """Accuracy on test/, in [0, 1], after training `case` to its end."""
    machine = Machine(n_loaders=0)
    own = seed_for("referee", seed)
    *_, (network, weights, _) = train_batches(case.data, case.point, machine, own)
    return accuracy(network, loader(case.data / "test", weights, case.point, machine, train=False), machine)


def referee(cases: Iterable[Case], file: Path) -> dict[tuple[str, str], list[float]]:
    """Accuracies of each case by its key, over `SEEDS` seeds; known ones are in `file`, others are added."""
    wanted = [(case, seed) for case in {case.key: case for case in cases}.values() for seed in range(SEEDS)]
    known = _read(file)
    left = [(case, seed) for case, seed in wanted if (case.key, seed) not in known]
    context = multiprocessing.get_context("spawn")
    with (
        file.open("a") as out,
        ProcessPoolExecutor(n_cores(), context, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        running = [(case, seed, pool.submit(judge, case, seed)) for case, seed in left]
        for number, (case, seed, future) in enumerate(running, 1):
            known[case.key, seed] = future.result()
            out.write(json.dumps(_row(case, seed, known[case.key, seed])) + "\n")
            out.flush()
            if number % 10 == 0:
                print(f"referee: {number} of {len(running)}", flush=True)
    return {case.key: [known[case.key, seed] for seed in range(SEEDS)] for case, _ in wanted}


def _row(case: Case, seed: int, found: float) -> dict[str, Any]:
    return {"data": case.key[0], "point": case.key[1], "seed": seed, "accuracy": found}


def _read(file: Path) -> dict[tuple[tuple[str, str], int], float]:
    if not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {(_key(row), row["seed"]): row["accuracy"] for row in rows}


def _key(row: dict[str, Any]) -> tuple[str, str]:
    point = Point.from_dict(json.loads(row["point"]))  # fills in keys that are newer than the file
    return Case(Path(row["data"]), point).key


def judgements(file: Path) -> dict[tuple[str, str], list[float]]:
    """Accuracies in `file` by the key of the case, one per seed."""
    found: dict[tuple[str, str], list[float]] = {}
    for (key, _), share in _read(file).items():
        found.setdefault(key, []).append(share)
    return found
