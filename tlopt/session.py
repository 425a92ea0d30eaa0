"""One study opened for work: its file, its database, its folders."""

from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from tlopt import spec
from tlopt.errors import NotReady, SpecError
from tlopt.search import records, storage
from tlopt.search.plan import CONFIRM_SUFFIX
from tlopt.search.worker import Folders
from tlopt.spec import Study


@dataclass(frozen=True, kw_only=True)
class Session:
    """A study and everything that a command needs to reach it."""

    study: Study
    file_text: str
    target: str  # what the user named: a file or a study in the database
    url: str
    store: BaseStorage
    runs: Path

    @property
    def folders(self) -> Folders:
        """Where the search's files go."""
        return Folders(root=self.runs, study=self.study.name)

    @property
    def confirm_folders(self) -> Folders:
        """Where the confirmation's files go."""
        return Folders(root=self.runs, study=self.study.name + CONFIRM_SUFFIX)

    def weights_file(self, number: int, replicate: int) -> Path:
        """The trained tensors of a confirmation's run."""
        folder = self.runs / (self.study.name + CONFIRM_SUFFIX) / "weights"
        return folder / f"candidate{number}-seed{replicate}.safetensors"

    def optuna_study(self) -> optuna.Study:
        """The search, which must exist.

        Raises:
            NotReady: it does not.
        """
        return storage.open_existing(self.store, self.study.name)

    def confirmation(self) -> optuna.Study:
        """The confirmation, which must exist.

        Raises:
            NotReady: it does not.
        """
        return storage.open_existing(self.store, self.study.name + CONFIRM_SUFFIX)


def open_session(target: str | Path, *, storage_url: str | None = None, runs: str | Path = "runs") -> Session:
    """The session of the study file `target`, or of the study with that name in the database.

    Raises:
        SpecError: there is no such file, or it is wrong.
        NotReady: no study of that name is in the database.
        StorageError: the database cannot be opened.
    """
    url = storage.find_url(storage_url)
    path = Path(target)
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        study = spec.loads(text, str(path))
        store = storage.open_storage(url)
    elif path.suffix == ".toml" or "/" in str(target):
        raise SpecError(f"{target}: there is no such study file; tlopt init FOLDER writes one")
    else:
        store = _open_present(url)
        stored = storage.open_existing(store, str(target))
        study, text = storage.stored_spec(stored), str(stored.user_attrs[records.FILE])
    return Session(
        study=study, file_text=text, target=str(target), url=url, store=store, runs=Path(runs).absolute()
    )


@dataclass(frozen=True)
class StudySummary:
    """One row of a database's list of studies."""

    name: str
    n_finished: int  # complete or pruned
    n_planned: int


def list_studies(storage_url: str | None = None) -> list[StudySummary]:
    """The studies of ours in a database, by name, without their confirmations."""
    store = _open_present(storage.find_url(storage_url))
    rows = []
    for name in sorted(optuna.get_all_study_names(store)):
        opened = optuna.load_study(study_name=name, storage=store)
        if records.DIGEST in opened.user_attrs and not name.endswith(CONFIRM_SUFFIX):
            trials = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
            rows.append(StudySummary(name, len(trials), storage.stored_spec(opened).budget.trials))
    return rows


def _open_present(url: str) -> BaseStorage:
    """The database at `url`, which has to be there: an SQLite file is not made by looking for it."""
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise NotReady(
            f"there is no database {parsed.database}; tlopt run FILE makes it,"
            " --storage or TLOPT_STORAGE names another"
        )
    return storage.open_storage(url)
