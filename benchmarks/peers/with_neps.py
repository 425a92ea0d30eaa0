"""A search with NePS: PriorBand with its defaults around the plain script's training.

Started by `benchmarks.peers.compare`. The prior is fine-tuning with kept statistics, which is evaluated
first, to its end. A promoted configuration continues from the state that its last part left.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

import neps
import torch

from benchmarks.common.plain_script import Machine, Part
from benchmarks.peers.job import Job, point_of, searched, user_prior
from benchmarks.peers.with_optuna import train
from tlopt.spec import Study
from tlopt.spec.dimensions import Choice, Int, Log

CONFIDENCE = "medium"
EPOCHS = "epochs"
STATE = "state.pt"


def space_of(study: Study) -> neps.PipelineSpace:
    """The space as NePS's, with a prior for each dimension and epochs as fidelity."""
    prior = user_prior(study)
    found = {name: _domain(dimension, prior[name]) for name, dimension in searched(study).items()}
    found[EPOCHS] = neps.IntegerFidelity(1, study.budget.epochs)
    return type("Space", (neps.PipelineSpace,), found)()


def _domain(dimension: Int | Log | Choice, prior: Any) -> Any:
    known = {"prior_confidence": CONFIDENCE}
    match dimension:
        case Int(low, high):
            return neps.Integer(low, high, prior=prior, **known)
        case Log(_, high):
            return neps.Float(dimension.drawn_low, high, log=True, prior=prior, **known)
        case Choice(options):
            return neps.Categorical(options, prior=options.index(prior), **known)
        case _:
            assert_never(dimension)


def evaluation(job: Job, study: Study) -> Callable[..., float]:
    """The function that NePS minimises: 1 - validation accuracy after the part that a rung asks for."""

    def evaluate(pipeline_directory: Path, previous_pipeline_directory: Path | None, **params: Any) -> float:
        part = _part(int(params.pop(EPOCHS)), pipeline_directory, previous_pipeline_directory)
        name = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:12]
        *_, (_, accuracy) = train(job, name, point_of(study, params), Machine(n_loaders=0), part)
        return 1 - accuracy

    return evaluate


def _part(n_epochs: int, folder: Path, former: Path | None) -> Part:
    begun = None if former is None else Path(former) / STATE
    return Part(n_epochs, begun if begun is not None and begun.exists() else None, Path(folder) / STATE)


def main() -> None:
    job = Job.from_arguments()
    study = job.study
    torch.set_num_threads(1)
    neps.run(
        evaluation(job, study),
        space_of(study),
        root_directory=Path(job.folder) / "neps",
        optimizer=("priorband", {"sample_prior_first": "highest_fidelity"}),
        worker_evaluations_to_spend=100_000,  # the search is ended by time
    )


if __name__ == "__main__":
    main()
