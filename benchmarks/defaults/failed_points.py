r"""Ways to report a point that could not be trained to Optuna, so that the sampler avoids similar points.

    python -m benchmarks.defaults.failed_points --plot benchmarks/defaults/failed_points.png
    python -m benchmarks.defaults.failed_points --only gp --trials 40 --seeds 3 \
        --problems "memory 30" "divergence 30" "both 60"

Nothing is trained: accuracy and the limits of memory and stability are synthetic functions on the space of a
study file, and points are drawn by tlopt's own samplers. Prints Markdown tables; shares in %, accuracies in
points.
"""

import argparse
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from benchmarks.defaults.failing_problems import Problem, problems
from tlopt.search.samplers import InitialPointsSampler, make_pruner
from tlopt.spec.algorithms import GpSampler, MedianPruner, NoPruner, RandomSampler, Sampler, TpeSampler
from tlopt.spec.point import seed_for
from tlopt.storage.attributes import OUTCOME_CONSTRAINT, POINT

SAMPLERS: dict[str, Sampler] = {
    "tpe": TpeSampler(),
    "random": RandomSampler(kind="random"),
    "gp": GpSampler(kind="gp"),
}
WORKERS = (1, 8)
BUDGETS = (40, 100)
REPORT_EPOCH, EPOCHS = 3, 8  # where trials are pruned, and their number of epochs


class Told(StrEnum):
    """Ways to report a failed point; trained points satisfy the constraint if there is one."""

    FAIL = "FAIL"
    PRUNED = "PRUNED"
    REPORTED = "PRUNED, worst reported"
    CONSTRAINT = "PRUNED, constraint"
    WORST = "COMPLETE, worst"
    WORST_CONSTRAINT = "COMPLETE, worst, constraint"


TODAY = Told.CONSTRAINT
DISTINCT: dict[str, Sequence[Told]] = {
    "tpe": tuple(Told),
    "random": (TODAY,),
    # it reads only complete and running trials, so that pruned trials are as invisible as failed ones
    "gp": (Told.PRUNED, TODAY, Told.WORST, Told.WORST_CONSTRAINT),
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search; arrays over its trials in the order of their numbers."""

    params: list[dict[str, Any]]
    failed: NDArray[np.bool_]
    means: NDArray[np.float64]  # accuracy without noise
    values: NDArray[np.float64]  # as reported; -inf if the trial failed or was pruned
    best: float  # mean of the best point that can be trained

    def failed_share(self, n_trials: int) -> float:
        """Share of the first `n_trials` that failed, in %."""
        return 100 * float(self.failed[:n_trials].mean())

    def regret(self, n_trials: int) -> float:
        """Points of accuracy by which the trial with the best value is below the optimum, without noise.

        The accuracy of the optimum if no trial was trained.
        """
        leader = int(self.values[:n_trials].argmax())
        return 100 * (self.best - (float(self.means[leader]) if np.isfinite(self.values[leader]) else 0.0))


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A running trial and its outcome."""

    trial: optuna.Trial
    fails: bool
    mean: float
    value: float


def search(
    problem: Problem, sampler: Sampler, told: Told, n_workers: int, seed: int, n_trials: int
) -> Search:
    """Run one search; `n_workers` trials are always running, and the oldest ends first."""
    rng = np.random.default_rng(seed)
    first = InitialPointsSampler(lambda _: problem.first, sampler, seed=seed_for(problem.name, seed))
    pruner = make_pruner(MedianPruner() if problem.pruned else NoPruner(kind="none"), epochs_max=EPOCHS)
    study = optuna.create_study(direction="maximize", sampler=first, pruner=pruner)
    drawn: list[Drawn] = []
    running: deque[Drawn] = deque()
    values: list[float] = []
    while len(values) < n_trials:
        while len(running) < n_workers and len(drawn) < n_trials:
            trial = study.ask(problem.space)
            trial.set_user_attr(POINT, trial.params)  # an initial point is taken by a trial that ran here
            mean, fails = problem.mean(trial.params), problem.fails(trial.params)
            value = mean + problem.noise * float(rng.standard_normal())
            running.append(Drawn(trial=trial, fails=fails, mean=mean, value=value))
            drawn.append(running[-1])
        done = running.popleft()
        values.append(
            tell_failed(done, study, told) if done.fails else tell_trained(done, study, told, problem)
        )
    return Search(
        params=[each.trial.params for each in drawn],
        failed=np.array([each.fails for each in drawn]),
        means=np.array([each.mean for each in drawn]),
        values=np.array(values),
        best=problem.best,
    )


def tell_trained(done: Drawn, study: optuna.Study, told: Told, problem: Problem) -> float:
    """End a trial that was trained; returns its value, or -inf if it was pruned."""
    if told in (Told.CONSTRAINT, Told.WORST_CONSTRAINT):
        done.trial.set_constraint(OUTCOME_CONSTRAINT, -1.0)
    done.trial.report(done.value, REPORT_EPOCH)
    if done.trial.params not in problem.first and done.trial.should_prune():
        study.tell(done.trial, state=TrialState.PRUNED)
        return -np.inf
    study.tell(done.trial, done.value)
    return done.value


def tell_failed(done: Drawn, study: optuna.Study, told: Told) -> float:
    """End a trial that could not be trained; returns -inf."""
    trial = done.trial
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    worst = min((other.value for other in complete if other.value is not None), default=0.0)
    if told in (Told.CONSTRAINT, Told.WORST_CONSTRAINT):
        trial.set_constraint(OUTCOME_CONSTRAINT, 1.0)
    match told:
        case Told.FAIL:
            study.tell(trial, state=TrialState.FAIL)
        case Told.PRUNED | Told.CONSTRAINT:
            study.tell(trial, state=TrialState.PRUNED)
        case Told.REPORTED:
            trial.report(worst, 0)
            study.tell(trial, state=TrialState.PRUNED)
        case Told.WORST | Told.WORST_CONSTRAINT:
            study.tell(trial, worst)
    return -np.inf


Done = Mapping[tuple[str, int, str, Told], Sequence[Search]]  # by sampler, workers, problem, told; over seeds


def run_all(samplers: Sequence[str], made_up: Sequence[Problem], n_seeds: int, n_trials: int) -> Done:
    """Run every search; ways that a sampler cannot tell apart are run once."""
    return {
        (name, n, problem.name, told): [
            search(problem, SAMPLERS[name], told, n, seed, n_trials) for seed in range(n_seeds)
        ]
        for name in samplers
        for n, problem, told in product(WORKERS, made_up, DISTINCT[name])
    }


def quartiles(numbers: Sequence[float], digits: int) -> str:
    """Median, with quartiles in brackets."""
    low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75)).round(digits) + 0.0  # no "-0"
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def print_levels(done: Done, n_workers: int, budgets: Sequence[int]) -> None:
    """Print failed shares and regrets, and the share of searches with the same points as `TODAY`."""
    print(f"\n{n_workers} at a time\n\n| problem | sampler | told | ", end="")
    print(" | ".join(f"{n}: failed, % | regret" for n in budgets) + " | same search, % |")
    print("| --- | --- | --- |" + " --- | --- |" * len(budgets) + " --- |")
    for (sampler, n, problem, told), runs in sorted(done.items(), key=lambda item: item[0][2]):
        if n != n_workers:
            continue
        cells = []
        for budget in budgets:
            cells.append(quartiles([run.failed_share(budget) for run in runs], 0))
            cells.append(quartiles([run.regret(budget) for run in runs], 1))
        today = done[sampler, n, problem, TODAY]
        same = 100 * np.mean([a.params == b.params for a, b in zip(runs, today, strict=True)])
        print(f"| {problem} | {sampler} | {told} | " + " | ".join(cells) + f" | {same:.0f} |")


def print_pairs(done: Done, budgets: Sequence[int]) -> None:
    """Print the differences of each way, and of random draws, to `TODAY` on the same problem and seed."""
    print("\n| sampler | at a time | told | ", end="")
    print(" | ".join(f"{n}: failed, % | regret" for n in budgets), end="")
    print(" | failed: less/equal/more | regret: less/equal/more |")
    print("| --- | --- | --- |" + " --- | --- |" * len(budgets) + " --- | --- |")
    names = dict.fromkeys(key[2] for key in done)
    others = [(*key[:2], key[3]) for key in done if key[0] == "random" or key[3] != TODAY]
    for sampler, n, told in sorted(dict.fromkeys(others), key=lambda other: other[1]):
        own = next(key[0] for key in done) if sampler == "random" else sampler
        pairs = [
            pair
            for name in names
            for pair in zip(done[sampler, n, name, told], done[own, n, name, TODAY], strict=True)
        ]
        cells: list[str] = []
        for budget in budgets:
            failed = [a.failed_share(budget) - b.failed_share(budget) for a, b in pairs]
            regret = [a.regret(budget) - b.regret(budget) for a, b in pairs]
            cells += [quartiles(failed, 0), quartiles(regret, 1)]
        label = "random draws" if sampler == "random" else str(told)
        print(f"| {own} | {n} | {label} | " + " | ".join([*cells, signs(failed), signs(regret)]) + " |")


def signs(differences: Sequence[float]) -> str:
    """Numbers of differences below, at and above 0, as in 3/10/7."""
    kinds = np.sign(np.round(differences, 9))
    return "/".join(str(int((kinds == kind).sum())) for kind in (-1, 0, 1))


def draw(done: Done, made_up: Sequence[Problem], file: Path) -> None:
    """Write a PNG: for each problem the share of failed trials in the course of a search, eight at a time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    lines = (("tpe", Told.FAIL), ("tpe", TODAY), ("random", TODAY))
    figure, grid = plt.subplots(2, 4, figsize=(11, 5), dpi=80, sharey=True, layout="constrained")
    for axes, problem in zip(grid.flat, made_up, strict=False):
        for sampler, told in lines:
            failed = np.mean([run.failed for run in done[sampler, WORKERS[-1], problem.name, told]], axis=0)
            ten = np.convolve(failed, np.full(10, 0.1), mode="valid")
            label = sampler if sampler == "random" else f"{sampler}, {told}"
            axes.plot(np.arange(len(ten)) + 10, 100 * ten, label=label)
        axes.set(title=problem.name, ylim=(0, 100))
    figure.supxlabel("trials")
    figure.supylabel("failed among the last ten, %")
    grid.flat[0].legend(fontsize="small")
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16, help="searches per problem and way")
    parser.add_argument("--trials", type=int, choices=BUDGETS, default=BUDGETS[-1], help="largest budget")
    parser.add_argument("--only", choices=tuple(SAMPLERS), help="one sampler instead of tpe and random")
    parser.add_argument(
        "--problems", nargs="+", default=[""], help="only problems whose names begin with these"
    )
    parser.add_argument("--plot", type=Path, help="PNG of failed shares over a search")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if args.plot is not None and args.only is not None:
        parser.error("--plot needs tpe and random: leave --only out")
    made_up = [problem for problem in problems() if problem.name.startswith(tuple(args.problems))]
    for problem in made_up:
        print(f"{problem.name}: {problem.share:.0%} fail, best {100 * problem.best:.1f} points", flush=True)
    samplers = ("tpe", "random") if args.only is None else (args.only,)
    budgets = [n for n in BUDGETS if n <= args.trials]
    done = run_all(samplers, made_up, args.seeds, args.trials)
    for n_workers in WORKERS:
        print_levels(done, n_workers, budgets)
    print_pairs(done, budgets)
    if args.plot is not None:
        draw(done, made_up, args.plot)


if __name__ == "__main__":
    main()
