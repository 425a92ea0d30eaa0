"""What people tell a study's workers, as a user attribute of the study: go on, pause, stop."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
import sqlalchemy as sa

from tlopt.spec import SEMANTICS_VERSION
from tlopt.storage import leases, optuna_private
from tlopt.storage.attributes import CONTROL, FORMAT, FORMAT_VERSION, SEMANTICS
from tlopt.storage.leases import Executor
from tlopt.storage.schema import study_attrs
from tlopt.storage.studies import service_of

State = Literal["open", "paused", "stopped", "cancelled", "archived"]


@dataclass(frozen=True)
class Order:
    """`open`: work; `paused`: wait; `stopped` (too many failures), `cancelled`, `archived`: end."""

    state: State = "open"
    reason: str = ""

    @property
    def works(self) -> bool:
        """Whether trials may run."""
        return self.state == "open"

    @property
    def ends(self) -> bool:
        """Whether workers end."""
        return self.state in ("stopped", "cancelled", "archived")


def order_of(optuna_study: optuna.Study) -> Order:
    """What the study's workers were last told."""
    return _decoded(optuna_study.user_attrs.get(CONTROL))


def give_order(optuna_study: optuna.Study, order: Order) -> None:
    """Tell the study's workers; they hear it with their next beat.

    An order to work has crashes counted anew: trials that wait are not to end, and the study not to stop
    again, for what has been mended.
    """
    if order.works:
        service_of(optuna_private.storage_of(optuna_study)).ask(
            lambda executor: leases.forgive(executor, optuna_private.study_id(optuna_study))
        )
    optuna_study.set_user_attr(CONTROL, {"state": order.state, "reason": order.reason})


def orders(executor: Executor, study_ids: Collection[int]) -> dict[int, Order]:
    """The orders of several studies, by study id; one that a later version has upgraded is to be left."""
    rows = executor.execute(
        sa.select(study_attrs.c.study_id, study_attrs.c.key, study_attrs.c.value_json).where(
            study_attrs.c.study_id.in_(study_ids), study_attrs.c.key.in_((CONTROL, FORMAT, SEMANTICS))
        )
    )
    found: dict[int, dict[str, Any]] = {study_id: {} for study_id in study_ids}
    for study_id, key, text in rows:
        found[int(study_id)][key] = json.loads(text)
    return {study_id: _order(attributes) for study_id, attributes in found.items()}


def _order(attributes: Mapping[str, Any]) -> Order:
    later = attributes.get(FORMAT, 1) > FORMAT_VERSION or attributes.get(SEMANTICS, 1) > SEMANTICS_VERSION
    if later:
        return Order("cancelled", "a later tlopt has upgraded it; start workers of that version")
    return _decoded(attributes.get(CONTROL))


def _decoded(stored: Any) -> Order:
    return Order(stored["state"], stored["reason"]) if stored else Order()
