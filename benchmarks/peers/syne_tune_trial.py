"""One trial of a search by Syne Tune, which starts it as a process with the drawn values as arguments."""

import argparse
from pathlib import Path

import torch
from syne_tune import Reporter

from benchmarks.common.plain_script import Machine
from benchmarks.peers.job import Job, point_of, searched
from benchmarks.peers.with_optuna import train
from tlopt.spec.dimensions import Int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", type=Path, required=True, help="file of the search's job")
    parser.add_argument("--st_checkpoint_dir", type=Path, required=True, help="where a trial may be saved")
    known, rest = parser.parse_known_args()
    job = Job.read(known.job)
    study = job.study
    drawn = argparse.ArgumentParser()
    for name, dimension in searched(study).items():
        drawn.add_argument(f"--{name}", type=int if isinstance(dimension, Int) else float, required=True)
    torch.set_num_threads(1)
    report = Reporter()
    point = point_of(study, vars(drawn.parse_args(rest)))
    trial = known.st_checkpoint_dir.parent.name
    for epoch, accuracy in train(job, trial, point, Machine(n_loaders=0)):
        report(epoch=epoch + 1, accuracy=accuracy)


if __name__ == "__main__":
    main()
