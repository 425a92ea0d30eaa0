"""A search with Syne Tune: ASHA with its defaults and the local back-end around the plain script's training.

Started by `benchmarks.peers.compare`. As many workers as there are cores; a trial is a process
with one torch thread, `syne_tune_trial.py`. The tuner polls every 0.1 s instead of every 5 s, which would be
most of the time with epochs as short as these.
"""

import os
from pathlib import Path
from typing import Any, assert_never

from syne_tune import StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import choice, loguniform, randint
from syne_tune.optimizer.baselines import ASHA

from benchmarks.peers.job import Job, searched
from tlopt.spec import Study
from tlopt.spec.dimensions import Choice, Int, Log
from tlopt.system.cpus import n_cores

_POLL_SECONDS = 0.1


def space_of(study: Study) -> dict[str, Any]:
    """The space as Syne Tune's domains."""
    return {name: _domain(dimension) for name, dimension in searched(study).items()}


def _domain(dimension: Int | Log | Choice) -> Any:
    match dimension:
        case Int(low, high):
            return randint(low, high)
        case Log(_, high):
            return loguniform(dimension.drawn_low, high)
        case Choice(options):
            return choice(list(options))
        case _:
            assert_never(dimension)


def main() -> None:
    job = Job.from_arguments()
    study = job.study
    os.environ["SYNETUNE_FOLDER"] = str(Path(job.folder) / "results")
    scheduler = ASHA(
        space_of(study) | {"job": str(Path(job.folder) / "job.json")},
        metric="accuracy",
        time_attr="epoch",
        max_t=study.budget.epochs,
        do_minimize=False,
        random_seed=job.seed,
    )
    Tuner(
        trial_backend=LocalBackend(entry_point=str(Path(__file__).with_name("syne_tune_trial.py"))),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_wallclock_time=job.seconds_left),
        n_workers=n_cores(),
        sleep_time=_POLL_SECONDS,
        save_tuner=False,
    ).run()


if __name__ == "__main__":
    main()
