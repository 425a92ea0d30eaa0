"""Opening databases, and creating or opening studies in them; safe for many processes at once."""

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage

from tlopt import spec
from tlopt.errors import NotReady, SpecError, StorageError, StudyChanged
from tlopt.spec.differences import changes, differences, follow_up_lines, follow_up_name
from tlopt.spec.study import CONFIRM_SUFFIX, PRUNE_SUFFIX, is_companion
from tlopt.storage import attributes, optuna_private, writes
from tlopt.storage.attributes import SharedChoices
from tlopt.storage.connect import as_storage_errors, connect, is_initialised
from tlopt.storage.rdb import ServiceStorage
from tlopt.storage.retry import DEFAULT_OUTAGE_SECONDS_MAX, Retry
from tlopt.storage.schema import epoch_seconds
from tlopt.storage.url import find_url, hide_password, normalise

__all__ = [
    "close",
    "create_or_open",
    "engine_of",
    "find_url",
    "hide_password",
    "normalise",
    "open_existing",
    "open_storage",
    "open_to_read",
    "service_of",
    "stored_spec",
]


def open_storage(
    url: str, *, outage_seconds_max: float = DEFAULT_OUTAGE_SECONDS_MAX, wait_seconds: float = 0.0
) -> BaseStorage:
    """Open the database `url` as a storage with a cache; many processes may do so at once.

    Args:
        outage_seconds_max: longest outage for which later calls are retried.
        wait_seconds: longest wait for a server that does not respond now.

    Raises:
        StorageError: the database cannot be reached, has the tables of an incompatible Optuna, or belongs to
            another application.
    """
    storage = connect(url, Retry(outage_seconds_max), wait_seconds=wait_seconds)
    weakref.finalize(storage, storage.engine.dispose)  # frees a server connection early
    return optuna_private.cached(storage)


def open_to_read(
    url: str, *, outage_seconds_max: float = DEFAULT_OUTAGE_SECONDS_MAX, wait_seconds: float = 0.0
) -> BaseStorage:
    """Like `open_storage`, but creates nothing: an empty storage in memory if nothing was stored yet."""
    if not is_initialised(url, Retry(outage_seconds_max), wait_seconds=wait_seconds):
        return optuna.storages.InMemoryStorage()
    return open_storage(url, outage_seconds_max=outage_seconds_max, wait_seconds=wait_seconds)


def service_of(storage: BaseStorage) -> ServiceStorage:
    """The `ServiceStorage` behind a storage returned by `open_storage`."""
    backend = optuna_private.uncached(storage)
    if not isinstance(backend, ServiceStorage):
        raise StorageError(f"{type(storage).__name__} is not a database of tlopt's; open it by its URL")
    return backend


def close(storage: BaseStorage) -> None:
    """Close an SQLite file's connection, so that its log is merged; do nothing for a server."""
    engine = engine_of(storage)
    if engine.dialect.name == "sqlite":
        engine.dispose()


def engine_of(storage: BaseStorage) -> sqlalchemy.Engine:
    """The engine of a storage returned by `open_storage`."""
    return service_of(storage).engine


def create_or_open(
    storage: BaseStorage,
    study: spec.Study,
    *,
    file_text: str,
    fingerprints: dict[str, str | int],
    choices: SharedChoices | None = None,
    further: Mapping[str, Any] | None = None,
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> optuna.Study:
    """Create the Optuna study of `study` or open it, and store the newest study file.

    Args:
        storage: as returned by `open_storage`.
        study: decoded from `file_text`.
        file_text: the study file; not stored if its budget is smaller than that of the stored one.
        fingerprints: must be equal for all workers; by name, see `attributes.fingerprint_key`.
        choices: choices of the first worker for all; None if the study exists.
        further: further attributes of a new study.
        sampler: passed to Optuna, which does not store it.
        pruner: passed to Optuna, which does not store it.

    Raises:
        StudyChanged: the study exists with another digest, semantics version or fingerprint.
        StorageError: a study of this name exists that was not created by tlopt.
    """
    service = service_of(storage)
    wanted = _Wanted(study, file_text, fingerprints, choices, further or {})
    with as_storage_errors(service.engine.url):
        service.retry.call(lambda: _create_or_check(storage, wanted))
    return optuna.load_study(study_name=study.name, storage=storage, sampler=sampler, pruner=pruner)


@dataclass(frozen=True)
class _Wanted:
    """Arguments of `create_or_open`."""

    study: spec.Study
    file_text: str
    fingerprints: Mapping[str, str | int]
    choices: SharedChoices | None
    further: Mapping[str, Any]


def _create_or_check(storage: BaseStorage, wanted: _Wanted) -> None:
    study = wanted.study
    if study.name in optuna.get_all_study_names(storage):
        opened = optuna.load_study(study_name=study.name, storage=storage)
        if attributes.DIGEST in opened.user_attrs:
            refuse_changes(opened, study, wanted.fingerprints)
            _follow_file(opened, wanted)
            return
    opened = optuna.create_study(
        storage=storage, study_name=study.name, directions=study.directions, load_if_exists=True
    )
    _fill(opened, wanted)
    refuse_changes(opened, study, wanted.fingerprints)  # another process may have created it


def _follow_file(opened: optuna.Study, wanted: _Wanted) -> None:
    """Store the study file unless its budget is smaller than that of the stored one."""
    if opened.user_attrs.get(attributes.STUDY_FILE) == wanted.file_text:
        return
    if wanted.study.budget.trials_max >= stored_spec(opened).budget.trials_max:
        opened.set_user_attr(attributes.STUDY_FILE, wanted.file_text)


def _fill(opened: optuna.Study, wanted: _Wanted) -> None:
    """Store the attributes of a new study in one transaction, unless another process has done so."""
    directions = [direction.name.lower() for direction in opened.directions]
    if directions != list(wanted.study.directions) or _is_foreign(opened):
        raise _not_ours(opened.study_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened.set_metric_names(list(wanted.study.objectives or [wanted.study.objective]))
    service = service_of(optuna_private.storage_of(opened))
    study_id = optuna_private.study_id(opened)
    with service.engine.begin() as connection:
        writes.lock_study(connection, study_id)
        if attributes.DIGEST in writes.study_attributes(connection, study_id):
            return
        began = epoch_seconds(connection, service.engine)
        writes.set_study_attributes(connection, service.engine, study_id, _new_attributes(wanted, began))


def _new_attributes(wanted: _Wanted, began: float) -> dict[str, Any]:
    chosen = {} if wanted.choices is None else wanted.choices.as_attributes()
    return {
        attributes.STUDY_FILE: wanted.file_text,
        attributes.SEMANTICS: spec.SEMANTICS_VERSION,
        attributes.RECORD_FORMAT: attributes.FORMAT_VERSION,
        attributes.BEGAN: began,
        **{attributes.fingerprint_key(name): value for name, value in wanted.fingerprints.items()},
        **chosen,
        **wanted.further,
        attributes.DIGEST: wanted.study.digest,
    }


def open_existing(
    storage: BaseStorage, name: str, *, cure: str = "start it with tlopt run FILE"
) -> optuna.Study:
    """Open the study `name`.

    Args:
        cure: what to do where there is none.

    Raises:
        NotReady: it does not exist, or another worker is still creating it.
        StorageError: it was not created by tlopt.
    """
    try:
        opened = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = optuna.get_all_study_names(storage)
        names = ", ".join(sorted(n for n in known if not is_companion(n, known))) or "none yet"
        raise NotReady(f"there is no study {name!r} in this storage (there are: {names}); {cure}") from None
    if attributes.DIGEST not in opened.user_attrs:
        if _is_foreign(opened):
            raise _not_ours(name)
        raise NotReady(f"the study {name!r} is empty; a worker is about to create it, or: tlopt run FILE")
    checked_attributes(opened)
    return opened


def stored_spec(optuna_study: optuna.Study) -> spec.Study:
    """Decode the study file stored with `optuna_study`, under the study's current name.

    After a copy or rename, the file still contains the original name.

    Raises:
        SpecError: this version of tlopt cannot read the stored file.
    """
    name = optuna_study.study_name
    stored = spec.loads(optuna_study.user_attrs[attributes.STUDY_FILE], f"study {name}")
    prunes = attributes.PRUNINGS in optuna_study.user_attrs
    suffix = PRUNE_SUFFIX if prunes else CONFIRM_SUFFIX
    # see `confirmation.companion`
    one_metric = {"objectives": ()} if name.endswith(suffix) else {}
    return stored.model_copy(update={"name": name.removesuffix(suffix), **one_metric})


def is_empty(opened: optuna.Study) -> bool:
    """Whether tlopt has stored nothing yet: a process is creating the study, or was stopped while it did."""
    return attributes.DIGEST not in opened.user_attrs and not _is_foreign(opened)


def _is_foreign(opened: optuna.Study) -> bool:
    """Whether the study has trials and was not created by tlopt, which stores a digest before any trial."""
    return bool(opened.get_trials(deepcopy=False)) and attributes.DIGEST not in opened.user_attrs


def _not_ours(name: str) -> StorageError:
    return StorageError(f"the study {name!r} in this storage was not created by tlopt; choose another name")


def checked_attributes(opened: optuna.Study) -> dict[str, Any]:
    """The study's user attributes, read once.

    Raises:
        StorageError: a newer tlopt, or something other than tlopt, wrote one of tlopt's.
    """
    name, stored = opened.study_name, opened.user_attrs
    found = stored.get(attributes.RECORD_FORMAT, 1)
    if type(found) is int and found > attributes.FORMAT_VERSION:  # first: other types are no damage there
        raise StorageError(
            f"the study {name!r} was created by a newer tlopt: its records have format {found}, this version"
            f" reads {attributes.FORMAT_VERSION}; install the newer one"
        )
    if damaged := attributes.damaged(stored):
        raise StorageError(
            f"the study {name!r} is damaged: something other than tlopt has set {', '.join(damaged)};"
            f" restore the database from a backup, or delete the study: tlopt delete {name}"
        )
    return stored


def refuse_changes(opened: optuna.Study, study: spec.Study, fingerprints: Mapping[str, str | int]) -> None:
    """Check that `study` means the same as the stored one and that images and weights are the same.

    Args:
        fingerprints: as for `create_or_open`.

    Raises:
        StudyChanged: they are not; names each key with both values.
        StorageError: a newer version of tlopt created the stored study.
    """
    stored = checked_attributes(opened)
    if stored[attributes.SEMANTICS] < spec.SEMANTICS_VERSION:
        raise StudyChanged(
            f"the study {opened.study_name!r} was begun by an earlier tlopt (tlopt:semantics: study has"
            f" {stored[attributes.SEMANTICS]}, here is {spec.SEMANTICS_VERSION}); end that version's workers,"
            f" then: tlopt upgrade {opened.study_name}"
        )
    here = {
        attributes.SEMANTICS: spec.SEMANTICS_VERSION,
        **{attributes.fingerprint_key(name): value for name, value in fingerprints.items()},
    }
    differing = differences({key: stored.get(key, "none") for key in here}, here)
    if stored[attributes.DIGEST] != study.digest:
        differing = [*_differing_keys(opened, study), *differing]
    if differing:
        raise StudyChanged(
            f"the file no longer matches the stored study {opened.study_name!r}: {'; '.join(differing)};"
            " give this search another name, or restore what changed"
        )


def follow_up_cure(opened: optuna.Study, study: spec.Study) -> str:
    """The two lines that make `study` a follow-up study of the stored one; "" if its file is the same.

    Also "" for a study of an earlier version of tlopt, which can continue once it is upgraded, and with
    several objectives, since a warm start carries one value.
    """
    stored, storage = opened.user_attrs, optuna_private.storage_of(opened)
    if stored[attributes.SEMANTICS] < spec.SEMANTICS_VERSION or stored[attributes.DIGEST] == study.digest:
        return ""
    if study.objectives:  # a search for a front starts from no other
        return ""
    new = follow_up_name(study.name, optuna.get_all_study_names(storage))
    return (
        "To continue from its trials with the file as it is now, begin it with these lines:\n"
        f"{follow_up_lines(new, study.name)}"
    )


def _differing_keys(opened: optuna.Study, study: spec.Study) -> list[str]:
    """The differing keys; none if the digests differ only because one file spells out a default."""
    digests = {"digest": opened.user_attrs[attributes.DIGEST]}
    try:
        stored = stored_spec(opened)
    except SpecError:  # written by another version of tlopt
        return differences(digests, {"digest": study.digest})
    found = changes(stored, study)
    if not found and stored.digest != digests["digest"]:  # by another version's digest
        return differences(digests, {"digest": study.digest})
    return found
