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

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.plain_script import Machine, hits, loader, train_batches
from tlopt.spec.point import Point, seed_for
from tlopt.system.cpus import n_cores

SEEDS = 3  # of points that searches end with, and of untuned ones

Key = tuple[str, str]


@dataclass(frozen=True)
class Case:
    """One point on one set of images."""

    data: Path
    point: Point

    @property
    def key(self) -> Key:
        """Name of the images and the point as JSON: equal for the same point on the same images."""
        return self.data.name, json.dumps(self.point.as_dict(), sort_keys=True)


def judge(case: Case, seed: int) -> NDArray[np.bool_]:
    """Whether each image of test/ is classified correctly after training `case` to its end."""
    machine = Machine(n_loaders=0)
    own = seed_for("referee", seed)
    *_, (network, weights, _) = train_batches(case.data, case.point, machine, own)
    return hits(network, loader(case.data / "test", weights, case.point, machine, train=False), machine)


def referee(cases: Iterable[tuple[Case, int]], file: Path) -> None:
    """Judge each case with as many seeds as are given; known ones are in `file`, others are added to it."""
    seeds: dict[Key, int] = {}
    by_key: dict[Key, Case] = {}
    for case, n_seeds in cases:
        by_key.setdefault(case.key, case)
        seeds[case.key] = max(n_seeds, seeds.get(case.key, 0))
    known = {(_key(row), row["seed"]) for row in _rows(file)}
    left = [(by_key[key], seed) for key, n in seeds.items() for seed in range(n) if (key, seed) not in known]
    context = multiprocessing.get_context("spawn")
    with (
        file.open("a") as out,
        ProcessPoolExecutor(n_cores(), context, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        running = [(case, seed, pool.submit(judge, case, seed)) for case, seed in left]
        for number, (case, seed, future) in enumerate(running, 1):
            out.write(json.dumps(_row(case, seed, future.result())) + "\n")
            out.flush()
            if number % 10 == 0:
                print(f"referee: {number} of {len(running)}", flush=True)


def _row(case: Case, seed: int, found: NDArray[np.bool_]) -> dict[str, Any]:
    halves = [float(found[start::2].mean()) for start in (0, 1)]  # each has every class
    own = {"data": case.key[0], "point": case.key[1], "seed": seed}
    return own | {"accuracy": float(found.mean()), "halves": halves}


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _key(row: dict[str, Any]) -> Key:
    point = Point.from_dict(json.loads(row["point"]))  # fills in keys that are newer than the file
    return Case(Path(row["data"]), point).key


def judgements(file: Path) -> dict[Key, list[float]]:
    """Accuracies in `file` by the key of the case, one per seed."""
    found: dict[Key, list[float]] = {}
    for row in _rows(file):
        found.setdefault(_key(row), []).append(row["accuracy"])
    return found


def half_judgements(file: Path) -> dict[Key, tuple[float, float]]:
    """Mean accuracies over the seeds on each half of the images, by the key of the case."""
    found: dict[Key, list[list[float]]] = {}
    for row in _rows(file):
        found.setdefault(_key(row), []).append(row["halves"])
    return {key: tuple(np.mean(rows, axis=0).tolist()) for key, rows in found.items()}
