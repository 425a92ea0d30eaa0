"""Commands to a study, its confirmation and prunings: pause, resume, cancel, archive, delete, upgrade."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from tlopt import spec
from tlopt.analysis.snapshot import SILENT_SECONDS
from tlopt.app.handle import Session, checkpoint_root, confirm_name, open_present, prune_name
from tlopt.errors import NotReady, SpecError, StorageError, StudyChanged
from tlopt.spec.folders import Folders
from tlopt.spec.study import CONFIRM_SUFFIX, PRUNE_SUFFIX
from tlopt.storage import attributes, commands, leases, optuna_private, studies, workers
from tlopt.storage.schema import epoch_seconds

# The change of each semantics version whose trials stay comparable with those of the version before.
_COMPARABLE = {
    2: "dropout and mixup are drawn anew for each step; trials begun before do not repeat bit for bit",
    3: "frozen blocks run in batches of one size; last bits of trials with frozen blocks differ from before",
    4: "crops are cut from larger images; earlier trials saw softer ones and are about a point lower",
}


def command(session: Session, state: commands.State) -> None:
    """Set the desired state of a study, and of its confirmation and prunings where there are some.

    Raises:
        NotReady: there is no such study.
    """
    commanded = [session.optuna_study()]
    with suppress(NotReady, StudyChanged):
        commanded.append(session.confirmation())
    with suppress(NotReady, StudyChanged):
        commanded.append(session.prunings())
    for optuna_study in commanded:
        commands.send(optuna_study, commands.Command(state))


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The effects of deleting a study: removed trials, remaining files, workers concerned."""

    trials: dict[str, int]  # number of trials by name of the study, which comes last
    folders: tuple[Path, ...]  # logs, pictures, weights and checkpoints that stay on this machine, absolute
    artifacts: tuple[Path, ...]  # its pictures for the dashboard, likewise, among those of other studies
    workers: tuple[str, ...]  # that work on it and will lose their trials


def plan_deletion(
    target: str, *, storage_url: str | None, runs: Path, checkpoints: str | None = None
) -> tuple[BaseStorage, Deletion]:
    """The database, and the effects of deleting the study `target` from it.

    Args:
        target: a study file or a study's name, with confirmation and prunings; or the name of one of these.

    Raises:
        NotReady: there is neither such a study nor a confirmation of it.
        StorageError: it was not created by tlopt.
    """
    file = Path(target)
    name = spec.load(file).name if file.is_file() else target
    store = open_present(studies.find_url(storage_url), target=target)
    names = optuna.get_all_study_names(store)
    found = (*_prunings_of(store, name), _confirmation_of(store, name), name)
    named = [each for each in dict.fromkeys(found) if each in names]
    if not named:
        studies.open_existing(store, name)  # raises, and names the studies that exist
    trials, artifacts = {}, set[str]()
    for each in named:
        opened = optuna.load_study(study_name=each, storage=store)
        if attributes.DIGEST not in opened.user_attrs:
            raise StorageError(
                f"the study {each!r} was not created by tlopt; delete it with: optuna delete-study"
            )
        trials[each] = len(opened.get_trials(deepcopy=False))
        artifacts |= optuna_private.artifact_ids(opened)
    root = checkpoint_root(checkpoints, runs)
    folders = [runs / each for each in named]
    folders += [Path(root) / each for each in named if "://" not in root]
    pictures = [Folders(root=runs, study=name).artifacts / each for each in sorted(artifacts)]
    return store, Deletion(
        trials=trials,
        folders=_there(folders),
        artifacts=_there(pictures),
        workers=_at_work(store, named),
    )


def _there(paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(path.absolute() for path in paths if path.exists())


def delete(store: BaseStorage, deletion: Deletion) -> None:
    """Delete the studies of `deletion` from the database, the search last."""
    service = studies.service_of(store)
    for name in deletion.trials:
        study_id = optuna_private.study_id(optuna.load_study(study_name=name, storage=store))
        optuna.delete_study(study_name=name, storage=store)
        service.query(partial(leases.forget_study, study_id=study_id))


def _confirmation_of(store: BaseStorage, name: str) -> str:
    """The name of the confirmation that goes with the study `name`; its own name for a confirmation."""
    if name.endswith(CONFIRM_SUFFIX) or name not in optuna.get_all_study_names(store):
        return name.removesuffix(CONFIRM_SUFFIX) + CONFIRM_SUFFIX
    return confirm_name(store, name)


def _prunings_of(store: BaseStorage, name: str) -> Iterator[str]:
    """The name of the prunings that go with the study `name`, if there are some; none for a confirmation."""
    found = prune_name(store, name)
    if not name.endswith(CONFIRM_SUFFIX) and found in optuna.get_all_study_names(store):
        opened = optuna.load_study(study_name=found, storage=store)
        if attributes.PRUNINGS in opened.user_attrs:  # else it is a search of that name
            yield found


def _at_work(store: BaseStorage, names: Sequence[str]) -> tuple[str, ...]:
    """The workers with a recent heartbeat that serve one of the studies."""
    service = studies.service_of(store)
    present = service.query(lambda executor: workers.list_workers(executor, service.engine))
    return tuple(
        row.identity.name
        for row in present
        if set(row.studies) & set(names) and row.silent_seconds < SILENT_SECONDS
    )


def upgrade(storage_url: str | None, name: str | None) -> Iterator[str]:
    """Upgrade studies of an earlier version of tlopt; yields a line for each.

    Args:
        name: name of one study; None: all studies of the database.

    Raises:
        NotReady: there is no such study.
        StorageError: the database is of another version of Optuna, or a study of a newer tlopt.
    """
    store = studies.open_to_read(studies.find_url(storage_url))
    if name:
        studies.open_existing(store, name)
    for each in sorted(optuna.get_all_study_names(store)):
        opened = optuna.load_study(study_name=each, storage=store)
        wanted = not name or each in (name, name + CONFIRM_SUFFIX, name + PRUNE_SUFFIX)
        if wanted and attributes.DIGEST in opened.user_attrs:
            yield f"{each}: {_upgrade(opened)}"


def _upgrade(opened: optuna.Study) -> str:
    studies.checked_attributes(opened)
    format_version = opened.user_attrs.get(attributes.RECORD_FORMAT, 1)
    semantics = opened.user_attrs[attributes.SEMANTICS]
    if semantics > spec.SEMANTICS_VERSION:
        raise StorageError(f"{opened.study_name} was created by a newer tlopt; install that version")
    changed = []
    if format_version < attributes.FORMAT_VERSION:
        service = studies.service_of(optuna_private.storage_of(opened))
        if attributes.BEGAN not in opened.user_attrs:
            now = service.query(lambda executor: epoch_seconds(executor, service.engine))
            opened.set_user_attr(attributes.BEGAN, now)
        for trial in opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # it has no lease, so nobody would notice that its worker is gone
            service.set_trial_state_values(optuna_private.trial_id(trial), TrialState.WAITING)
            changed.append(f"trial {trial.number} waits to be run again")
        opened.set_user_attr(attributes.RECORD_FORMAT, attributes.FORMAT_VERSION)
        changed.append(f"records {format_version} to {attributes.FORMAT_VERSION}")
    if semantics < spec.SEMANTICS_VERSION:
        changed += [_COMPARABLE[version] for version in range(semantics + 1, spec.SEMANTICS_VERSION + 1)]
        opened.set_user_attr(attributes.SEMANTICS, spec.SEMANTICS_VERSION)
    try:
        stored = studies.stored_spec(opened)
    except SpecError as error:
        raise StorageError(f"{opened.study_name}: its study file can no longer be read: {error}") from error
    if opened.user_attrs[attributes.DIGEST] != stored.digest:
        opened.set_user_attr(attributes.DIGEST, stored.digest)
        changed.append("digest updated")
    return "; ".join(changed) or "nothing to do"
