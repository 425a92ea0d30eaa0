"""One worker process for one or several studies."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from tlopt.analysis.snapshot import Stage
from tlopt.app.compact.stage import join_prunings
from tlopt.app.handle import Session
from tlopt.app.local_run import refuse_stopped
from tlopt.app.workflow import begin, join_confirm, prepare
from tlopt.errors import NotReady
from tlopt.search.enough import n_open
from tlopt.storage import attributes, studies
from tlopt.system.memory import freeze_live_objects
from tlopt.worker.claim import StudyWork, work_state
from tlopt.worker.loop import run_worker
from tlopt.worker.shutdown import Interrupt

if TYPE_CHECKING:
    from tlopt.trial.workspace import Workspace


def is_over(session: Session) -> bool:
    """Whether the search is in the database and has ended; needs no torch.

    Raises:
        WorkersFailed: too many trials in a row crashed or failed; says why.
    """
    try:
        opened = session.optuna_study()
    except NotReady:
        return False
    if opened.user_attrs[attributes.DIGEST] != session.study.digest:
        return False
    refuse_stopped(opened)
    study, service = session.study, studies.service_of(session.store)
    return work_state(opened, n_open(study), hours=study.budget.hours, storage=service)[0] == "over"


def make_ready(session: Session, *, device: str) -> "Workspace":
    """The study's workspace with all images decoded, as a worker needs it before its first trial."""

    workspace = prepare(session, device=device)
    workspace.decode_images()
    return workspace


def run_studies(
    opened: Sequence[tuple[Session, "Workspace"]], *, stage: Stage, interrupt: Interrupt, n_threads: int = 0
) -> int:
    """Work until every study is over or a stop is requested; returns the number of trials finished here.

    Args:
        opened: studies, in order of priority.
        stage: of each study, to work on.
        n_threads: CPU threads; 0: the number stored with the study.

    Raises:
        NotReady: a confirmation or prunings to work on have not been started.
        WorkersFailed: too many trials in a row crashed or failed; says why.
    """
    from tlopt.training.devices import configure_process

    works = [
        _study_work(session, workspace, stage=stage, n_threads=n_threads) for session, workspace in opened
    ]
    chosen = [work.optuna_study.user_attrs.get(attributes.THREADS, 0) for work in works]
    configure_process(n_threads or next(filter(None, chosen), 0))
    freeze_live_objects()
    n_finished = run_worker(works, studies.service_of(opened[0][0].store), interrupt)
    for work in () if interrupt.requested else works:
        with suppress(KeyError):  # the study was deleted, as the worker has reported
            refuse_stopped(work.optuna_study)
    return n_finished


def _study_work(session: Session, workspace: "Workspace", *, stage: Stage, n_threads: int) -> StudyWork:
    from tlopt.training.checkpoint_store import CheckpointStore

    match stage:
        case "search":
            (opened, plan), folders = begin(session, workspace, n_threads=n_threads), session.folders
        case "confirm":
            (opened, plan), folders = join_confirm(session, workspace), session.confirm_folders
        case "prune":
            (opened, plan), folders = join_prunings(session, workspace), session.prune_folders
    service = session.study.service
    return StudyWork(
        optuna_study=opened,
        plan=plan,
        workspace=workspace,
        folders=folders,
        service=service,
        checkpoints=CheckpointStore(
            f"{session.checkpoints}/{opened.study_name}", bytes_max=int(service.checkpoint_gb_max * 1e9)
        ),
    )
