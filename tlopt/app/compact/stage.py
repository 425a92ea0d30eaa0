"""The second stage of a study: prune the network that the confirmation chose, and export the smallest."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from tlopt.analysis.snapshot import Snapshot
from tlopt.app import deliver, workflow
from tlopt.app.handle import Session
from tlopt.app.local_run import follow
from tlopt.confirmation import prunings
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import DataError, NotReady, StudyChanged
from tlopt.exports.listed import remember_export
from tlopt.exports.result import RESULT, read_result
from tlopt.search.plan import StudyPlan, prune_plan
from tlopt.spec.objectives import measured
from tlopt.spec.trial_spec import PlannedPruning, TrialSpec
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.system.loose_values import table_in

if TYPE_CHECKING:
    from tlopt.trial.workspace import Workspace


def begin_prunings(
    session: Session, workspace: "Workspace", verdict: Verdict
) -> tuple[optuna.Study, StudyPlan]:
    """The prunings of the chosen network in the database, and their plan.

    Raises:
        NotReady: the confirmation is not finished, or has chosen no network that can be trained on.
        StudyChanged: there are prunings of an earlier search of the same name.
    """
    return _with_prunings(session, workspace, prunings.planned_prunings(session.study, verdict))


def join_prunings(session: Session, workspace: "Workspace") -> tuple[optuna.Study, StudyPlan]:
    """The prunings that another process has begun, and their plan.

    Raises:
        NotReady: there are none.
        StudyChanged: they belong to an earlier search of the same name.
    """
    session.prunings()
    return _with_prunings(session, workspace, ())


def _with_prunings(
    session: Session, workspace: "Workspace", planned: Sequence[PlannedPruning]
) -> tuple[optuna.Study, StudyPlan]:
    """The prunings with those `planned` added to those there are, and their plan."""
    session.refuse_foreign_prunings()
    opened = workflow.open_companion(session, workspace, session.prune_name, attributes.PRUNINGS)
    prunings.add_prunings(opened, planned)
    plan = _plan(session, workspace, prunings.stored_prunings(opened))
    workflow.run_all(session.study, plan, opened)
    return opened, plan


def _plan(session: Session, workspace: "Workspace", planned: Sequence[PlannedPruning]) -> StudyPlan:
    # called while a trial is claimed, when the database must not be queried for the folders' name
    run_weights, result_file = session.confirm_folders.weights_file, session.prune_folders.pruned_file
    return prune_plan(planned, workspace.data.confirm_split, run_weights, result_file)


def prune_chosen(
    session: Session, workspace: "Workspace", verdict: Verdict, *, n_workers: int = 0
) -> Iterator[Snapshot]:
    """Run the prunings with local workers to their end; yields the study twice a second.

    Raises:
        NotReady, StudyChanged: as `begin_prunings`.
        WorkersFailed: workers ended with an error, and the budget is not spent.
    """
    opened, plan = begin_prunings(session, workspace, verdict)
    yield from follow(session, opened, plan, session.prune_folders, n_workers, stage="prune")


def why_not(verdict: Verdict) -> str:
    """Why the chosen network cannot be pruned; "" if it can."""
    if not verdict.chosen.val:
        return "the confirmation has chosen no network"
    if verdict.chosen.point.is_linear:
        return (
            "nothing is pruned: the confirmation has chosen a linear classifier on features of a frozen"
            " network, so that there is no recipe to train a smaller one by"
        )
    return ""


@dataclass(frozen=True, kw_only=True)
class _Smallest:
    """The pruning whose network is exported."""

    record: TrialRecord
    spec: TrialSpec


def export_smallest(
    session: Session,
    workspace: "Workspace",
    verdict: Verdict,
    folder: Path,
    *,
    overwrite: bool,
    onnx: bool = False,
) -> Path:
    """Write the smallest network within the bound to `folder`; returns the folder.

    Raises:
        NotReady: the prunings have not ended, or none stayed within the bound; says what each one lost.
        DataError: something exists there that may not be replaced.
        MissingExtra: ONNX is requested and not installed.
    """
    from tlopt.exports.compact import Pruned, write_compact
    from tlopt.exports.onnx import write_onnx
    from tlopt.exports.read import read_export
    from tlopt.training.devices import choose_device
    from tlopt.trial.pruning import pruning_identity, read_pruning

    found = _smallest(session, workspace, verdict)
    workspace = workspace.on_device(choose_device())
    with workflow.study_threads(session):
        pruning = read_pruning(found.spec, workspace)
    pruned = Pruned.of(pruning, identity=pruning_identity(workspace, found.spec))
    with tempfile.TemporaryDirectory() as place:
        # what both exports have in common is copied from that of the whole network
        whole = Path(place) / session.study.name
        deliver.write_chosen(session, workspace, verdict, whole, overwrite=False)
        write_compact(folder, read_export(whole), pruned, overwrite=overwrite)
    if onnx:
        write_onnx(read_export(folder), folder)
    latency_ms = {row["network"]: row["latency_ms"] for row in read_result(folder)["costs"]}
    remember_export(session.optuna_study(), folder, verdict.chosen.label, "compact", latency_ms=latency_ms)
    return folder


def _smallest(session: Session, workspace: "Workspace", verdict: Verdict) -> _Smallest:
    study, opened = session.study, session.prunings()
    if not study.prune.goals:
        raise NotReady(f"{study.name}: no pruning is asked for; name multiply_adds or parameters in [prune]")
    planned = prunings.stored_prunings(opened)
    ended = prunings.of_choice(attributes.records_of(opened), planned, study, verdict)
    if len(ended) < len(study.prune.goals):
        raise NotReady(
            f"{opened.study_name}: {len(ended)} of {len(study.prune.goals)} prunings have ended; continue"
            f" with: {session.command('run')}"
        )
    best = prunings.smallest(ended, study.prune.quantity)
    if best is None:
        causes = "; ".join(f"{each.label}: {each.cause}" for each in ended)
        raise NotReady(f"{study.name}: no pruning stayed within the bound, so none is exported ({causes})")
    spec = _plan(session, workspace, planned).trial_spec(best.number, {"pruning": best.pruning})
    return _Smallest(record=best, spec=spec)


def compact_folder(folder: Path) -> Path:
    """The folder of the smallest network, beside the export in `folder`."""
    folder = folder.absolute() if folder.name in ("", "..") else folder
    return folder.with_name(f"{folder.name}-compact")


def is_left(session: Session, verdict: Verdict, folder: Path) -> bool:
    """Whether the study asks for a second stage, and its result is not in `folder` yet; reads no images."""
    study = session.study
    if not study.prune.goals or why_not(verdict):
        return False
    try:
        opened = session.prunings()
        planned, records = prunings.stored_prunings(opened), attributes.records_of(opened)
        ended = prunings.of_choice(records, planned, study, verdict)
    except (NotReady, StudyChanged):
        return True
    if len(ended) < len(study.prune.goals):
        return True
    best = prunings.smallest(ended, study.prune.quantity)
    return best is not None and best.pruning is not None and not _is_in(folder, planned[best.pruning])


def _is_in(folder: Path, planned: PlannedPruning) -> bool:
    """Whether `folder` holds the result of that pruning, and not of another one."""
    try:
        result = read_result(folder) if (folder / RESULT).is_file() else {}
    except DataError:
        return False
    account = {**table_in(result, "network"), **table_in(result, "pruned"), "candidate": result.get("trial")}
    run = {"candidate": planned.candidate, "seed": planned.seed, "epochs": planned.epochs}
    wanted = measured({**asdict(planned.goal), **run})
    return all(account.get(name) == value for name, value in wanted.items())
