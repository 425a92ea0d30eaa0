"""The explanation of a search, and the study file of a follow-up search with better ranges."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from tlopt import spec
from tlopt.analysis.explain.explanation import Explanation, change_words, explain
from tlopt.analysis.format import dimension_words
from tlopt.app import follow_up
from tlopt.app.handle import Session
from tlopt.errors import MissingExtra, NotReady, SpecError, StudyChanged
from tlopt.model.facts import BackboneFacts
from tlopt.search.plan import search_plan
from tlopt.search.space import check_depths
from tlopt.search.warm_start import from_study
from tlopt.spec import Study
from tlopt.spec.differences import changes, follow_up_name
from tlopt.spec.text import is_file
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.storage.studies import stored_spec
from tlopt.system.words import joined

_NO_TRIALS = 224  # pixels per side of a backbone without trials, none of which can be carried over


@dataclass(frozen=True, kw_only=True, repr=False)
class NextStudy:
    """A follow-up study of a search: its file, and why its ranges are as they are.

    Attributes:
        earlier: name of the search.
        name: of the follow-up study.
        text: its study file; "" where no range has to change.
        explanation: the evidence and the decision on each key.
        warm_start: a sentence on the trials that it begins with; "" without a text, or if a backbone's
            package is missing here.
    """

    earlier: str
    name: str
    text: str
    explanation: Explanation
    warm_start: str

    def __repr__(self) -> str:
        changed = ", ".join(f"{each.key} {each.kind}" for each in self.explanation.changes)
        return f"<NextStudy {self.name} of {self.earlier}: {changed or 'no range has to change'}>"


def explanation_of(session: Session, *, n_blocks: int | None = None) -> Explanation:
    """What the trials of the search say about its keys, as the database has them.

    Args:
        n_blocks: of the smallest backbone, see `explain`.

    Raises:
        NotReady: the study has not been begun.
    """
    opened = session.optuna_study()
    chosen = session.snapshot().chosen_trial
    keep = () if chosen is None else (chosen,)
    return explain(stored_spec(opened), opened.get_trials(deepcopy=False), n_blocks=n_blocks, keep=keep)


def propose_next(session: Session) -> NextStudy:
    """A study file with the ranges that the trials of a search suggest; writes nothing.

    Raises:
        NotReady: the study has not been begun, or its trials are too few to tell anything.
        SpecError: it is a grid, or has several objectives.
        StudyChanged: the file no longer matches the stored study.
    """
    opened = session.optuna_study()
    study = stored_spec(opened)
    _check(session, study)
    n_blocks = _n_blocks(study)
    found = explanation_of(session, n_blocks=min(n_blocks.values(), default=None))
    if not found.effects:
        raise NotReady(f"{study.name}: {found.note}")
    name = follow_up_name(study.name, optuna.get_all_study_names(session.store))
    if not found.changes:
        return NextStudy(earlier=study.name, name=name, text="", explanation=found, warm_start="")
    text = _text(session, found, name, study.name)
    new = spec.loads(text, f"the follow-up of {session.target}")
    warm_start = ""
    if n_blocks:
        facts = _facts(opened, study, n_blocks)
        check_depths(new, facts)
        warm_start = _warm_start(replace(session, study=new), opened, facts)
    return NextStudy(earlier=study.name, name=name, text=text, explanation=found, warm_start=warm_start)


def lines(found: NextStudy) -> list[str]:
    """The decision on each key, changed ones first, with its reason."""
    decisions = sorted(found.explanation.decisions, key=lambda decision: decision.kind == "kept")
    said = [f"{found.earlier}: {found.explanation.note}"]
    for each in decisions:
        what = f"{each.key} as it is" if each.kind == "kept" else change_words(each)
        said.append(f"- {what}: {each.reason}")
    return [*said, *([f"warm start: {found.warm_start}"] if found.warm_start else [])]


def default_file(session: Session, name: str) -> Path:
    """NAME.toml beside the study's file, or in the working directory if the study was named."""
    return Path(session.target).with_name(f"{name}.toml") if is_file(session.target) else Path(f"{name}.toml")


def _check(session: Session, study: Study) -> None:
    if study.is_grid:
        raise SpecError(f"{study.name} is a grid, which has no ranges; see {session.command('curves')}")
    if study.objectives:
        raise SpecError(
            f"{study.name} has several objectives, {joined(study.objectives)}, and ranges are judged by one;"
            " edit them by hand, under another name"
        )
    if differing := changes(study, session.study):
        raise StudyChanged(
            f"{session.target} no longer matches the stored study {study.name!r}: {'; '.join(differing)}."
            f" Name the study itself, whose file is kept with it: {session.command('next', study.name)}"
        )


def _text(session: Session, found: Explanation, name: str, earlier: str) -> str:
    # tomlkit takes a tenth of a second
    from tlopt.propose.next_file import NewRange, next_file

    ranges = [
        NewRange(
            key=d.key, dimension=d.after, reason=f"{d.kind}, was {dimension_words(d.before)}: {d.reason}"
        )
        for d in found.changes
        if not isinstance(d.after, spec.PerOptimizer)
    ]
    title = f"begun with the trials of {earlier}; {found.note}"
    return next_file(session.file_text, ranges, name=name, earlier=earlier, title=title)


def _n_blocks(study: Study) -> Mapping[str, int]:
    """Numbers of blocks by backbone; empty if a backbone's package is missing here."""
    from tlopt.model.build import n_blocks

    with suppress(MissingExtra, SpecError):
        return {name: n_blocks(name) for name in study.model.backbones}
    return {}


def _facts(opened: optuna.Study, study: Study, n_blocks: Mapping[str, int]) -> BackboneFacts:
    """Facts about the backbones without their weights; resolutions are those of the trials."""
    from tlopt.model.rates import has_batch_norm, usual_lr

    points = [TrialRecord.from_frozen(trial).point for trial in opened.get_trials(deepcopy=False)]
    resolution = {point["backbone"]: point["resolution"] for point in points if point}
    return BackboneFacts(
        n_blocks=n_blocks,
        transferable=study.model.weights != "none",
        resolution={name: resolution.get(name, _NO_TRIALS) for name in n_blocks},
        batch_norm={name: has_batch_norm(name) for name in n_blocks},
        plain_lr={name: usual_lr(name) for name in n_blocks},
    )


def _warm_start(session: Session, opened: optuna.Study, facts: BackboneFacts) -> str:
    stored: Mapping[str, Any] = opened.user_attrs
    n_splits = stored.get(attributes.IMAGES, {}).get("n_splits", 1)
    return from_study(
        follow_up.earlier_study(session),
        session.study,
        facts,
        fingerprints={
            name: str(stored.get(attributes.fingerprint_key(name), "")) for name in attributes.FINGERPRINTS
        },
        semantics=spec.SEMANTICS_VERSION,
        initial_points=search_plan(session.study, facts, n_splits).initial_points(()),
    ).summary
