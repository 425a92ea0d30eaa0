"""The best of the first five trials that tlopt proposes against 30 trials of TPE without what tlopt knows.

    export OMP_NUM_THREADS=1
    python -m benchmarks.proof.first_five DATA --out first_five.jsonl --work /tmp/first_five

Eight sets: the seven of `benchmarks.proof.run`, and four kinds of tops of fashion10 with 48 training images.
On each draw of images, with the study file that `tlopt init` writes:

- *First five*: the points that its search tries first, two linear classifiers, linear probe, partly frozen
  network and kept statistics, each trained with the three seeds of a confirmation. Chosen is, as by a
  confirmation, the preferred default unless the best mean on validation is better at the odds.
- *TPE*: Optuna's with its own defaults, 30 trials over the same ranges, none pruned, none given, a tenth of
  the random draws each of both linear classifiers. Chosen is the best last validation accuracy, then
  log-loss. In a second pass over all sets, the best mean of three further seeds among the best three points.
- *Referee*: the plain script trains each chosen point with three seeds that no search used, and judges it on
  images that none has seen.

Adds a JSON line for each finished draw and part and skips those that the file contains. `five_report` makes
the tables.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import tomlkit
import torch

import tlopt
from benchmarks.common.images import link_drawn
from benchmarks.peers.job import point_of, searched
from benchmarks.peers.referee import SEEDS, Case, judge
from benchmarks.peers.with_optuna import drawn
from tlopt import spec
from tlopt.confirmation.evidence import PREFERRED_DEFAULT, Lead, odds_min, std_error_of_lead
from tlopt.errors import Diverged
from tlopt.search.defaults import defaults, initial_points
from tlopt.search.plan import confirm_seed
from tlopt.search.space import decode_params
from tlopt.spec.point import Point, seed_for
from tlopt.spec.trial_spec import TrialSpec
from tlopt.trial.execution import train_to_end
from tlopt.trial.workspace import Workspace

N_FIRST, N_TPE, N_CONFIRMED, N_SEEDS = 5, 30, 3, 3
FIVE, TPE, CONFIRMED = "first five", "TPE", "TPE confirmed"
REFEREE, REFEREE_CONFIRMED = "referee", "referee of TPE confirmed"
PASSES = ((FIVE, TPE, REFEREE), (CONFIRMED, REFEREE_CONFIRMED))
# by referee: each choice that it judges, and the part that made it
JUDGED = {REFEREE: {"five": FIVE, "last": TPE}, REFEREE_CONFIRMED: {"confirmed": CONFIRMED}}
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images of one set; `classes` of its folder, none: all."""

    name: str
    folder: str
    n_train: int = 72
    n_val: int = 64
    n_test: int = 400
    classes: tuple[str, ...] = ()


TOPS = ("coat", "pullover", "shirt", "tshirt")
NAMES = ("dtd10", "fashion10", "flowers5", "rsscn7", "signdigits", "trash6", "emoji_g2t")
SETS = (
    *(
        ImageSet(name=n, folder=n)
        for n in ("dtd10", "fashion10", "flowers5", "rsscn7", "signdigits", "trash6")
    ),
    ImageSet(name="emoji_g2t", folder="emoji_g2t"),
    ImageSet(name="tops", folder="fashion10", n_train=48, classes=TOPS),
)


def link_set(each: ImageSet, data: Path, work: Path, seed: int) -> Path:
    """A draw of the set's images: a folder of links."""
    source = data / each.folder
    if each.classes:
        source = work / f"{each.name}-classes"
        for split, name in itertools.product(("train", "val", "test"), each.classes):
            link = source / split / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to((data / each.folder / split / name).absolute())
    counts = {"train": each.n_train, "val": each.n_val, "test": each.n_test}
    return link_drawn(source, work / f"{each.name}-{seed}" / "images", counts, seed)


def proposed(images: Path, folder: Path, args: argparse.Namespace) -> str:
    """The file that `tlopt init` writes, written once.

    Objective, class weights and mirroring are the same for all sets, as the plain script has them, and
    numerics the same on all machines.
    """
    file = folder / "proposed.toml"
    if not file.exists():
        proposal = tlopt.init(images, trials=N_TPE, epochs=args.epochs, resolution=args.resolution)
        document: Row = tomlkit.parse(proposal.text) | {"objective": "accuracy"}
        document["data"]["flip"] = True
        document["model"] |= {"precision": "float32", "layout": "usual"}
        document["search"].pop("class_weights", None)
        file.write_text(tomlkit.dumps(document))
    return file.read_text()


def five_row(workspace: Workspace) -> Row:
    """Values of the points that a search tries first, with a confirmation's seeds, and their best mean."""
    study, facts = workspace.study, workspace.facts
    known = [each.params for each in defaults(study, facts) if each.params is not None]
    first = initial_points(study, facts, known)[:N_FIRST]
    points = [decode_params(params, study, facts) for params in first]
    seeds = [confirm_seed(study, replicate) for replicate in range(N_SEEDS)]
    runs = [[train(workspace, point, seed) for seed in seeds] for point in points]
    named = {each.point: each.label for each in defaults(study, facts)}
    labels = [named.get(point, point.classifier) for point in points]
    best = of_defaults(labels, runs, len(workspace.data.splits[0].val))
    return {
        "five": {"point": points[best].as_dict(), "label": labels[best]},
        "labels": labels,
        "values": [[accuracy for accuracy, _ in each] for each in runs],
        "five_epochs": (1 + N_SEEDS) * sum(map(_epochs, points)),
    }


def best_mean(runs: Sequence[Sequence[tuple[float, float]]]) -> int:
    """Index of the point with the best mean accuracy, then mean log-loss."""
    return max(range(len(runs)), key=lambda k: tuple(map(statistics.fmean, zip(*runs[k], strict=True))))


def of_defaults(labels: Sequence[str], runs: Sequence[Sequence[tuple[float, float]]], n_val: int) -> int:
    """Index of the default that a confirmation on `n_val` images chooses."""
    strongest, preferred = best_mean(runs), labels.index(PREFERRED_DEFAULT)
    values = [[accuracy for accuracy, _ in each] for each in runs]
    lead = Lead(
        point=labels[strongest],
        over=labels[preferred],
        mean=statistics.fmean(values[strongest]) - statistics.fmean(values[preferred]),
        std_error=std_error_of_lead(values, "accuracy", n_val),
    )
    return strongest if lead.odds >= odds_min(n_val, others=False) else preferred


def _epochs(point: Point) -> int:
    return 1 if point.is_linear else point.epochs


def train(workspace: Workspace, point: Point, seed: int) -> tuple[float, float]:
    """Validation accuracy and negative log-loss of a point after its last epoch; the worst if it diverged."""
    spec = TrialSpec(point=point, seeds=(seed,), splits=(0,), label="", prunable=False)
    try:
        val = train_to_end(spec, workspace)[-1].val
    except Diverged:
        return 0.0, -100.0
    assert val is not None
    return round(val.accuracy, 9), -val.log_loss


def tpe_row(workspace: Workspace, seed: int) -> Row:
    """30 trials of plain TPE over the ranges of tlopt's study, and three seeds of its best three points."""
    study = workspace.study
    scores: list[tuple[float, float]] = []
    points: list[Point] = []

    def objective(trial: optuna.Trial) -> float:
        params = {name: drawn(trial, name, dimension) for name, dimension in searched(study).items()}
        points.append(point_of(study, params))
        scores.append(train(workspace, points[-1], seed_for(seed, "TPE", trial.number)))
        return scores[-1][0]

    sampler = optuna.samplers.TPESampler(seed=seed)
    optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, n_trials=N_TPE)
    order = sorted(range(N_TPE), key=lambda k: scores[k], reverse=True)
    best = list(dict.fromkeys(points[k] for k in order))[:N_CONFIRMED]
    return {
        "last": {"point": best[0].as_dict()},
        "best": [point.as_dict() for point in best],
        "values": [accuracy for accuracy, _ in scores],
        "last_epochs": sum(map(_epochs, points)),
    }


def confirmed_row(workspace: Workspace, seed: int, tpe: Row) -> Row:
    """Three seeds of the best three points of TPE."""
    best = [Point.from_dict(each) for each in tpe["best"]]
    seeds = [seed_for(seed, "TPE confirmed", replicate) for replicate in range(N_SEEDS)]
    runs = [[train(workspace, point, own) for own in seeds] for point in best]
    return {
        "confirmed": {"point": best[best_mean(runs)].as_dict()},
        "confirmed_epochs": tpe["last_epochs"] + N_SEEDS * sum(map(_epochs, best)),
    }


def referee_row(images: Path, chosen: Mapping[str, Row]) -> Row:
    """Accuracies on test images of the chosen points, one per seed, by who chose them."""
    by_point: dict[str, list[float]] = {}
    found: Row = {}
    for name, values in chosen.items():
        case = Case(images, Point.from_dict(values))
        if case.key[1] not in by_point:
            by_point[case.key[1]] = [float(judge(case, seed).mean()) for seed in range(SEEDS)]
        found[name] = by_point[case.key[1]]
    return found


def finished(out: Path) -> dict[tuple[str, int], dict[str, Row]]:
    """The lines in `out` by set and seed, then by part."""
    found: dict[tuple[str, int], dict[str, Row]] = {}
    for line in out.read_text().splitlines() if out.exists() else ():
        row = json.loads(line)
        found.setdefault((row["data"], row["seed"]), {})[row["part"]] = row
    return found


def run(each: ImageSet, seed: int, parts: Sequence[str], args: argparse.Namespace) -> Iterator[Row]:
    """The lines of those `parts` of one draw that the file does not contain."""
    known = finished(args.out).get((each.name, seed), {})
    left = [part for part in parts if part not in known]
    if not left:
        return
    folder: Path = args.work / f"{each.name}-{seed}"
    images = link_set(each, args.data, args.work, seed)
    os.environ["TLOPT_CACHE"] = str(folder / "cache")
    study = spec.loads(proposed(images, folder, args), "proposed.toml")
    workspace = Workspace.open(study.model_copy(update={"seed": seed}), torch.device("cpu"))
    for part in left:
        match part:
            case "first five":
                row = five_row(workspace)
            case "TPE":
                row = tpe_row(workspace, seed)
            case "TPE confirmed":
                row = confirmed_row(workspace, seed, known[TPE])
            case _:
                names = JUDGED[part]
                row = referee_row(images, {name: known[names[name]][name]["point"] for name in names})
        known[part] = {"data": each.name, "seed": seed, "part": part} | row
        yield known[part]
    if part == PASSES[-1][-1]:
        shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the sets' folders")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=2, help="draws of images and searches of each")
    parser.add_argument("--sets", nargs="+", choices=[each.name for each in SETS], help="default: all")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--work", type=Path, required=True, help="folder for studies and caches")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for parts, seed, each in itertools.product(PASSES, range(args.seeds), SETS):
        if args.sets is None or each.name in args.sets:
            for row in run(each, seed, parts, args):
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(each.name, seed, row["part"], flush=True)


if __name__ == "__main__":
    main()
