"""Follow-up studies: a warm start from an earlier study, and the study-file lines that request one."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from tlopt import spec
from tlopt.app.handle import Session
from tlopt.errors import NotReady, Refused, SpecError, StorageError, StudyChanged
from tlopt.model.facts import BackboneFacts
from tlopt.search import warm_start
from tlopt.search.plan import StudyPlan
from tlopt.search.space import decode_params
from tlopt.search.warm_start import Earlier, WarmStart
from tlopt.spec.point import Point
from tlopt.spec.text import is_file, user_path
from tlopt.storage import attributes, studies

if TYPE_CHECKING:
    from tlopt.trial.workspace import Workspace

_logger = logging.getLogger(__name__)
_CONFIG = "config.toml"  # of an export: a study file with one point


def is_new(session: Session) -> bool:
    """Whether the study does not exist yet, or its creation stopped before its file was stored.

    Raises:
        StorageError: another program created a study of this name.
    """
    try:
        session.optuna_study()
    except NotReady:
        return True
    return False


def planned(session: Session, workspace: "Workspace", plan: StudyPlan) -> WarmStart | None:
    """The warm start of a new study; None if its file names none.

    Raises:
        SpecError: there is no such study or export, or it cannot be used.
        NotReady: the earlier study has no finished trial yet.
    """
    study, facts = session.study, workspace.facts
    if not study.warm_start:
        return None
    try:
        if "/" in study.warm_start:
            point = _exported_point(study.warm_start, facts)
            return warm_start.from_point(
                study.warm_start, point, study, facts, initial_points=plan.initial_points(())
            )
        return warm_start.from_study(
            _with_trials(earlier_study(session), session),
            study,
            facts,
            fingerprints=workspace.fingerprints,
            semantics=spec.SEMANTICS_VERSION,
            initial_points=plan.initial_points(()),
        )
    except (SpecError, Refused, StorageError) as error:
        raise SpecError(f"{session.target}: warm_start: {error}") from None


def begin_with(session: Session, opened: optuna.Study, facts: BackboneFacts) -> None:
    """Add the planned trials that the study lacks; several workers may do so at once."""
    warm = stored(opened)
    if warm is None or not warm_start.n_missing(opened, warm):
        return
    if warm.carried:
        try:
            earlier = earlier_study(session)
        except (NotReady, SpecError, StorageError):
            earlier = None
        if earlier is not None and earlier.began == warm.began:
            warm_start.carry_over(opened, warm, earlier, session.study, facts)
    warm_start.enqueue(opened, warm)
    if n := warm_start.n_missing(opened, warm):
        _logger.warning("%s is gone: %d of its trials were not carried over", warm.source, n)


def stored(opened: optuna.Study) -> WarmStart | None:
    """The warm start planned when the study was created; None without one."""
    found: dict[str, Any] | None = opened.user_attrs.get(attributes.WARM_START)
    return None if found is None else WarmStart.from_attribute(found)


def warm_start_summary(session: Session, workspace: "Workspace", plan: StudyPlan) -> str:
    """The summary of the study's warm start, planned or done; "" without one.

    Raises:
        SpecError, NotReady, StudyChanged: as `planned` and `refuse_late`.
    """
    refuse_late(session)
    warm = planned(session, workspace, plan) if is_new(session) else stored(session.optuna_study())
    return "" if warm is None else warm.summary


def refuse_late(session: Session) -> None:
    """Raise if the file names a warm start that the existing study was not created with.

    Raises:
        StudyChanged: it does.
    """
    wanted = session.study.warm_start
    if not wanted or is_new(session):
        return
    warm = stored(session.optuna_study())
    if warm is None or warm.source != wanted:
        has = "none" if warm is None else warm.source
        raise StudyChanged(
            f"the file no longer matches the stored study {session.study.name!r}: warm_start: study has"
            f" {has}, here is {wanted}. It is read once, when a study is created: give this search"
            " another name, or restore the key"
        )


def earlier_study(session: Session) -> Earlier:
    """The study that the file names.

    Raises:
        SpecError: there is none, or this version cannot read it.
        StorageError: it was not created by tlopt, or by a newer version.
    """
    name = session.study.warm_start
    try:
        cure = "name one that has begun, or the folder of an export, as in exports/NAME"
        opened = studies.open_existing(session.store, name, cure=cure)
        study = studies.stored_spec(opened)
    except NotReady as error:
        hint = f'; a folder has a /: "./{name}"' if Path(name).is_dir() else ""
        raise SpecError(f"{error}{hint}") from None
    return Earlier(
        study=study,
        trials=attributes.trials_of(opened),
        began=opened.user_attrs.get(attributes.BEGAN),
        semantics=opened.user_attrs[attributes.SEMANTICS],
        fingerprints={
            name: opened.user_attrs.get(attributes.fingerprint_key(name), "")
            for name in attributes.FINGERPRINTS
        },
    )


def _with_trials(earlier: Earlier, session: Session) -> Earlier:
    """`earlier`, which must have a finished trial.

    Raises:
        NotReady: no trial of it has finished.
    """
    if any(trial.state.is_finished() for trial in earlier.trials):
        return earlier
    raise NotReady(
        f"warm_start: no trial of {earlier.study.name!r} has finished yet: wait for some, or leave the key"
        f" out of {session.target}"
    )


def _exported_point(folder: str, facts: BackboneFacts) -> Point:
    """The point of the export in `folder`.

    Raises:
        SpecError: there is no export, or its network is not in this study.
    """
    path = user_path(folder) / _CONFIG
    if not is_file(path):
        raise SpecError(f"{folder} is not an export: it has no {_CONFIG}; tlopt export writes one")
    exported = spec.load(path)
    backbone = exported.model.backbones[0]
    if backbone not in facts.n_blocks:
        raise SpecError(f"{folder} has the network {backbone}, which is not in this search")
    try:
        return decode_params({}, exported, facts)
    except KeyError:
        raise SpecError(f"{path} has ranges: it is a study file, not the config of an export") from None
