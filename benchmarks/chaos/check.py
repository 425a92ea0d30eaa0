"""Checks of a study after the faults: counts by SQL, and a replay of every finished trial."""

import contextlib
import json
import multiprocessing
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from benchmarks.common.postgres import Server
from tlopt.spec import loads


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Contents of one system's database after its study.

    Attributes:
        states: Trials by state.
        numbers_lost: Gaps in the trials' numbers.
        numbers_doubled: Trials that share a number.
        ended_twice: Final states written twice, changed or deleted.
        late_reports: Leases, or steps of a trial, for which two processes reported.
        changed_reports: Reports written again with another value.
        lost: Trials that ended as FAIL without a retry, or were left WAITING.
        retries: Failed trials that were retried as new trials.
        epochs: Epochs trained, by the logs.
        epochs_repeated: Epochs trained more than once.
        repeated_max: Largest number of epochs repeated after one start of a trial; -1 if not known.
        replayed: Trials that were trained again without faults.
        reports_replayed: Reports compared with the replay.
        differing: Differences from the replay, one sentence each.
    """

    states: dict[str, int]
    numbers_lost: int
    numbers_doubled: int
    ended_twice: int
    late_reports: int
    changed_reports: int
    lost: int
    retries: int
    epochs: int
    epochs_repeated: int
    repeated_max: int
    replayed: int = 0
    reports_replayed: int = 0
    differing: list[str] = field(default_factory=list)


def examine(
    server: Server, database: str, url: str, study_file: Path, runs: Path, *, tlopt: bool
) -> Findings:
    """Examine the study in `database`, and replay every complete or pruned trial."""
    study = loads(study_file.read_text(), str(study_file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = optuna.load_study(study_name=study.name, storage=url)
        trials = opened.get_trials()

    def n(query: str) -> int:
        with contextlib.closing(server.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return int(cursor.fetchone()[0] or 0)

    retried = {int(number) for trial in trials for number in trial.system_attrs.get("retry_history", [])}
    failed = {t.number for t in trials if t.state == TrialState.FAIL}
    waiting = sum(t.state == TrialState.WAITING for t in trials)
    epochs = _tlopt_epochs(runs / study.name / "trials") if tlopt else _stock_epochs(runs)
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    differing, n_reports = _replay_all(study_file, ended)
    return Findings(
        states=dict(Counter(t.state.name for t in trials)),
        numbers_lost=n("SELECT max(number) + 1 - count(DISTINCT number) FROM trials"),
        numbers_doubled=n("SELECT count(*) - count(DISTINCT number) FROM trials"),
        ended_twice=n(
            "SELECT count(*) FROM chaos_states WHERE old IN ('COMPLETE', 'PRUNED', 'FAIL') OR new = 'deleted'"
        ),
        late_reports=n(
            "SELECT count(*) FROM (SELECT 1 FROM chaos_reports WHERE token IS NOT NULL GROUP BY token"
            " HAVING count(DISTINCT who) > 1) a"
        )
        + n(
            "SELECT count(*) FROM (SELECT 1 FROM chaos_reports GROUP BY trial_id, step"
            " HAVING count(DISTINCT who) > 1) a"
        ),
        changed_reports=n(
            "SELECT count(*) FROM (SELECT 1 FROM chaos_reports GROUP BY trial_id, step"
            " HAVING count(DISTINCT value) > 1) a"
        ),
        lost=len(failed - retried) + waiting,
        retries=len(retried),
        epochs=epochs[0],
        epochs_repeated=epochs[1],
        repeated_max=epochs[2],
        replayed=len(ended),
        reports_replayed=n_reports,
        differing=differing,
    )


def _tlopt_epochs(logs: Path) -> tuple[int, int, int]:
    """Epochs trained, epochs trained again, and the largest number trained again after one start."""
    trained = repeated = most = 0
    for log in logs.glob("*.jsonl"):
        seen: set[int] = set()
        since_start = 0
        for line in log.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "start":
                since_start = 0
            elif event["event"] == "epoch":
                trained += 1
                if event["epoch"] in seen:
                    repeated += 1
                    since_start += 1
                    most = max(most, since_start)
                seen.add(event["epoch"])
    return trained, repeated, most


def _stock_epochs(runs: Path) -> tuple[int, int, int]:
    """Like `_tlopt_epochs`; the epochs of a retry count for the trial that it repeats."""
    lines = (runs / "epochs.jsonl").read_text().splitlines()
    rows = [(row["trial"], row["epoch"]) for row in map(json.loads, lines)]
    return len(rows), len(rows) - len(set(rows)), -1


def _replay_all(study_file: Path, trials: Sequence[FrozenTrial]) -> tuple[list[str], int]:
    """Differences from the replays, one sentence each, and the number of reports compared."""
    context = multiprocessing.get_context("spawn")
    shares = [(study_file, trials[i::2]) for i in range(2)]
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found = list(pool.map(_replay_some, shares))
    return [line for lines, _ in found for line in lines], sum(n for _, n in found)


def _replay_some(share: tuple[Path, Sequence[FrozenTrial]]) -> tuple[list[str], int]:
    from tlopt.search.plan import search_plan
    from tlopt.training.devices import choose_device, configure_process
    from tlopt.trial.execution import begin_training, training_events
    from tlopt.trial.workspace import Workspace

    study_file, trials = share
    study = loads(study_file.read_text(), str(study_file))
    configure_process(1)
    workspace = Workspace.open(study, choose_device("cpu"))
    plan = search_plan(study, workspace.facts, len(workspace.data.splits))
    differing = []
    n_reports = 0
    for trial in trials:
        task = plan.draw(trial)
        n = task.point.epochs if trial.state == TrialState.COMPLETE else len(trial.intermediate_values)
        values = _first(
            n, training_events(begin_training(task, workspace, n_micro_batches=1)), study.objective
        )
        n_reports += n
        stored = [trial.intermediate_values.get(step) for step in range(n)]
        differing += [
            f"trial {trial.number}, epoch {step}: {here} is stored, {there} replayed"
            for step, (here, there) in enumerate(zip(stored, values, strict=True))
            if here != there
        ]
        if trial.state == TrialState.COMPLETE and trial.value != values[-1]:
            differing.append(f"trial {trial.number}: value {trial.value} is stored, {values[-1]} replayed")
        if len(trial.intermediate_values) != n:
            differing.append(f"trial {trial.number}: {len(trial.intermediate_values)} reports for {n} epochs")
    return differing, n_reports


def _first(n: int, training: Iterable[object], objective: str) -> list[float]:
    from tlopt.training.loop import Epoch

    values: list[float] = []
    if n == 0:
        return values
    for event in training:
        if isinstance(event, Epoch) and event.val is not None:
            values.append(event.val.as_dict()[objective])
            if len(values) == n:
                break
    return values
