"""Commands to a study's workers (run, pause, stop), stored as an attribute of the study."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import optuna
import sqlalchemy as sa

from tlopt.spec import SEMANTICS_VERSION
from tlopt.storage import leases, optuna_private
from tlopt.storage.attributes import CONTROL, FORMAT_VERSION, RECORD_FORMAT, SEMANTICS
from tlopt.storage.leases import Executor
from tlopt.storage.schema import study_attrs, whole
from tlopt.storage.studies import service_of

State = Literal["open", "paused", "stopped", "cancelled", "archived"]


@dataclass(frozen=True)
class Command:
    """The desired state of a study's workers.

    `open`: run trials; `paused`: wait; `stopped` (too many failures), `cancelled`, `archived`: exit.
    """

    state: State = "open"
    reason: str = ""

    @property
    def runs_trials(self) -> bool:
        """True if trials may run."""
        return self.state == "open"

    @property
    def ends_workers(self) -> bool:
        """True if workers must exit."""
        return self.state in ("stopped", "cancelled", "archived")


def command_of(optuna_study: optuna.Study) -> Command:
    """The current command to the study's workers."""
    return _decoded(optuna_study.user_attrs.get(CONTROL))


def send(optuna_study: optuna.Study, command: Command) -> None:
    """Store a command, which workers read with their next heartbeat.

    A command to run trials also resets the crash counts, so that crashes before a repair neither end waiting
    trials nor stop the study again.

    Raises:
        StorageError: no permission to write to the database.
    """
    if command.runs_trials:
        service_of(optuna_private.storage_of(optuna_study)).query(
            lambda executor: leases.reset_crashes(executor, optuna_private.study_id(optuna_study))
        )
    optuna_study.set_user_attr(CONTROL, {"state": command.state, "reason": command.reason})


def read(executor: Executor, study_ids: Collection[int]) -> dict[int, Command]:
    """Read the commands of several studies, by study id.

    A study upgraded by a later version of tlopt counts as cancelled for this version.
    """
    rows = executor.execute(
        sa.select(study_attrs.c.study_id, study_attrs.c.key, study_attrs.c.value_json).where(
            study_attrs.c.study_id.in_(study_ids), study_attrs.c.key.in_((CONTROL, RECORD_FORMAT, SEMANTICS))
        )
    )
    found: dict[int, dict[str, Any]] = {study_id: {} for study_id in study_ids}
    for study_id, key, text in rows:
        found[int(study_id)][key] = json.loads(text)
    return {study_id: _command(attributes) for study_id, attributes in found.items()}


def _command(attributes: Mapping[str, Any]) -> Command:
    versions = {RECORD_FORMAT: FORMAT_VERSION, SEMANTICS: SEMANTICS_VERSION}
    if any(whole(attributes.get(key), 1) > known for key, known in versions.items()):
        return Command("cancelled", "a later tlopt has upgraded it; start workers of that version")
    return _decoded(attributes.get(CONTROL))


def _decoded(stored: Any) -> Command:
    """The command, or the default if there is none, or other software has set something else.

    Such a study is refused where a trial is claimed; a heartbeat must go on meanwhile.
    """
    match stored:
        case {"state": str(state), "reason": str(reason)} if state in get_args(State):
            return Command(cast(State, state), reason)
        case _:
            return Command()
