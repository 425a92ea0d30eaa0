"""Tables and lines that the commands print, for a terminal of 80 columns."""

import textwrap
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlopt.analysis.causes import causes
from tlopt.analysis.format import (
    budget_words,
    cost_words,
    describe_all,
    dimension_words,
    end_sentences,
    gain_sentences,
    left_words,
    spread_words,
    warm_start_sentence,
    winner_sentence,
)
from tlopt.analysis.front import (
    confirmed_front_sentence,
    cost_cells,
    front_sentence,
    objective_words,
    shown_costs,
)
from tlopt.analysis.network_stages import NetworkStage, network_rows, network_stages
from tlopt.analysis.prunings import prune_sentence
from tlopt.analysis.snapshot import SILENT_SECONDS, Snapshot, WorkerRow
from tlopt.app.handle import StudySummary
from tlopt.confirmation.verdict import Verdict
from tlopt.search.defaults import defaults
from tlopt.search.front import front_trials
from tlopt.search.warnings import study_warnings
from tlopt.spec import Study
from tlopt.spec.algorithms import GridSampler
from tlopt.spec.dimensions import Fixed
from tlopt.spec.objectives import COST_TITLES, TITLES, inference_cost_words, value_words
from tlopt.spec.outcome import Outcome
from tlopt.storage.attributes import TrialRecord, best_first
from tlopt.system.words import counted, joined

if TYPE_CHECKING:
    from tlopt.model.build import BlockOutline
    from tlopt.trial.workspace import Workspace

_CLASSES_NAMED = 20


def study_lines(
    study: Study, workspace: "Workspace", default_labels: Collection[str] | None = None
) -> Iterator[str]:
    """Lines on the images, networks, ranges and budget of a study that is about to start.

    Args:
        default_labels: of its defaults if it has begun; None: of a new study.
    """
    data, splits = workspace.data, workspace.data.splits
    yield f"{study.name}  digest {study.digest}  objective: {objective_words(study)}"
    n = data.n_trial_splits
    used = f"{n} splits by turns" if study.is_grid else f"mean over {n} splits"
    repeats = f", {used}" if n > 1 else ""
    if data.n_confirm_splits:
        repeats += f", {counted(data.n_confirm_splits, 'further split')} for the confirmation"
    yield (
        f"images: {len(splits[0].train)} train, {len(splits[0].val)} validation{repeats},"
        f" {data.n_test} test (held out), {len(data.class_names)} classes"
    )
    yield f"classes: {joined(data.class_names, _CLASSES_NAMED)}"
    for notice in data.notices:
        yield f"  note: {notice}"
    for name, weights in workspace.weights.items():
        yield f"network: {name}, {workspace.facts.n_blocks[name]} blocks, weights {weights.label}"
    searched = {name: d for name, d in study.search.items() if not isinstance(d, Fixed)}
    yield f"searched: {len(searched)} of {counted(len(study.search), 'key')} given"
    for name, dimension in searched.items():
        yield f"  {name}: {dimension_words(dimension)}"
    if isinstance(study.sampler, GridSampler):
        recipes = f", in {counted(len(study.sampler.recipes), 'recipe')}" if study.sampler.recipes else ""
        n_points = study.budget.trials_max // study.sampler.repeats
        yield f"grid: {counted(n_points, 'point')}{recipes}, {counted(study.sampler.repeats, 'seed')} each"
    yield f"budget: {budget_words(study)}"
    if limits := study.constraints.limits:
        most = (f"{COST_TITLES[name]} {inference_cost_words(name, limit)}" for name, limit in limits.items())
        yield f"constraints: at most {' and '.join(most)}"
    if goals := study.prune.goals:
        least = f"losing at most {study.prune.loss_max:g} points of validation accuracy"
        yield f"then pruned, {least}, to: {'; '.join(goal.words for goal in goals)}"
    for default in defaults(study, workspace.facts, default_labels):
        if broken := workspace.broken_limits(default.point):
            yield f"  note: {default.label} breaks [constraints] and is not trained: {broken}"
            continue
        if default.params is None and not study.is_grid:
            yield f"  note: {default.label} lies outside the searched ranges: only the confirmation trains it"
    for sentence in study_warnings(study, workspace.facts):
        yield f"  warning: {sentence}"


def confirm_words(n_test: int) -> str:
    """What `confirm` does with a finished search, of which `n_test` test images are held out."""
    test = "then reads test once" if n_test else "without a test: no images are held out"
    return f"trains the best points again, {test}"


def trials_table(trials: Sequence[TrialRecord], *, study: Study, n: int, chosen: int | None = None) -> Table:
    """The `n` best complete trials, best first, and the one chosen by the confirmation.

    With several objectives, of the front.

    Args:
        chosen: number of the chosen trial; None if there is none, or none yet.
    """
    runs = "mean over repeats" if any(trial.replicate is not None for trial in trials) else "one run each"
    which = "front by" if study.objectives else "best trials by"
    table = Table(title=f"{which} validation {TITLES[study.objective]}, {runs}", title_justify="left")
    costs = shown_costs(study, trials)
    for name in ("trial", "val", "epochs", *(COST_TITLES[cost] for cost in costs)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("point")
    ranked = front_trials(trials, study) if study.objectives else best_first(trials, study.direction)
    rest = [trial for trial in ranked[n:] if trial.number == chosen]
    shown = [*ranked[:n], *rest]
    points = describe_all([trial.point or {} for trial in shown])
    for trial, point in zip(shown, points, strict=True):
        table.add_row(
            f"{trial.number} ←" if trial.number == chosen else str(trial.number),
            value_words(trial.value or 0.0, study.objective),
            str((trial.last_epoch or 0) + 1),
            *cost_cells(trial.inference_cost, costs),
            f"{trial.label}: {point}" if trial.label else point,
        )
    return table


def outcomes_line(trials: Sequence[TrialRecord]) -> str:
    """The number of trials by outcome, most frequent first."""
    counts = Counter(trial.outcome for trial in trials)
    return ", ".join(f"{n} {outcome.words}" for outcome, n in counts.most_common())


def verdict_table(verdict: Verdict) -> Table:
    """The candidates of a confirmation with their validation and, if read, test results."""
    table = Table(title=f"confirmed over {counted(len(verdict.chosen.seeds), 'seed')}", title_justify="left")
    # may wrap between words: in 80 columns the longest name would leave the points six
    table.add_column("candidate", min_width=len("fine-tuning"))
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("validation", justify="right", no_wrap=True)
    table.add_column("test", justify="right", no_wrap=True)
    if costs := verdict.cost_names:  # one column: several would leave the points no room
        table.add_column("\n".join(COST_TITLES[name] for name in costs), justify="right", no_wrap=True)
    table.add_column("point")
    points = describe_all([row.point for row in verdict.rows])
    for row, point in zip(verdict.rows, points, strict=True):
        chosen = row is verdict.chosen
        table.add_row(
            row.label + (" ←" if chosen else ""),
            str(len(row.val)),
            spread_words(row.spread(verdict.objective), verdict.objective),
            spread_words(row.spread(verdict.objective, split="test"), verdict.objective),
            *(["\n".join(cost_cells(row.inference_cost, costs))] if costs else []),
            point,
            style="bold" if chosen else "",
        )
    return table


def show_search(snapshot: Snapshot, console: Console) -> None:
    """Print a search's best trials, its outcomes and why it ended early; nothing if no trial is complete."""
    if snapshot.best is None:
        return
    console.print(trials_table(snapshot.trials, study=snapshot.study, n=8))
    if front := front_sentence(snapshot.study, snapshot.trials):
        console.print(front, markup=False)
    console.print(f"search: {outcomes_line(snapshot.trials)}", markup=False)
    for sentence in end_sentences(snapshot):
        console.print(sentence, markup=False, soft_wrap=True)


def show_verdict(verdict: Verdict, console: Console) -> None:
    """Print the table of candidates, and the gain of the chosen one over the defaults."""
    console.print(verdict_table(verdict))
    for sentence in filter(None, (confirmed_front_sentence(verdict), *gain_sentences(verdict))):
        console.print(sentence, markup=False)


def status_group(snapshot: Snapshot, *, top: int, note: str = "") -> Group:
    """The status of a study: trials, workers, time left, cost, causes, and the confirmation if it has begun.

    Args:
        top: number of best trials to show.
        note: one more line.
    """
    parts: list[RenderableType] = [Text(line) for line in _progress_lines(snapshot)]
    if note:
        parts.append(Text(f"note: {note}"))
    if snapshot.workers:
        parts.append(workers_table(snapshot.workers))
    if snapshot.best is not None:
        chosen = snapshot.chosen_trial
        parts.append(trials_table(snapshot.trials, study=snapshot.study, n=top, chosen=chosen))
    if front := front_sentence(snapshot.study, snapshot.trials):
        parts.append(Text(front))
    parts += [Text(line) for line in _cause_lines(snapshot.trials)]
    parts += [Text(line) for line in infeasible_defaults(snapshot.trials)]
    if snapshot.verdict is not None:
        verdict = snapshot.verdict
        parts.append(Text(f"confirmation: {verdict.n_finished} of {counted(verdict.n_expected, 'run')}"))
        parts.append(verdict_table(snapshot.verdict))
        if front := confirmed_front_sentence(verdict):
            parts.append(Text(front))
        parts += [Text(sentence) for sentence in gain_sentences(snapshot.verdict)]
    if winner := winner_sentence(snapshot):
        parts.append(Text(winner))
    if pruned := prune_sentence(snapshot):
        parts.append(Text(pruned))
    if stages := network_stages(snapshot):
        parts.append(_stages_table(stages, snapshot.study.objective))
    return Group(*parts)


def show_stages(snapshot: Snapshot, console: Console) -> None:
    """Print how far the prunings have come, and a column for each network from whole to smallest."""
    console.print(prune_sentence(snapshot), markup=False, soft_wrap=True)
    if stages := network_stages(snapshot):
        console.print(_stages_table(stages, snapshot.study.objective))


def _stages_table(stages: Sequence[NetworkStage], objective: str) -> Table:
    table = Table(title="from the whole network to the smallest", title_justify="left")
    table.add_column("")
    for stage in stages:
        table.add_column(stage.name, justify="right")
    for row in network_rows(stages, objective):
        table.add_row(*row)
    return table


def _progress_lines(snapshot: Snapshot) -> Iterator[str]:
    study = snapshot.study
    outcomes = outcomes_line(snapshot.trials)
    trials = f"{study.name}: {snapshot.n_finished} of {counted(snapshot.n_planned, 'trial')}"
    yield f"{trials}; {outcomes}" if outcomes else trials
    if not snapshot.command.runs_trials:
        yield f"{snapshot.command.state}" + (
            f": {snapshot.command.reason}" if snapshot.command.reason else ""
        )
    if sentence := warm_start_sentence(snapshot):
        yield sentence
    yield from end_sentences(snapshot)
    yield from cost_lines(snapshot)
    if left := left_words(snapshot):
        yield f"{left} at this pace"


def cost_lines(snapshot: Snapshot) -> Iterator[str]:
    """The cost of the search, of the confirmation, and of both."""
    search, confirm, prune = snapshot.search_cost, snapshot.confirm_cost, snapshot.prune_cost
    yield f"cost of the search: {cost_words(search)}"
    if confirm.n:
        yield f"cost of the confirmation: {cost_words(confirm)}"
    if prune.n:
        yield f"cost of the prunings: {cost_words(prune)}"
    if confirm.n or prune.n:
        yield f"total cost: {cost_words(search + confirm + prune)}"


def workers_table(workers: Sequence[WorkerRow]) -> Table:
    """The workers, with their trials and latest heartbeats."""
    table = Table(title="workers", title_justify="left")
    table.add_column("worker", overflow="fold")
    table.add_column("device", no_wrap=True)
    for name in ("trial", "epoch", "beat"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in workers:
        silent = f"{row.silent_seconds:.0f} s ago"
        table.add_row(
            row.name,
            row.device,
            "idle" if row.trial is None else str(row.trial),
            "" if row.trial is None else f"{min(row.epoch + 1, row.epochs)} of {row.epochs}",
            silent,
            style="yellow" if row.silent_seconds > SILENT_SECONDS else "",
        )
    return table


def _cause_lines(trials: Sequence[TrialRecord], n: int = 5) -> Iterator[str]:
    """The most frequent causes of trials without a value that counts, each once."""
    rows = causes(trials)
    for row in rows[:n]:
        yield f"{row.outcome.words} ({row.trials}): {row.cause}"
    if len(rows) > n:
        yield f"and {counted(len(rows) - n, 'other cause')}: tlopt status --json lists all"


def infeasible_defaults(trials: Sequence[TrialRecord]) -> Iterator[str]:
    """A sentence for each default that the study's constraints exclude."""
    for trial in trials:
        if trial.label and trial.outcome == Outcome.INFEASIBLE and trial.ran_here:
            yield f"the default {trial.label} is infeasible and not confirmed: {trial.cause}"


def studies_table(studies: Sequence[StudySummary]) -> Table:
    """The studies of a database."""
    table = Table(title="studies", title_justify="left")
    table.add_column("study", overflow="fold")
    for name in ("trials", "planned"):
        table.add_column(name, justify="right")
    for row in studies:
        table.add_row(row.name, str(row.n_finished), str(row.n_planned))
    return table


def backbone_lines(families: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Every backbone, by family."""
    for family, names in families.items():
        yield f"{family}:"
        yield from textwrap.wrap(", ".join(names), 78, initial_indent="  ", subsequent_indent="  ")


def blocks_table(backbone: str, outline: Sequence["BlockOutline"]) -> Table:
    """A backbone's blocks from the input on."""
    table = Table(title=f"{backbone}: {len(outline)} blocks, then the head", title_justify="left")
    table.add_column("depth", justify="right")
    table.add_column("block", no_wrap=True)
    table.add_column("parameters", justify="right")
    for row in outline:
        table.add_row(str(row.index), row.name, f"{row.n_parameters:,}")
    return table
