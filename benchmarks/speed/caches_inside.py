"""Memory of a worker, measured in its own process: with filled caches, and from trial to trial.

    python -m benchmarks.speed.caches_inside fill FOLDER/study.toml
    python -m benchmarks.speed.caches_inside flat FOLDER/study.toml --trials 20 50 100 150 200

Started by `benchmarks.speed.caches`, with TLOPT_CACHE and TLOPT_STORAGE in the environment. Prints JSON
objects. `fill` reads every kept block's outputs in every view, twice. `flat` is one warm worker whose budget
grows between measurements, which does not change the study.
"""

import argparse
import ctypes
import gc
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tlopt.app.handle import open_session
from tlopt.app.serve import make_ready, run_studies
from tlopt.data.batches import CENTER_CROP, View
from tlopt.search.space import resolve
from tlopt.training.devices import configure_process
from tlopt.trial.workspace import Workspace
from tlopt.worker.shutdown import Interrupt


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """Memory of a process in MB: `rss` resident, `pss` proportional, `own` private, `shared`."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kb = {name: int(value) for name, value in re.findall(r"(?m)^(\w+): +(\d+) kB$", text)}
    own, shared = ((f"{kind}_Clean", f"{kind}_Dirty") for kind in ("Private", "Shared"))
    return {
        "rss": kb["Rss"] / 1e3,
        "pss": kb["Pss"] / 1e3,
        "own": sum(kb[name] for name in own) / 1e3,
        "shared": sum(kb[name] for name in shared) / 1e3,
    }


def fill(file: Path) -> dict[str, object]:
    """The blocks kept, planned MB, memory before and after two passes over all features, seconds of each."""
    configure_process(1)
    workspace = make_ready(open_session(file), device="cpu")
    facts = workspace.facts
    (backbone,) = workspace.weights
    resolution = workspace.study.search["resolution"].value  # type: ignore[union-attr]
    point = resolve({"freeze_depth": 1.0, "resolution": resolution}, backbone, 1, facts)
    run = workspace.start_run(point, seed=0, train=workspace.data.splits[0].train)
    images = workspace.images(point)
    before = memory_mb()
    store = workspace.feature_store(run, images)
    kept = sorted(store.cached_blocks) if store else []
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        for block in kept:
            for view, indices in _views(workspace, images.training_view, point):
                for at in range(0, len(indices), 64):
                    assert store is not None
                    store.outputs(run.frozen_prefix, view, indices[at : at + 64], block, indices[:0])
        seconds.append(time.perf_counter() - start)
    planned = (store.folder.path / "planned_bytes").read_text() if store else "0"
    return {
        "images": len(images.labels),
        "kept": kept,
        "planned_mb": int(planned) / 1e6,
        "before": before,
        "after": memory_mb(),
        "seconds": seconds,
    }


def _views(workspace: Workspace, training_view, point) -> Iterator[tuple[View, np.ndarray]]:  # type: ignore[no-untyped-def]
    split = workspace.data.splits[0]
    yield CENTER_CROP, split.val
    for epoch in range(workspace.study.data.views):
        yield training_view(epoch, point, 0), split.train


def looked_at() -> dict[str, float]:
    """Memory in MB and counts of this process after a garbage collection."""
    gc.collect()
    memory = memory_mb()
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator keeps is no leak
    objects = gc.get_objects()
    tensors = [found for found in objects if issubclass(type(found), torch.Tensor)]
    return {
        **memory,
        "trimmed": memory_mb()["rss"],
        "tensors": len(tensors),
        "tensor_mb": sum(tensor.nbytes for tensor in tensors) / 1e6,
        "objects": len(objects),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def flat(file: Path, budgets: list[int]) -> Iterator[dict[str, float]]:
    """Run trials up to each of `budgets`; yield the memory of the process after each."""
    session = open_session(file)
    workspace = make_ready(session, device="cpu")
    for trials in budgets:
        file.write_text(re.sub(r"(?m)^trials = \d+$", f"trials = {trials}", file.read_text()))
        session = open_session(file, store=session.store)
        grown = replace(workspace, study=session.study)  # keeps the caches that a worker keeps between trials
        run_studies([(session, grown)], stage="search", interrupt=Interrupt(), n_threads=1)
        yield {"trials": trials, **looked_at()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fill", "flat"], help="measurement")
    parser.add_argument("file", type=Path, help="a study file, with a line trials = N")
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 50, 100, 150, 200], help="of `flat`")
    args = parser.parse_args()
    for row in [fill(args.file)] if args.what == "fill" else flat(args.file, args.trials):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
