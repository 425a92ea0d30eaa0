"""An open study: its file, database, folders and confirmation."""

import logging
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage

from tlopt import spec
from tlopt.analysis.snapshot import Snapshot, Stage, n_confirm_splits, n_images, take_snapshot
from tlopt.confirmation import candidates, prunings
from tlopt.confirmation.verdict import Verdict
from tlopt.errors import (
    DataError,
    MissingExtra,
    NotReady,
    SpecError,
    StorageError,
    StudyChanged,
    WeightsError,
)
from tlopt.search.enough import n_planned
from tlopt.spec import Study
from tlopt.spec.folders import Folders
from tlopt.spec.study import CONFIRM_SUFFIX, PRUNE_SUFFIX
from tlopt.spec.text import is_file, is_path, no_such_file, read_text, user_path
from tlopt.storage import attributes, commands, studies
from tlopt.system.files import kind_at

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Session:
    """A study and everything that a command needs to reach it."""

    study: Study  # under the name that the study has in the database
    file_text: str
    target: str  # named by the user: a file, or a study in the database
    url: str
    store: BaseStorage
    runs: Path
    checkpoints: str  # folder or URL of all studies' checkpoints
    storage_option: str | None = None  # the database as the user named it with --storage

    def command(self, verb: str, target: str = "") -> str:
        """A command on this study, such as "tlopt resume flowers", for the user's working directory.

        Args:
            target: another study or file; default: as the user named this one.
        """
        named = [] if self.storage_option is None else ["--storage", self.storage_option]
        return shlex.join(["tlopt", verb, target or self.target, *named])

    @property
    def folders(self) -> Folders:
        """The folders of the search."""
        return Folders(root=self.runs, study=self.study.name)

    @property
    def confirm_folders(self) -> Folders:
        """The folders of the confirmation."""
        return Folders(root=self.runs, study=self.confirm_name)

    @property
    def confirm_name(self) -> str:
        """The name of the confirmation."""
        return confirm_name(self.store, self.study.name)

    @property
    def prune_name(self) -> str:
        """The name of the study of the prunings."""
        return prune_name(self.store, self.study.name)

    @property
    def prune_folders(self) -> Folders:
        """The folders of the prunings."""
        return Folders(root=self.runs, study=self.prune_name)

    def weights_file(self, number: int, replicate: int) -> Path:
        """The file with the trained tensors of a candidate's run in the confirmation."""
        return self.confirm_folders.weights_file(number, replicate)

    def optuna_study(self) -> optuna.Study:
        """The search, which must exist.

        Raises:
            NotReady: it does not.
        """
        try:
            return studies.open_existing(self.store, self.study.name)
        except NotReady:
            started = self.study.name in optuna.get_all_study_names(self.store)
            if started or not is_file(self.target):
                raise
            raise NotReady(
                f"the study {self.study.name!r} of {self.target} has not been started in this database;"
                f" start it with: {self.command('run')}"
            ) from None

    def confirmation(self) -> optuna.Study:
        """The confirmation of this search, which must exist.

        Raises:
            NotReady: the search or its confirmation does not exist.
            StudyChanged: the confirmation is of an earlier search of the same name.
        """
        search, name = self.optuna_study(), self.confirm_name
        if name not in optuna.get_all_study_names(self.store):
            raise NotReady(
                f"the study {self.study.name!r} has no confirmation yet; first: {self.command('confirm')}"
            )
        found = studies.open_existing(self.store, name)
        if not candidates.belongs(found, search):
            raise self._foreign(found.study_name)
        return found

    def refuse_foreign_confirmation(self) -> None:
        """Raise if a confirmation of this name belongs to an earlier search.

        Raises:
            StudyChanged: it does; the message names the command that removes it.
        """
        name = self.confirm_name
        if name in optuna.get_all_study_names(self.store):
            found = optuna.load_study(study_name=name, storage=self.store)
            if candidates.is_begun(found) and not self._has(found, candidates.belongs):
                raise self._foreign(name)

    def _has(self, found: optuna.Study, belongs: Callable[[optuna.Study, optuna.Study], bool]) -> bool:
        """Whether `found` belongs to this search, as `belongs` says; not if this one has not begun."""
        with suppress(NotReady):
            return belongs(found, self.optuna_study())
        return False

    def prunings(self) -> optuna.Study:
        """The study of the prunings, which must exist.

        Raises:
            NotReady: the search or its prunings do not exist.
            StudyChanged: they are of an earlier search of the same name.
        """
        search, name = self.optuna_study(), self.prune_name
        if name not in optuna.get_all_study_names(self.store):
            raise NotReady(
                f"the study {self.study.name!r} has no prunings yet; first: {self.command('run')}, with"
                " multiply_adds or parameters in [prune] of its file"
            )
        found = studies.open_existing(self.store, name)
        if not prunings.belongs(found, search):
            raise self._foreign_prunings(name)
        return found

    def refuse_foreign_prunings(self) -> None:
        """Raise if prunings of this name belong to an earlier search.

        Raises:
            StudyChanged: they do; the message names the command that removes them.
        """
        name = self.prune_name
        if name in optuna.get_all_study_names(self.store):
            found = optuna.load_study(study_name=name, storage=self.store)
            if not studies.is_empty(found) and not self._has(found, prunings.belongs):
                raise self._foreign_prunings(name)

    def _foreign_prunings(self, name: str) -> StudyChanged:
        delete = replace(self, target=name).command("delete")
        return StudyChanged(
            f"{name} does not hold this search's prunings, but those of another one of the name"
            f" {self.study.name}, or is a search of its own: give this search another name, or delete"
            f" the other with: {delete}"
        )

    def _foreign(self, confirmation: str) -> StudyChanged:
        delete = replace(self, target=confirmation).command("delete")
        return StudyChanged(
            f"{confirmation} confirms another search, which had the name {self.study.name} and was deleted,"
            " renamed or replaced: its candidates are not this search's trials. Give this search another"
            f" name, or delete the old confirmation with: {delete}"
        )

    def snapshot(self, stage: Stage = "search") -> Snapshot:
        """The current state of the study in the database.

        Args:
            stage: the stage whose progress is shown.

        Raises:
            NotReady: the search has not been started.
        """
        self.optuna_study()  # its message names the next command
        try:
            confirmation = self.confirmation()
        except (NotReady, StudyChanged):
            confirmation = None
        try:
            pruned = self.prunings()
        except (NotReady, StudyChanged):
            pruned = None
        return take_snapshot(self.study, self.store, confirmation=confirmation, prunings=pruned, stage=stage)

    def foreign_confirmation(self) -> str:
        """The reason why the confirmation of this name belongs to another search, and the cure; "" if not."""
        with suppress(NotReady):
            try:
                self.confirmation()
            except StudyChanged as error:
                return str(error)
        return ""

    def verdict(self) -> Verdict | None:
        """The results of the confirmation so far; None if there is none or it belongs to another search."""
        try:
            search, confirmation = self.optuna_study(), self.confirmation()
            return candidates.read_verdict(
                self.study, confirmation, n_images=n_images(search), n_splits=n_confirm_splits(search)
            )
        except (NotReady, StudyChanged):
            return None


def confirm_name(store: BaseStorage, name: str) -> str:
    """The name of a study's confirmation: NAME.confirm, or its former one if only the search was renamed."""

    def confirms(other: optuna.Study, search: optuna.Study) -> bool:
        return candidates.is_begun(other) and candidates.belongs(other, search)

    return _companion_name(store, name, CONFIRM_SUFFIX, confirms)


def prune_name(store: BaseStorage, name: str) -> str:
    """The name of the study of a study's prunings: NAME.prune, or the former one, as for `confirm_name`."""

    def prunes(other: optuna.Study, search: optuna.Study) -> bool:
        return attributes.SEARCH in other.user_attrs and prunings.belongs(other, search)

    return _companion_name(store, name, PRUNE_SUFFIX, prunes)


def _companion_name(
    store: BaseStorage, name: str, suffix: str, belongs: Callable[[optuna.Study, optuna.Study], bool]
) -> str:
    usual = name + suffix
    names = set(optuna.get_all_study_names(store))
    if usual in names or name not in names:
        return usual
    search = optuna.load_study(study_name=name, storage=store)
    others = sorted(each for each in names if each.endswith(suffix))
    for orphan in (each for each in others if each.removesuffix(suffix) not in names):
        if belongs(optuna.load_study(study_name=orphan, storage=store), search):
            return orphan
    return usual


def open_session(
    target: str | Path,
    *,
    storage_url: str | None = None,
    runs: str | Path = "runs",
    checkpoints: str | None = None,
    wait_seconds: float = 0.0,
    store: BaseStorage | None = None,
    create: bool = True,
) -> Session:
    """The session of the study file `target`, or of the study with that name in the database.

    Args:
        checkpoints: folder or URL; default: TLOPT_CHECKPOINTS, else the folder `checkpoints` in `runs`.
        wait_seconds: seconds to wait for a database that does not respond.
        store: the database, if it is already open.
        create: create the database's tables, and an SQLite file, if they are missing.

    Raises:
        SpecError: there is no such file, or it is invalid.
        NotReady: no study of that name is in the database.
        StorageError: the database cannot be opened.
    """
    url = studies.find_url(storage_url)
    path = Path(target)
    if is_file(path):
        text = read_text(path)
        study = spec.loads(text, str(path))
        outage = study.service.outage_seconds_max
        open_database = studies.open_storage if create else studies.open_to_read
        store = store or open_database(url, outage_seconds_max=outage, wait_seconds=wait_seconds)
    else:
        store = _with_study(str(target), store, url, wait_seconds)
        stored = _stored(store, str(target))
        study, text = studies.stored_spec(stored), str(stored.user_attrs[attributes.STUDY_FILE])
        studies.service_of(store).retry.seconds_max = study.service.outage_seconds_max
    return Session(
        study=study,
        file_text=text,
        target=str(target),
        url=url,
        store=store,
        runs=Path(runs).absolute(),
        checkpoints=checkpoint_root(checkpoints, Path(runs)),
        storage_option=storage_url,
    )


def _with_study(target: str, store: BaseStorage | None, url: str, wait_seconds: float) -> BaseStorage:
    """The database, which must contain a study of this name.

    Raises:
        SpecError: there is none, and the name is written like a path or is that of a folder.
        NotReady: there is no database.
    """
    file_expected = is_path(target) or bool(kind_at(Path(target)))
    try:
        store = store or open_present(url, wait_seconds, target=target)
        names = optuna.get_all_study_names(store)
    except (NotReady, StorageError):
        if not file_expected:
            raise
        raise _neither(target, ()) from None
    if file_expected and target not in names:
        raise _neither(target, names)
    return store


def _neither(target: str, names: Collection[str]) -> SpecError | NotReady:
    """The error for `target`, which is neither a study file nor one of the `names` in the database."""
    if not is_path(target) and (hint := beside(target)):  # images often lie in a folder of the study's name
        return NotReady(f"there is no study {target!r} in the database yet{hint}")
    name = Path(target).stem
    if name in names and not kind_at(user_path(target)):  # its file was renamed or moved
        return SpecError(
            f"{target}: there is no such study file; the database has a study {name}: give that name instead"
        )
    return no_such_file(target)


def _stored(store: BaseStorage, name: str) -> optuna.Study:
    """The study `name` of a database; its name must also be usable for files."""
    try:
        found = studies.open_existing(store, name)
    except NotReady as error:
        hint = beside(name)
        said = str(error)
        raise NotReady(f"{said.partition('; start it')[0]}{hint}" if hint else said) from None
    if not re.match(spec.NAME_PATTERN, name):
        raise SpecError(
            f"the study {name!r} has a name that tlopt cannot use for files; rename it to at most 100"
            " letters, digits and . _ - (first a letter or digit)"
        )
    return found


@contextmanager
def errors_of(file: str) -> Iterator[None]:
    """Prefix errors about a study file's values with the file and the key."""
    try:
        yield
    except (SpecError, DataError, WeightsError, MissingExtra) as error:
        key = {DataError: "data.source", WeightsError: "model.weights"}.get(type(error), "")
        said = str(error)
        named = not key or re.search(rf"\b{key.partition('.')[0]}\.[a-z_]+", said)
        raise type(error)(f"{file}: {said}" if named else f"{file}: {key}: {said}") from error


def beside(name: str) -> str:
    """A hint if `name` is a study file without its suffix; else ""."""
    file = Path(f"{name}.toml")
    return f"; there is a study file {file}: name it with its suffix" if file.is_file() else ""


def checkpoint_root(given: str | None, runs: Path) -> str:
    """The folder or URL of all studies' checkpoints: as given, from the environment, or in `runs`."""
    found = given or os.environ.get("TLOPT_CHECKPOINTS") or str(runs / "checkpoints")
    return found.rstrip("/") if "://" in found else str(user_path(found).absolute())


@dataclass(frozen=True)
class StudySummary:
    """One row in the list of a database's studies."""

    name: str
    n_finished: int  # complete or pruned
    n_planned: int


def list_studies(storage_url: str | None = None) -> list[StudySummary]:
    """The studies that tlopt created in a database, by name, without confirmations and archived ones."""
    store = open_present(studies.find_url(storage_url))
    rows = []
    for name in sorted(optuna.get_all_study_names(store)):
        opened = optuna.load_study(study_name=name, storage=store)
        archived = commands.command_of(opened).state == "archived"
        is_search = not name.endswith(CONFIRM_SUFFIX) and attributes.PRUNINGS not in opened.user_attrs
        if attributes.DIGEST in opened.user_attrs and is_search and not archived:
            try:
                studies.checked_attributes(opened)
                stored = studies.stored_spec(opened)
            except (StorageError, SpecError) as error:  # of one study: the others are listed
                _logger.warning("left out: %s", error)
                continue
            trials = attributes.records_of(opened)
            n_finished = sum(trial.counts for trial in trials)
            rows.append(StudySummary(name, n_finished, n_planned(stored, trials)))
    return rows


def open_present(url: str, wait_seconds: float = 0.0, *, target: str = "") -> BaseStorage:
    """The database at `url`, which must exist: reading creates no SQLite file."""
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise NotReady(
            f"there is no database {parsed.database}; tlopt run FILE creates it,"
            f" --storage or TLOPT_STORAGE selects another{beside(target) if target else ''}"
        )
    return studies.open_to_read(url, wait_seconds=wait_seconds)
