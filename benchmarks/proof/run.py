"""Confirmed test accuracy of ways of transfer learning on several sets of images, at equal cost.

    OMP_NUM_THREADS=1 nice -n 10 python -m benchmarks.proof.run DATA/* --out results.jsonl --work /tmp/proof

Adds a JSON line for each finished set, seed and method to the file and skips those that it contains; a second
start goes on where the first was stopped. `report` makes the table.
"""

import argparse
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch

import tlopt
from benchmarks.common.images import link_drawn
from benchmarks.proof.searches import RATE, WITH, WITHOUT, Method, Searched, search
from tlopt.app.next_study import propose_next
from tlopt.confirmation import held_out
from tlopt.confirmation.verdict import Confirmed
from tlopt.errors import NotReady
from tlopt.search.defaults import defaults
from tlopt.search.space import resolve
from tlopt.spec.default_names import KEPT_LABEL, LINEAR_LABEL, PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import Point

DEFAULTS = (PLAIN_LABEL, KEPT_LABEL, PROBE_LABEL, LINEAR_LABEL)
SVM, LP_FT, KEPT_LP_FT = "SVM", "LP-FT", "LP-FT with kept statistics"
UNTUNED = (*DEFAULTS, SVM, LP_FT, KEPT_LP_FT)
TUNED = (WITH, WITHOUT, RATE)  # in the order in which they run
Row = dict[str, Any]


def further_points(searched: Searched) -> dict[str, Point]:
    """Points that are no defaults of tlopt: a linear SVM, and LP-FT (Kumar et al. 2022).

    LP-FT is a fine-tuning whose head is trained alone for the first third of the epochs, at the same rate.
    """
    study, facts = searched.session.study, searched.workspace.facts
    plain, kept = (row.point for row in defaults(study, facts, (PLAIN_LABEL, KEPT_LABEL)))
    linear: Row = {"classifier": "svm", "resolution": plain.resolution}
    return {
        SVM: resolve(linear, plain.backbone, study.budget.epochs, facts),
        LP_FT: replace(plain, head_first_epochs=plain.epochs // 3),
        KEPT_LP_FT: replace(kept, head_first_epochs=kept.epochs // 3),
    }


def untuned_rows(searched: Searched) -> Iterator[Row]:
    """Test accuracies of the methods without a search, with the seeds of the confirmation."""
    verdict = searched.verdict
    seeds = verdict.chosen.seeds
    for label in DEFAULTS:
        row = verdict.row(label)
        assert row is not None, f"the confirmation has {label}"
        yield _row(label, row, n_epochs=len(seeds) * (1 if row.point.is_linear else row.point.epochs))
    folder = searched.session.folders.root / "further"
    for number, (name, point) in enumerate(further_points(searched).items(), 100):
        row = Confirmed(number=-number, label=name, point=point, seeds=seeds, val=(), test=())
        found = held_out.read_test(searched.workspace, [row], lambda n, r: folder / f"{-n}-{r}.safetensors")
        measured = replace(row, test=tuple(found[row.number]))
        yield _row(name, measured, n_epochs=len(seeds) * (1 if point.is_linear else point.epochs))


def tuned_row(method: Method, searched: Searched) -> Row:
    """Test accuracies of the chosen point, and those of all candidates, which only explain."""
    verdict = searched.verdict
    row = _row(method.name, verdict.chosen, n_epochs=searched.search_epochs + searched.confirm_epochs)
    return row | {
        "chosen": verdict.chosen.label,
        "point": verdict.chosen.point.as_dict(),
        "n_trials": searched.n_trials,
        "search_epochs": searched.search_epochs,
        "confirm_epochs": searched.confirm_epochs,
        "next_changes": _next_changes(searched),
        "candidates": list(_candidates(searched)),
    }


def _candidates(searched: Searched) -> Iterator[Row]:
    """Validation and test accuracy of every candidate of the confirmation; no choice is made by these."""
    rows = [row for row in searched.verdict.rows if row.val]
    untested = [replace(row, seeds=row.seeds[: len(row.val)]) for row in rows if not row.test]
    found = held_out.read_test(searched.workspace, untested, searched.session.weights_file)
    for row in rows:
        test = row.test or tuple(found[row.number])
        yield {"label": row.label, "val": _accuracies(row.val), "test": _accuracies(test)}


def _next_changes(searched: Searched) -> int | None:
    """Number of ranges that `tlopt next` would change; None if there are too few trials."""
    try:
        return len(propose_next(searched.session).explanation.changes)
    except NotReady:
        return None


def _row(name: str, row: Confirmed, *, n_epochs: int) -> Row:
    return {"method": name, "test": _accuracies(row.test), "val": _accuracies(row.val), "epochs": n_epochs}


def _accuracies(rows: Sequence[Mapping[str, float]]) -> list[float]:
    return [round(row["accuracy"], 4) for row in rows]


def finished(out: Path) -> dict[tuple[str, int, str], Row]:
    """The lines in `out` by set, seed and method."""
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return {(row["data"], row["seed"], row["method"]): row for row in rows}


def run_search(data: Path, seed: int, method: Method, args: argparse.Namespace) -> None:
    """One search on a draw of a set's images; with the first, the methods without a search."""
    folder: Path = args.work / f"{data.name}-{seed}"
    counts = dict(zip(("train", "val", "test"), args.images, strict=True))
    source = link_drawn(data, folder / "images", counts, seed)
    os.environ["TLOPT_CACHE"] = str(folder / "cache")
    epochs = 0 if method is WITH else finished(args.out)[data.name, seed, WITH.name]["epochs"]
    searched = search(method, _proposed(source, folder, args), folder, seed=seed, epochs=epochs)
    rows = [tuned_row(method, searched), *(untuned_rows(searched) if method is WITH else ())]
    with args.out.open("a") as file:  # at once, so that the untuned ones are never missing
        file.write("".join(json.dumps({"data": data.name, "seed": seed} | each) + "\n" for each in rows))
    print(f"{data.name} {seed} {method.name}: {rows[0]['test']}", flush=True)
    if method is TUNED[-1]:
        shutil.rmtree(folder)


def _proposed(source: Path, folder: Path, args: argparse.Namespace) -> str:
    """The study file that `tlopt init` writes for these images; written once, as it measures times."""
    file = folder / "proposed.toml"
    if not file.exists():
        proposal = tlopt.init(source, trials=args.trials, epochs=args.epochs, resolution=args.resolution)
        file.write_text(proposal.text)
    return file.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, help="folders with train/, val/ and test/")
    parser.add_argument("--images", nargs=3, type=int, default=[72, 48, 200], help="to train, validate, test")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--work", type=Path, required=True, help="folder for studies and caches")
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # it would say of every untuned point that its weights are missing, and trains them, as it should
    logging.getLogger(held_out.__name__).setLevel(logging.ERROR)
    for seed, method, data in itertools.product(range(args.seeds), TUNED, args.data):
        if (data.name, seed, method.name) not in finished(args.out):
            run_search(data, seed, method, args)


if __name__ == "__main__":
    main()
