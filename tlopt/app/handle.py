"""One study opened for work: its file, its database, its folders."""

import os
from dataclasses import dataclass
from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from tlopt import spec
from tlopt.errors import NotReady, SpecError
from tlopt.search.plan import CONFIRM_SUFFIX
from tlopt.spec import Study
from tlopt.spec.folders import Folders
from tlopt.storage import attributes, commands, studies


@dataclass(frozen=True, kw_only=True)
class Session:
    """A study and everything that a command needs to reach it."""

    study: Study
    file_text: str
    target: str  # what the user named: a file or a study in the database
    url: str
    store: BaseStorage
    runs: Path
    checkpoints: str  # folder or URL of all studies' checkpoints

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
        return studies.open_existing(self.store, self.study.name)

    def confirmation(self) -> optuna.Study:
        """The confirmation, which must exist.

        Raises:
            NotReady: it does not.
        """
        return studies.open_existing(self.store, self.study.name + CONFIRM_SUFFIX)


def open_session(
    target: str | Path,
    *,
    storage_url: str | None = None,
    runs: str | Path = "runs",
    checkpoints: str | None = None,
    wait_seconds: float = 0.0,
    store: BaseStorage | None = None,
) -> Session:
    """The session of the study file `target`, or of the study with that name in the database.

    Args:
        checkpoints: folder or URL; default: TLOPT_CHECKPOINTS, else the folder `checkpoints` in `runs`.
        wait_seconds: how long a database is waited for that does not answer.
        store: the database, where it is open already.

    Raises:
        SpecError: there is no such file, or it is wrong.
        NotReady: no study of that name is in the database.
        StorageError: the database cannot be opened.
    """
    url = studies.find_url(storage_url)
    path = Path(target)
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        study = spec.loads(text, str(path))
        outage = study.service.outage_seconds_max
        store = store or studies.open_storage(url, outage_seconds_max=outage, wait_seconds=wait_seconds)
    elif path.suffix == ".toml" or "/" in str(target):
        raise SpecError(f"{target}: there is no such study file; tlopt init FOLDER writes one")
    else:
        store = store or _open_present(url, wait_seconds)
        stored = studies.open_existing(store, str(target))
        study, text = studies.stored_spec(stored), str(stored.user_attrs[attributes.FILE])
        studies.service_of(store).patience.seconds_max = study.service.outage_seconds_max
    return Session(
        study=study,
        file_text=text,
        target=str(target),
        url=url,
        store=store,
        runs=Path(runs).absolute(),
        checkpoints=_checkpoints(checkpoints, Path(runs)),
    )


def _checkpoints(given: str | None, runs: Path) -> str:
    found = given or os.environ.get("TLOPT_CHECKPOINTS") or str(runs / "checkpoints")
    return found.rstrip("/") if "://" in found else str(Path(found).expanduser().absolute())


@dataclass(frozen=True)
class StudySummary:
    """One row of a database's list of studies."""

    name: str
    n_finished: int  # complete or pruned
    n_planned: int


def list_studies(storage_url: str | None = None) -> list[StudySummary]:
    """The studies of ours in a database, by name, without their confirmations."""
    store = _open_present(studies.find_url(storage_url))
    rows = []
    for name in sorted(optuna.get_all_study_names(store)):
        opened = optuna.load_study(study_name=name, storage=store)
        archived = commands.order_of(opened).state == "archived"
        if attributes.DIGEST in opened.user_attrs and not name.endswith(CONFIRM_SUFFIX) and not archived:
            trials = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
            rows.append(StudySummary(name, len(trials), studies.stored_spec(opened).budget.trials))
    return rows


def _open_present(url: str, wait_seconds: float = 0.0) -> BaseStorage:
    """The database at `url`, which has to be there: an SQLite file is not made by looking for it."""
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise NotReady(
            f"there is no database {parsed.database}; tlopt run FILE makes it,"
            " --storage or TLOPT_STORAGE names another"
        )
    return studies.open_storage(url, wait_seconds=wait_seconds)
