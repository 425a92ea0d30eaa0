"""A search with plain Optuna: its TPE and its median pruner around the plain script's training.

Started by `benchmarks.peers.first_to_accuracy`. One process has the whole machine: a torch thread per core
and two loader processes.
"""

from collections.abc import Iterator
from pathlib import Path

import optuna
import torch

from benchmarks.common.plain_script import Machine, epochs
from benchmarks.peers.job import Job, facts
from tlopt.search.space import suggest
from tlopt.spec.point import Point, seed_for
from tlopt.system.cpus import n_cores


def train(job: Job, trial: str, point: Point, machine: Machine) -> Iterator[float]:
    """Train `point`; yields and reports validation accuracy after each epoch."""
    seed = seed_for(job.seed, trial)
    for epoch, accuracy in enumerate(epochs(Path(job.data), point, machine, seed)):
        job.report(trial, point, epoch, accuracy)
        yield accuracy


def main() -> None:
    job = Job.from_arguments()
    space = job.study
    torch.set_num_threads(n_cores())

    def objective(trial: optuna.Trial) -> float:
        point = suggest(trial, space, facts(space))
        accuracy = 0.0
        for epoch, accuracy in enumerate(train(job, str(trial.number), point, Machine())):
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    sampler, pruner = optuna.samplers.TPESampler(seed=job.seed), optuna.pruners.MedianPruner()
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, timeout=job.seconds_left)


if __name__ == "__main__":
    main()
