"""The study's database and the study in it: opened by many processes at once, and never another study."""

import warnings
import weakref
from collections.abc import Mapping
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage

from tlopt import spec
from tlopt.errors import NotReady, SpecError, StorageError, StudyChanged
from tlopt.spec.differences import changes, differences
from tlopt.spec.study import CONFIRM_SUFFIX
from tlopt.storage import attributes, optuna_private
from tlopt.storage.connect import connect, translated, turns
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.retry import OUTAGE_SECONDS_MAX, Patience
from tlopt.storage.schema import epoch_seconds
from tlopt.storage.url import find_url, hide_password, normalise

__all__ = [
    "create_or_open",
    "engine_of",
    "find_url",
    "hide_password",
    "normalise",
    "open_existing",
    "open_storage",
    "service_of",
    "stored_spec",
]


def open_storage(
    url: str, *, outage_seconds_max: float = OUTAGE_SECONDS_MAX, wait_seconds: float = 0.0
) -> BaseStorage:
    """Optuna's cached storage on the database `url`, with its tables; many processes may open it at once.

    Args:
        outage_seconds_max: how long later calls wait for a database that goes away.
        wait_seconds: how long a server is waited for that does not answer at all now.

    Raises:
        StorageError: the database cannot be reached, or was made by an incompatible Optuna.
    """
    storage = connect(url, Patience(outage_seconds_max), wait_seconds=wait_seconds)
    weakref.finalize(storage, storage.engine.dispose)  # the server's connections are few
    return optuna.storages.get_storage(storage)


def service_of(storage: BaseStorage) -> ServiceStorage:
    """The storage below one that `open_storage` returned."""
    backend = optuna_private.below(storage)
    if not isinstance(backend, ServiceStorage):
        raise StorageError(f"{type(storage).__name__} is not a database of tlopt's; open it by its URL")
    return backend


def engine_of(storage: BaseStorage) -> sqlalchemy.Engine:
    """The engine below a storage that `open_storage` returned."""
    return service_of(storage).engine


def create_or_open(
    storage: BaseStorage,
    study: spec.Study,
    *,
    file_text: str,
    facts: dict[str, str | int],
    choices: Mapping[str, Any] | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """The Optuna study of `study`, made if there is none; the stored file follows the newest.

    Args:
        storage: as `open_storage` returned it.
        study: decoded from `file_text`.
        file_text: the study file, stored with the study; one with fewer trials than are stored is not.
        facts: what every worker has to share (say, the images' fingerprint), by name without prefix.
        choices: what the first worker decides for all, by name without prefix; stored once, not compared.
        sampler: handed to Optuna, which does not store it.
        pruner: handed to Optuna, which does not store it.

    Raises:
        StudyChanged: the study exists with another digest, semantics version or fact.
        StorageError: the name belongs to a study that tlopt did not make.
    """
    service = service_of(storage)
    now = service.ask(lambda executor: epoch_seconds(executor, service.engine))

    def make() -> optuna.Study:
        for turn in turns(service.engine.url):
            with turn as ours:
                opened = _unchanged(storage, study, file_text, facts) if ours else None
                if opened is None and ours:
                    opened = _make_or_change(storage, study, file_text, facts, choices or {}, now)
            # who waits for a second connection must not hold a first
            opened = opened or _unchanged(storage, study, file_text, facts)
            if opened is not None:
                return opened
        raise AssertionError("turns end by an error")

    with translated(service.engine.url):
        opened = service.patience.call(make)
    return optuna.load_study(study_name=opened.study_name, storage=storage, sampler=sampler, pruner=pruner)


Facts = dict[str, str | int]


def _unchanged(storage: BaseStorage, study: spec.Study, file_text: str, facts: Facts) -> optuna.Study | None:
    """The study where it is there and its file is this one."""
    if study.name not in optuna.get_all_study_names(storage):
        return None
    opened = optuna.load_study(study_name=study.name, storage=storage)
    if opened.user_attrs.get(attributes.FILE) != file_text or attributes.DIGEST not in opened.user_attrs:
        return None
    _refuse_changes(opened, study, facts)
    return opened


def _make_or_change(
    storage: BaseStorage,
    study: spec.Study,
    file_text: str,
    facts: Facts,
    choices: Mapping[str, Any],
    now: float,
) -> optuna.Study:
    opened = optuna.create_study(
        storage=storage, study_name=study.name, direction=study.direction, load_if_exists=True
    )
    if attributes.DIGEST not in opened.user_attrs:
        _fill(opened, study, file_text, {**facts, **choices}, now)
    else:
        _refuse_changes(opened, study, facts)
        if study.budget.trials >= stored_spec(opened).budget.trials:
            opened.set_user_attr(attributes.FILE, file_text)
    return opened


def open_existing(storage: BaseStorage, name: str) -> optuna.Study:
    """The Optuna study `name`, which tlopt made before.

    Raises:
        NotReady: there is no study of this name, or another worker is about to make it.
        StorageError: tlopt did not make it.
    """
    try:
        opened = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        names = ", ".join(sorted(optuna.get_all_study_names(storage))) or "none yet"
        raise NotReady(
            f"there is no study {name!r} in this storage (there are: {names}); start it with tlopt run FILE"
        ) from None
    if attributes.DIGEST not in opened.user_attrs:
        if opened.get_trials(deepcopy=False):
            raise _not_ours(name)
        raise NotReady(f"the study {name!r} is empty; a worker is about to make it, or: tlopt run FILE")
    _refuse_later(opened)
    return opened


def stored_spec(optuna_study: optuna.Study) -> spec.Study:
    """The study file that is stored with `optuna_study`, decoded, under the name that the study has now.

    A copied or renamed study keeps the text of the file it was made from, whose name is another study's.

    Raises:
        SpecError: this version of tlopt no longer reads the stored file.
    """
    name = optuna_study.study_name
    stored = spec.loads(optuna_study.user_attrs[attributes.FILE], f"study {name}")
    return stored.model_copy(update={"name": name.removesuffix(CONFIRM_SUFFIX)})


def _not_ours(name: str) -> StorageError:
    return StorageError(f"the study {name!r} in this storage was not made by tlopt; take another name")


def _fill(
    opened: optuna.Study, study: spec.Study, file_text: str, facts: Mapping[str, Any], now: float
) -> None:
    """Make a new study tlopt's; also one whose maker was killed at it."""
    directions = [direction.name.lower() for direction in opened.directions]
    if directions != [study.direction] or opened.get_trials(deepcopy=False):
        raise _not_ours(opened.study_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened.set_metric_names([study.objective])
    opened.set_user_attr(attributes.FILE, file_text)
    opened.set_user_attr(attributes.SEMANTICS, spec.SEMANTICS_VERSION)
    opened.set_user_attr(attributes.FORMAT, attributes.FORMAT_VERSION)
    opened.set_user_attr(attributes.BEGAN, now)
    for name, value in facts.items():
        opened.set_user_attr(attributes.PREFIX + name, value)
    opened.set_user_attr(attributes.DIGEST, study.digest)  # last: it says that the others are there


def _refuse_later(opened: optuna.Study) -> None:
    """Refuse a study whose records a later version has written: this one would read them wrongly."""
    found = opened.user_attrs.get(attributes.FORMAT, 1)
    if found > attributes.FORMAT_VERSION:
        raise StorageError(
            f"the study {opened.study_name!r} was made by a later tlopt: its records have format {found},"
            f" this version reads {attributes.FORMAT_VERSION}; install the later one"
        )


def _refuse_changes(opened: optuna.Study, study: spec.Study, facts: dict[str, str | int]) -> None:
    _refuse_later(opened)
    stored = opened.user_attrs
    if stored[attributes.SEMANTICS] < spec.SEMANTICS_VERSION:
        raise StudyChanged(
            f"the study {opened.study_name!r} was begun by an earlier tlopt (tlopt:semantics: study has"
            f" {stored[attributes.SEMANTICS]}, here is {spec.SEMANTICS_VERSION}); end that version's workers,"
            f" then: tlopt upgrade {opened.study_name}"
        )
    here = {
        attributes.SEMANTICS: spec.SEMANTICS_VERSION,
        **{attributes.PREFIX + key: facts[key] for key in facts},
    }
    differing = differences({key: stored.get(key, "none") for key in here}, here)
    if stored[attributes.DIGEST] != study.digest:
        differing = [*_differing_keys(opened, study), *differing]
    if differing:
        raise StudyChanged(
            f"the study {opened.study_name!r} means something else: {'; '.join(differing)};"
            " give this search another name, or restore what changed"
        )


def _differing_keys(opened: optuna.Study, study: spec.Study) -> list[str]:
    """The keys that differ; none where the digests do because one file says what the other leaves out."""
    digests = {"digest": opened.user_attrs[attributes.DIGEST]}
    try:
        stored = stored_spec(opened)
    except SpecError:  # written by another version of tlopt
        return differences(digests, {"digest": study.digest})
    found = changes(stored, study)
    if not found and stored.digest != digests["digest"]:  # digested in another way than this version's
        return differences(digests, {"digest": study.digest})
    return found
