"""Studies of several objectives with the service's pruner and without, of the same seed and name.

python -m benchmarks.front.live DATA OUT --seeds 1 2 --samplers random tpe

Each has one worker and a database of its own in the folder OUT; studies that have ended are not repeated.
With the sampler "random", both studies of a pair draw the same points.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.front.tried import CHANCE, interval
from tlopt.app import workflow
from tlopt.app.handle import open_session
from tlopt.search.front import hypervolume
from tlopt.spec.objectives import Row, front_of
from tlopt.storage.attributes import curve_of, records_of
from tlopt.storage.studies import service_of
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.trial.workspace import Workspace
from tlopt.worker.claim import StudyWork
from tlopt.worker.loop import run_worker
from tlopt.worker.shutdown import Interrupt

SETS = ("dtd10", "fashion10", "flowers5", "rsscn7", "signdigits", "trash6")
RECORD = Path(__file__).with_name("live.jsonl")
SEARCHES = {
    "head": "freeze_depth = 1.0\nhead_dropout = { choice = [0.0, 0.3] }",
    "upper": "freeze_depth = { choice = [0.8, 0.9, 1.0] }\nlr_ratio = { log = [0.1, 1.0] }",
}
STUDY = """name = "{name}"
seed = {seed}
objectives = ["accuracy", "multiply_adds"]
[data]
source = "{source}"
images_max = 600
views = 2
repeats = 1
[model]
backbone = "efficientnet_lite0"
[budget]
trials = {trials}
epochs = {epochs}
[search]
resolution = {{ choice = [32, 48, 64] }}
lr = {{ log = [1e-5, 1e-1] }}
l2 = {{ log = [1e-5, 1e-1] }}
batch_size = 32
{search}
[sampler]
kind = "{sampler}"
[pruner]
kind = "{pruner}"
"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A study but for its pruner."""

    search: str  # one of `SEARCHES`
    data: str
    sampler: str
    seed: int
    trials: int
    epochs: int

    @property
    def name(self) -> str:
        """The study's name, from which points are drawn."""
        return f"{self.search}-{self.data}-{self.sampler}-{self.seed}-{self.trials}-{self.epochs}"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What one study has found."""

    epochs: int
    trials: int
    complete: dict[int, tuple[float, ...]]  # values by number


def run(
    kind: Kind, pruner: str, data: Path, out: Path, workspaces: dict[tuple[str, int], Workspace]
) -> Ended:
    """Run the study to its end by one worker in this process, in a folder that is its own."""
    folder = out / kind.name / pruner
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "study.toml"
    file.write_text(
        STUDY.format(
            name=kind.name,
            seed=kind.seed,
            source=(data / kind.data).resolve(),
            trials=kind.trials,
            epochs=kind.epochs,
            search=SEARCHES[kind.search],
            sampler=kind.sampler,
            pruner=pruner,
        )
    )
    session = open_session(file, storage_url=f"sqlite:///{folder}/studies.db", runs=folder / "runs")
    if (kind.data, kind.seed) not in workspaces:
        workspaces[kind.data, kind.seed] = workflow.prepare(session)
    workspace = workspaces[kind.data, kind.seed]  # images and features of frozen blocks are read once
    opened, plan = workflow.begin(session, workspace, n_threads=1)
    work = StudyWork(
        optuna_study=opened,
        plan=plan,
        workspace=workspace,
        folders=session.folders,
        service=session.study.service,
        checkpoints=CheckpointStore(str(folder / "checkpoints")),
    )
    run_worker([work], service_of(session.store), Interrupt())
    return Ended(
        epochs=sum(len(curve_of(trial)) for trial in opened.get_trials()),
        trials=len(opened.get_trials()),
        complete={row.number: tuple(row.values) for row in records_of(opened) if row.has_value},
    )


def compared(kind: Kind, whole: Ended, pruned: Ended) -> dict[str, Any]:
    """One line of the record."""
    ends = [_minimised(values) for values in whole.complete.values()]
    found = [_minimised(values) for values in pruned.complete.values()]
    worst = (-1 / CHANCE[kind.data], 1.1 * max(row[1] for row in (*ends, *found)))
    numbers = list(whole.complete)
    front = [numbers[i] for i in front_of(ends)]
    return asdict(kind) | {
        "whole_epochs": whole.epochs,
        "pruned_epochs": pruned.epochs,
        "complete": len(pruned.complete),
        "lost": round(1 - hypervolume(found, worst) / hypervolume(ends, worst), 5),
        "front": len(front),
        "front_lost": sum(n not in pruned.complete for n in front) if kind.sampler == "random" else None,
    }


def _minimised(values: Row) -> tuple[float, ...]:
    return (-values[0], *values[1:])


def table(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A row for each kind of study: means over sets of means over seeds, with 95 % intervals over sets."""
    yield "| search | sampler | studies | epochs | hypervolume lost | worst | front points lost |"
    yield "| --- | --- | --: | --: | --: | --: | --: |"
    groups = sorted({tuple(line[key] for key in _GROUP) for line in lines})
    for group in groups:
        own = [line for line in lines if tuple(line[key] for key in _GROUP) == group]
        search, sampler, trials, epochs = group
        shares = _by_set(own, lambda line: line["pruned_epochs"] / line["whole_epochs"])
        lost = _by_set(own, lambda line: 100 * line["lost"])
        points = [line for line in own if line["front_lost"] is not None]
        low, high = (1 / (fmean(shares) + sign * interval(shares)) for sign in (1, -1))
        yield (
            f"| {search}, {trials} trials of {epochs} epochs | {sampler} | {len(own)} on {len(lost)} sets"
            f" | 1/{1 / fmean(shares):.2f} ({low:.2f} to {high:.2f})"
            f" | {fmean(lost):.2f} ± {interval(lost):.2f} %"
            f" | {max(100 * line['lost'] for line in own):.1f} %"
            f" | {_sum(points, 'front_lost')} of {_sum(points, 'front')} |"
        )


_GROUP = ("search", "sampler", "trials", "epochs")


def _by_set(lines: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> list[float]:
    """The mean over the seeds of each set."""
    sets = sorted({line["data"] for line in lines})
    return [fmean(of(line) for line in lines if line["data"] == name) for name in sets]


def _sum(lines: Sequence[dict[str, Any]], key: str) -> int:
    return sum(line[key] for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "data", type=Path, nargs="?", help="folder of folders of images; none: only the table"
    )
    parser.add_argument("out", type=Path, nargs="?", help="folder for studies")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS, help="folders of images")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2], help="seeds of the studies")
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"], help="kinds of samplers")
    parser.add_argument("--search", default="head", choices=SEARCHES, help="what is trained")
    parser.add_argument("--trials", type=int, default=40, help="number of trials")
    parser.add_argument("--epochs", type=int, default=16, help="epochs of a trial")
    parser.add_argument("--record", type=Path, default=RECORD, help="file of lines that are added to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    workspaces = dict[tuple[str, int], Workspace]()
    sets = given.sets if given.data else ()
    for seed, name, sampler in itertools.product(given.seeds, sets, given.samplers):
        kind = Kind(
            search=given.search,
            data=name,
            sampler=sampler,
            seed=seed,
            trials=given.trials,
            epochs=given.epochs,
        )
        whole, pruned = (run(kind, each, given.data, given.out, workspaces) for each in ("none", "front"))
        line = compared(kind, whole, pruned)
        with given.record.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
    print("\n".join(table([json.loads(line) for line in given.record.read_text().splitlines()])))


if __name__ == "__main__":
    main()
