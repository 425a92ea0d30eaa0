"""What is seen of a study's workers: those that beat, those that fell silent, and not those that are gone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import tiny

from tlopt.analysis.snapshot import look
from tlopt.storage import studies
from tlopt.storage import workers as worker_rows
from tlopt.storage.schema import workers

TEXT = tiny.text("lr = 0.1")
STUDY = tiny.spec.loads(TEXT, "x.toml")


@pytest.mark.parametrize(("silent_seconds", "shown"), [(0, True), (60, True), (870, True), (960, False)])
def test_a_worker_is_shown_until_it_is_surely_gone(tmp_path: Path, silent_seconds: int, shown: bool) -> None:
    store = studies.open_storage(f"sqlite:///{tmp_path}/tlopt.db")
    studies.create_or_open(store, STUDY, file_text=TEXT, facts={})
    service, me = studies.service_of(store), worker_rows.here()
    seen = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=silent_seconds)
    service.ask(
        lambda at: worker_rows.register(at, service.engine, me, device="cpu", studies="planted,other")
    )
    service.ask(lambda at: at.execute(sa.update(workers).values(seen=seen)))

    rows = look(STUDY, store).workers

    assert [row.name for row in rows] == [me.name] * shown
    assert all(abs(row.silent_seconds - silent_seconds) < 20 for row in rows)


def test_a_worker_of_other_studies_is_not_shown(tmp_path: Path) -> None:
    store = studies.open_storage(f"sqlite:///{tmp_path}/tlopt.db")
    studies.create_or_open(store, STUDY, file_text=TEXT, facts={})
    service = studies.service_of(store)
    service.ask(
        lambda at: worker_rows.register(at, service.engine, worker_rows.here(), device="cpu", studies="other")
    )

    assert look(STUDY, store).workers == ()
