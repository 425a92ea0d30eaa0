"""A search with Ray Tune: random draws and ASHA with its defaults around the plain script's training.

Started by `benchmarks.peers.compare`. As many trials run at once as there are cores, one torch thread each,
which is Ray's default for a trial.
"""

import logging
from pathlib import Path
from typing import Any, assert_never

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from benchmarks.common.plain_script import Machine
from benchmarks.peers.job import Job, point_of, searched
from benchmarks.peers.with_optuna import train
from tlopt.spec import Study
from tlopt.spec.dimensions import Choice, Int, Log
from tlopt.system.cpus import n_cores

_STORE_BYTES = 100_000_000  # only numbers are passed


def space_of(study: Study) -> dict[str, Any]:
    """The space as Ray's domains."""
    return {name: _domain(dimension) for name, dimension in searched(study).items()}


def _domain(dimension: Int | Log | Choice) -> Any:
    match dimension:
        case Int(low, high):
            return tune.randint(low, high + 1)
        case Log(_, high):
            return tune.loguniform(dimension.drawn_low, high)
        case Choice(options):
            return tune.choice(list(options))
        case _:
            assert_never(dimension)


def main() -> None:
    job = Job.from_arguments()
    study = job.study

    def trial(config: dict[str, Any]) -> None:
        name = tune.get_context().get_trial_id()
        for epoch, accuracy in train(job, name, point_of(study, config), Machine(n_loaders=0)):
            tune.report({"accuracy": accuracy, "epoch": epoch + 1})

    ray.init(
        address="local",  # never the cluster of another search
        num_cpus=n_cores(),
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        logging_level=logging.WARNING,
        log_to_driver=False,
        _temp_dir=str(Path(job.folder) / "ray"),
    )
    tune.Tuner(
        trial,
        param_space=space_of(study),
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            scheduler=ASHAScheduler(time_attr="epoch", max_t=study.budget.epochs),
            search_alg=tune.search.basic_variant.BasicVariantGenerator(random_state=job.seed),
            num_samples=-1,
            time_budget_s=job.seconds_left,
        ),
        run_config=tune.RunConfig(storage_path=str(Path(job.folder) / "results"), verbose=0),
    ).fit()


if __name__ == "__main__":
    main()
