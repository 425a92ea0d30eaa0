"""From a study file to a verdict: prepare, search, confirm, judge. Long steps yield snapshots."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

import optuna

from tlopt.analysis.format import gain_sentences, hours_sentence, winner_sentence
from tlopt.analysis.prunings import prune_sentence
from tlopt.analysis.snapshot import Snapshot, n_confirm_splits, n_images
from tlopt.app import follow_up, tables
from tlopt.app.handle import Session, errors_of
from tlopt.app.limits import check_limits
from tlopt.app.local_run import follow
from tlopt.app.next_study import explanation_of
from tlopt.confirmation import candidates as confirmation
from tlopt.confirmation import companion
from tlopt.confirmation.evidence import odds_min
from tlopt.confirmation.verdict import Verdict
from tlopt.dashboard import note
from tlopt.errors import NotReady, StudyChanged
from tlopt.search.defaults import begun_labels, defaults, linear_points
from tlopt.search.grid import check_grid
from tlopt.search.plan import StudyPlan, confirm_plan, search_plan
from tlopt.search.race import Candidate
from tlopt.search.samplers import InitialPointsSampler, make_pruner
from tlopt.search.space import check_depths
from tlopt.spec import Study
from tlopt.spec.point import seed_for
from tlopt.storage import attributes, studies
from tlopt.storage.attributes import SharedChoices
from tlopt.storage.commands import Command
from tlopt.system.cpus import n_cores
from tlopt.system.words import as_sentence, counted
from tlopt.worker import local
from tlopt.worker.observers import check_loggers

if TYPE_CHECKING:
    from tlopt.data.dataset import Data
    from tlopt.trial.workspace import Workspace


def prepare(session: Session, *, device: str = "cpu", progress: bool = False) -> "Workspace":
    """The study's images and weights, read and checked against its ranges.

    Raises:
        SpecError, DataError, WeightsError: what is wrong, and what to do.
    """
    from tlopt.training.devices import choose_device
    from tlopt.trial.workspace import Workspace

    stored: Mapping[str, Any] = {}
    with suppress(NotReady):
        stored = session.optuna_study().user_attrs
    with errors_of(session.target):
        check_loggers(session.study.service.loggers)
        workspace = Workspace.open(session.study, choose_device(device), progress=progress)
        begun_with = stored.get(attributes.fingerprint_key("data"), workspace.fingerprints["data"])
        if workspace.fingerprints["data"] != begun_with:
            workspace = workspace.as_split_by_file_copies(begun_with)
        check_depths(session.study, workspace.facts)
        workspace.check_resolutions()
        workspace.check_train_images()
        check_grid(session.study, workspace.facts)
    workspace.use_numerics(stored.get(attributes.NUMERICS, {}))
    return workspace


def begin(session: Session, workspace: "Workspace", *, n_threads: int = 0) -> tuple[optuna.Study, StudyPlan]:
    """The search in the database, created or opened, and its plan; workers and dashboards can now join.

    Args:
        n_threads: CPU threads per worker, stored for all workers if the study is new; 0: all cores.

    Raises:
        StudyChanged: the file no longer matches the stored study of that name.
        SpecError: no network of a new study would keep its `[constraints]`.
    """
    study = session.study
    session.refuse_foreign_confirmation()
    if study.prune.goals:
        session.refuse_foreign_prunings()
    follow_up.refuse_late(session)
    refuse_vain_limits(session, workspace)
    plan = _search_plan(session, workspace)
    try:
        opened = studies.create_or_open(
            session.store,
            study,
            file_text=session.file_text,
            fingerprints=dict(workspace.fingerprints),
            choices=_choices(session, workspace, plan, n_threads or n_cores()),
            pruner=make_pruner(
                study.pruner,
                epochs_max=study.budget.epochs,
                n_linear=len(linear_points(study, workspace.facts)),
            ),
        )
    except StudyChanged as error:
        raise _with_cure(error, session, workspace) from None
    workspace.use_numerics(opened.user_attrs.get(attributes.NUMERICS, {}))
    follow_up.begin_with(session, opened, workspace.facts)
    opened.sampler = sampler(study, plan, opened)
    return opened, plan


def refuse_vain_limits(session: Session, workspace: "Workspace") -> None:
    """Raise if no network of a study that has not begun keeps its `[constraints]`, latency aside.

    Raises:
        SpecError: names the limit, the cheapest network and the keys to change.
    """
    if follow_up.is_new(session):
        with errors_of(session.target):
            check_limits(session.study, workspace.facts, workspace.counted_cost)


def refuse_changed(session: Session, workspace: "Workspace") -> None:
    """Raise if the search cannot continue with this file and these images; a new search always can.

    Raises:
        StudyChanged: the file no longer matches the stored study of that name.
    """
    with suppress(NotReady):
        opened = session.optuna_study()
        try:
            studies.refuse_changes(opened, session.study, dict(workspace.fingerprints))
        except StudyChanged as error:
            raise _with_cure(error, session, workspace) from None


def _with_cure(error: StudyChanged, session: Session, workspace: "Workspace") -> StudyChanged:
    """The error, with the numbers of images that differ and the lines of a follow-up study added."""
    counts = _counts_that_differ(session, workspace)
    cure = studies.follow_up_cure(session.optuna_study(), session.study)
    return StudyChanged(f"{error}{counts}" + (f"\n{cure}" if cure else ""))


def check_lines(session: Session, workspace: "Workspace") -> Iterator[str]:
    """Lines on what the study would do, a warm start included.

    Raises:
        SpecError, NotReady, StudyChanged: its warm start is not possible.
    """
    yield from tables.study_lines(session.study, workspace, _default_labels(session))
    yield from warm_start_lines(session, workspace)


def warm_start_lines(session: Session, workspace: "Workspace") -> Iterator[str]:
    """A line on the study's warm start, planned or done; none without one.

    Raises:
        SpecError, NotReady, StudyChanged: its warm start is not possible.
    """
    if said := follow_up.warm_start_summary(session, workspace, _search_plan(session, workspace)):
        yield f"warm start: {said}"


def _search_plan(session: Session, workspace: "Workspace") -> StudyPlan:
    """The plan of the search, with the defaults it began with if it has begun."""
    n_splits = workspace.data.n_trial_splits
    return search_plan(session.study, workspace.facts, n_splits, _default_labels(session))


def _default_labels(session: Session) -> tuple[str, ...] | None:
    """The labels of the defaults that the study began with; None for a new one."""
    if follow_up.is_new(session):
        return None
    return begun_labels(session.study, session.optuna_study().user_attrs.get(attributes.DEFAULTS))


def _choices(
    session: Session, workspace: "Workspace", plan: StudyPlan, n_threads: int
) -> SharedChoices | None:
    """Choices and measurements of the first worker for all others; None if the study exists."""
    from tlopt.training.devices import configure_process
    from tlopt.trial.autotune import measure_numerics

    if not follow_up.is_new(session):
        return None
    warm = follow_up.planned(session, workspace, plan)
    configure_process(n_threads)
    chosen = measure_numerics(
        session.study, workspace.weights, n_classes=workspace.n_classes, device=workspace.device
    )
    return SharedChoices(
        threads=n_threads,
        numerics={name: str(numerics) for name, numerics in chosen.items()},
        images=_images(workspace),
        defaults=[default.label for default in defaults(session.study, workspace.facts)],
        warm_start=None if warm is None else warm.as_attribute(),
    )


def _counts_that_differ(session: Session, workspace: "Workspace") -> str:
    """The numbers of images of the study and of this machine, if their fingerprints differ; else ""."""
    stored = session.optuna_study().user_attrs
    before, here = stored.get(attributes.IMAGES, {}), _images(workspace)
    if stored.get(attributes.fingerprint_key("data")) in (None, workspace.fingerprints["data"]) or not before:
        return ""

    def said(counts: dict[str, Any]) -> str:
        return (
            f"{counts['n_train']} train, {counts['n_val']} validation and"
            f" {counted(counts['n_test'], 'test image')} in {counted(counts['n_classes'], 'class')}"
        )

    same = said(before) == said(here)
    more = " (as many: files were exchanged or edited)" if same else f", here are {said(here)}"
    return f"; images: the study has {said(before)}{more}"


def _images(workspace: "Workspace") -> dict[str, Any]:
    """Class names and numbers of images, for those who read only the database."""
    data = workspace.data
    return {
        "class_names": data.class_names[: attributes.CLASS_NAMES_MAX],
        "n_classes": len(data.class_names),
        "n_train": len(data.splits[0].train),
        "n_val": len(data.splits[0].val),
        "n_splits": data.n_trial_splits,
        **({"n_confirm_splits": data.n_confirm_splits} if data.n_confirm_splits else {}),
        "n_test": data.n_test,
    }


def begin_confirm(session: Session, workspace: "Workspace") -> tuple[optuna.Study, StudyPlan]:
    """The confirmation in the database and its plan, with the search's best points and the defaults.

    Raises:
        NotReady: no trial of the search is complete and feasible.
    """
    from tlopt.training.devices import choose_device

    late = hours_sentence(session.snapshot())
    search = session.optuna_study()
    measured = workspace.on_device(choose_device()) if session.study.constraints.latency_ms else workspace
    candidates = confirmation.find_candidates(
        session.study,
        search,
        workspace.facts,
        late=late,
        is_feasible=lambda point: not measured.broken_limits(point),
    )
    return _with_candidates(session, workspace, candidates)


def join_confirm(session: Session, workspace: "Workspace") -> tuple[optuna.Study, StudyPlan]:
    """The confirmation that another process has begun, and its plan.

    Raises:
        NotReady: there is none.
        StudyChanged: it belongs to an earlier search of the same name.
    """
    session.confirmation()
    return _with_candidates(session, workspace, ())


def _with_candidates(
    session: Session, workspace: "Workspace", candidates: Sequence[Candidate]
) -> tuple[optuna.Study, StudyPlan]:
    """The confirmation with `candidates` added to those it has, and its plan."""
    session.refuse_foreign_confirmation()
    opened = open_companion(session, workspace, session.confirm_name, attributes.CANDIDATES)
    odds = _odds(session.study, workspace.data)
    confirmation.add_candidates(opened, candidates, session.study, odds=odds)
    race = confirmation.stored_race(session.study, opened)
    # called while a trial is claimed, when the database must not be queried for the folders' name
    weights_file = session.confirm_folders.weights_file
    plan = confirm_plan(session.study, race, workspace.data.confirm_split, weights_file)
    run_all(session.study, plan, opened)
    return opened, plan


def open_companion(session: Session, workspace: "Workspace", name: str, list_of: str) -> optuna.Study:
    """The study `name` of the search in the database, created or opened; see `companion.open_companion`."""
    return companion.open_companion(
        session.store,
        session.study,
        name=name,
        list_of=list_of,
        search=session.optuna_study(),
        file_text=session.file_text,
        fingerprints=workspace.fingerprints,
    )


def run_all(study: Study, plan: StudyPlan, opened: optuna.Study) -> None:
    """Let `opened` run every trial of the plan to its end."""
    opened.sampler = sampler(study, plan, opened)
    opened.pruner = optuna.pruners.NopPruner()


def _odds(study: Study, data: "Data") -> float:
    """The odds at which a confirmation chooses a searched point over the strongest default."""
    seeds = study.confirm.seeds
    val = {data.confirm_split(replicate) for replicate in range(seeds)}
    return odds_min(sum(len(data.splits[index].val) for index in val), others=data.n_confirm_splits >= seeds)


def study_threads(session: Session) -> AbstractContextManager[None]:
    """Use the study's number of threads within a block, to train networks again in this process."""
    from tlopt.training.devices import configured_process

    return configured_process(session.optuna_study().user_attrs.get(attributes.THREADS, 0))


def search(session: Session, workspace: "Workspace", *, n_workers: int = 0) -> Iterator[Snapshot]:
    """Run the search with local workers to its end; yields the study twice a second.

    Raises:
        WorkersFailed: workers ended with an error and the budget is not spent.
        NotReady: the study was paused, cancelled or archived.
    """
    from tlopt.training.devices import choose_device, device_names

    at = local.slots(n_workers, device_names(), n_cores())
    if follow_up.is_new(session) and "auto" in (session.study.model.precision, session.study.model.layout):
        yield _before(session, "measuring which precision and layout are fastest, once for all workers")
    # measured where the workers will run
    opened, plan = begin(session, workspace.on_device(choose_device(at[0].device)), n_threads=at[0].n_threads)
    yield from follow(session, opened, plan, session.folders, n_workers, stage="search")


def _before(session: Session, doing: str) -> Snapshot:
    """A snapshot of a study that is not in the database yet."""
    return Snapshot(study=session.study, command=Command(), trials=(), workers=(), doing=doing)


def confirm(session: Session, workspace: "Workspace", *, n_workers: int = 0) -> Iterator[Snapshot]:
    """Run the confirmation with local workers to its end; yields the study twice a second."""
    opened, plan = begin_confirm(session, workspace)
    yield from follow(session, opened, plan, session.confirm_folders, n_workers, stage="confirm")


def judge(session: Session, workspace: "Workspace") -> Verdict:
    """The verdict of a finished confirmation; reads the held-out images if that has not been done.

    Raises:
        NotReady: the confirmation has unfinished runs.
    """
    from tlopt.confirmation.held_out import read_test, record_validation
    from tlopt.training.devices import choose_device

    opened, search = session.confirmation(), session.optuna_study()

    def read() -> Verdict:
        known = n_images(search)
        return confirmation.read_verdict(
            session.study, opened, n_images=known, n_splits=n_confirm_splits(search)
        )

    verdict = read()
    if not verdict.finished:
        raise NotReady(
            f"{opened.study_name}: {verdict.n_finished} of {verdict.n_expected} runs have ended;"
            f" continue with: {session.command('confirm')}"
        )
    wanted = confirmation.wants_test(verdict)
    if wanted and workspace.data.n_test:
        with study_threads(session):
            test = read_test(workspace.on_device(choose_device()), wanted, session.weights_file)
        confirmation.record_test(opened, test)
        verdict = read()
    if verdict.chosen.val:
        with study_threads(session):
            record_validation(workspace.on_device(choose_device()), verdict, session.weights_file)
    renew_note(session, workspace)
    return verdict


def renew_note(session: Session, workspace: "Workspace") -> None:
    """Update the study's note in the dashboard, with the verdict once the confirmation is finished."""
    snapshot = session.snapshot()
    decided = snapshot.verdict if snapshot.chosen is not None else None
    note.update_note(
        session.optuna_study(),
        session.study,
        images=workspace.images_summary,
        verdict=() if decided is None else _result_sentences(snapshot, decided),
        chosen=snapshot.chosen_trial,
        explained=() if decided is None else explanation_of(session).sentences,
    )


def _result_sentences(snapshot: Snapshot, decided: Verdict) -> list[str]:
    found = [winner_sentence(snapshot), *gain_sentences(decided), prune_sentence(snapshot)]
    return [as_sentence(said) for said in found if said]


def sampler(study: Study, plan: StudyPlan, opened: optuna.Study) -> InitialPointsSampler:
    """The sampler of a study with this plan."""
    seed = seed_for(study.seed, opened.study_name)
    return InitialPointsSampler(
        plan.initial_points, study.sampler, seed=seed, full_study=opened, transform=plan.sampler_trials
    )
