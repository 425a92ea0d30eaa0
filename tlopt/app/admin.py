"""What a person tells a study: wait, go on, end, come along to this version."""

from collections.abc import Iterator
from contextlib import suppress

import optuna
from optuna.trial import TrialState

from tlopt import spec
from tlopt.app.handle import Session
from tlopt.errors import NotReady, SpecError, StorageError
from tlopt.search.plan import CONFIRM_SUFFIX
from tlopt.storage import attributes, commands, optuna_private, studies
from tlopt.storage.schema import epoch_seconds

# What changed with a semantics version, where trials of the one before may stand beside new ones.
_COMPARABLE = {
    2: "dropout and mixup are drawn anew for each step; trials begun before do not repeat bit for bit",
    3: "frozen blocks run in batches of one size; last bits of trials with frozen blocks differ from before",
    4: "crops are cut from larger images; trials begun before saw softer ones and are about a point lower",
}


def order(session: Session, state: commands.State) -> None:
    """Tell the workers of a study, and of its confirmation where there is one.

    Raises:
        NotReady: there is no such study.
    """
    told = [session.optuna_study()]
    with suppress(NotReady):
        told.append(session.confirmation())
    for optuna_study in told:
        commands.give_order(optuna_study, commands.Order(state))


def upgrade(storage_url: str | None, name: str | None) -> Iterator[str]:
    """Bring studies of an earlier version to this one's form, with a line for each.

    Args:
        name: of one study; None: all of the database.

    Raises:
        NotReady: there is no such study.
        StorageError: the database is of another Optuna; or a study is of a later tlopt.
    """
    store = studies.open_storage(studies.find_url(storage_url))
    if name:
        studies.open_existing(store, name)
    for each in sorted(optuna.get_all_study_names(store)):
        opened = optuna.load_study(study_name=each, storage=store)
        wanted = not name or each in (name, name + CONFIRM_SUFFIX)
        if wanted and attributes.DIGEST in opened.user_attrs:
            yield f"{each}: {_upgrade(opened)}"


def _upgrade(opened: optuna.Study) -> str:
    format_version = opened.user_attrs.get(attributes.FORMAT, 1)
    semantics = opened.user_attrs[attributes.SEMANTICS]
    if format_version > attributes.FORMAT_VERSION or semantics > spec.SEMANTICS_VERSION:
        raise StorageError(f"{opened.study_name} was made by a later tlopt; install that one")
    changed = []
    if format_version < attributes.FORMAT_VERSION:
        service = studies.service_of(optuna_private.storage_of(opened))
        if attributes.BEGAN not in opened.user_attrs:
            now = service.ask(lambda executor: epoch_seconds(executor, service.engine))
            opened.set_user_attr(attributes.BEGAN, now)
        for trial in opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # nobody holds it by a lease, so nobody would ever see that its worker is gone
            service.set_trial_state_values(optuna_private.trial_id(trial), TrialState.WAITING)
            changed.append(f"trial {trial.number} waits to be run again")
        opened.set_user_attr(attributes.FORMAT, attributes.FORMAT_VERSION)
        changed.append(f"records {format_version} to {attributes.FORMAT_VERSION}")
    if semantics < spec.SEMANTICS_VERSION:
        changed += [_COMPARABLE[version] for version in range(semantics + 1, spec.SEMANTICS_VERSION + 1)]
        opened.set_user_attr(attributes.SEMANTICS, spec.SEMANTICS_VERSION)
    try:
        stored = studies.stored_spec(opened)
    except SpecError as error:
        raise StorageError(f"{opened.study_name}: its study file is read no longer: {error}") from error
    if opened.user_attrs[attributes.DIGEST] != stored.digest:
        opened.set_user_attr(attributes.DIGEST, stored.digest)
        changed.append("digest written anew")
    return "; ".join(changed) or "nothing to do"
