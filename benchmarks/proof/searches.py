"""tlopt's searches of one set of images, each ended by its number of training epochs.

They run in this process, one after the other: `tlopt.run` would start two workers for each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import tomlkit

from tlopt.app import workflow
from tlopt.app.handle import Session, open_session
from tlopt.confirmation.verdict import Verdict
from tlopt.search.defaults import defaults
from tlopt.search.plan import StudyPlan
from tlopt.search.race import n_point_runs
from tlopt.search.samplers import InitialPointsSampler
from tlopt.spec import Study
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import seed_for
from tlopt.storage import attributes, studies
from tlopt.storage.attributes import records_of
from tlopt.trial.workspace import Workspace
from tlopt.worker.claim import StudyWork
from tlopt.worker.loop import run_worker
from tlopt.worker.shutdown import Interrupt

Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way of searching.

    Attributes:
        name: As in the table.
        change: Changes the `[search]` table of the proposed file.
        defaults: Labels of the defaults that begin the search and join its confirmation; None: all, and the
            other initial points.
    """

    name: str
    change: Callable[[Table], None]
    defaults: tuple[str, ...] | None


def _as_proposed(_: Table) -> None:
    """Every key as it is."""


def _networks_only(search: Table) -> None:
    """No linear classifiers."""
    search.pop("classifier", None)


def _rate_only(search: Table) -> None:
    """All keys as in plain fine-tuning, except the rate."""
    fixed = ("resolution", "batch_size", "optimizer")
    for key in [key for key in search if key not in (*fixed, "lr")]:
        del search[key]


WITH = Method(name="tlopt, as proposed", change=_as_proposed, defaults=None)
WITHOUT = Method(name="tlopt, space alone", change=_networks_only, defaults=(PROBE_LABEL, PLAIN_LABEL))
RATE = Method(name="rate alone", change=_rate_only, defaults=(PLAIN_LABEL,))


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A finished search and its confirmation."""

    session: Session
    workspace: Workspace
    verdict: Verdict
    n_trials: int
    search_epochs: int
    confirm_epochs: int


def search(method: Method, proposed: str, folder: Path, *, seed: int, epochs: int) -> Searched:
    """Search and confirm in `folder`; goes on where an earlier call was stopped.

    Args:
        proposed: The study file that `tlopt init` writes.
        epochs: Training epochs of search and confirmation, after which no trial of the search starts; 0: the
            trials of the proposed file, whatever they take.
    """
    file = folder / f"{method.name.replace(', ', '-').replace(' ', '-')}.toml"
    file.write_text(_study_text(method, proposed, file.stem, seed))
    session = open_session(file, storage_url=f"sqlite:///{folder}/tlopt.db", runs=folder / "runs")
    workspace = workflow.prepare(session)
    opened, plan = workflow.begin(session, workspace, n_threads=1)
    if method.defaults is not None:
        opened.set_user_attr(attributes.DEFAULTS, [{"label": label} for label in method.defaults])
        plan = _started_from(session, workspace, opened, plan, method.defaults)
    if epochs:
        n_defaults = len(defaults(session.study, workspace.facts, method.defaults))
        plan = replace(plan, n_open=lambda found: n_open(session.study, found, n_defaults, epochs))
    _work(session, workspace, opened, plan)
    confirmation, confirm_plan = workflow.begin_confirm(session, workspace)
    _work(session, workspace, confirmation, confirm_plan)
    return Searched(
        session=session,
        workspace=workspace,
        verdict=workflow.judge(session, workspace),
        n_trials=sum(record.counts for record in records_of(opened)),
        search_epochs=n_epochs(opened),
        confirm_epochs=n_epochs(confirmation),
    )


def n_epochs(opened: optuna.Study) -> int:
    """Epochs that the trials of a study have trained; one for a linear classifier."""
    return sum(len(trial.intermediate_values) for trial in opened.get_trials(deepcopy=False))


def n_open(study: Study, opened: optuna.Study, n_defaults: int, epochs_max: int) -> int:
    """Trials to finish: one more than have ended, as long as epochs are left beside those of a confirmation.

    The confirmation would have all defaults and the complete trials so far, as many as it takes.
    """
    ended = [record for record in records_of(opened) if record.counts]
    complete = sum(record.has_value and not record.label for record in ended)
    runs = n_point_runs(min(complete, study.confirm.points), study.confirm.seeds)
    confirmation = (runs + n_defaults * study.confirm.seeds) * study.budget.epochs
    return len(ended) + (n_epochs(opened) + confirmation < epochs_max)


def _started_from(
    session: Session, workspace: Workspace, opened: optuna.Study, plan: StudyPlan, labels: Sequence[str]
) -> StudyPlan:
    """The plan with these defaults as its only initial points."""
    study = session.study
    begun = defaults(study, workspace.facts, labels)
    starts = [default.params for default in begun if default.params is not None]
    plan = replace(plan, initial_points=lambda _: starts)
    opened.sampler = InitialPointsSampler(
        plan.initial_points,
        study.sampler,
        seed=seed_for(study.seed, opened.study_name),
        full_study=opened,
        transform=plan.sampler_trials,
    )
    return plan


def _work(session: Session, workspace: Workspace, opened: optuna.Study, plan: StudyPlan) -> None:
    """Run the trials of `plan` in this process."""
    is_search = opened.study_name == session.study.name
    work = StudyWork(
        optuna_study=opened,
        plan=plan,
        workspace=workspace,
        folders=session.folders if is_search else session.confirm_folders,
        service=session.study.service,
        checkpoints=None,
    )
    run_worker([work], studies.service_of(session.store), Interrupt())


def _study_text(method: Method, proposed: str, name: str, seed: int) -> str:
    """The proposed file for this method, under its own name and seed.

    Numerics and objective are the same on all machines and sets, so that accuracies can be compared.
    """
    document: Table = tomlkit.parse(proposed)
    document |= {"name": name, "seed": seed, "objective": "accuracy"}
    document["model"] |= {"precision": "float32", "layout": "usual"}
    document["search"].pop("class_weights", None)
    method.change(document["search"])
    return tomlkit.dumps(document)
