"""Databases opened by many processes at once, and studies whose meaning cannot change."""

import contextlib
import gc
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from tlopt import spec
from tlopt.errors import NotReady, SpecError, StorageError, StudyChanged
from tlopt.storage import attributes, connect, studies

FINGERPRINTS: dict[str, str | int] = {"data": "0a1b", "weights": "1c2d"}


def create(url: str, text: str, fingerprints: dict[str, str | int] = FINGERPRINTS) -> optuna.Study:
    opened = studies.open_storage(url)
    return studies.create_or_open(
        opened, spec.loads(text, "x.toml"), file_text=text, fingerprints=fingerprints
    )


def processes(count: int, code: str, url: str, ready: Path, *arguments: str) -> list[str]:
    """The standard output of `count` processes that run `code`; `ready` is an empty folder."""

    def run(_: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", TOGETHER + code, url, str(count), str(ready), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)

    with ThreadPoolExecutor(count) as pool:
        ended = list(pool.map(run, range(count)))
    assert [(e.returncode, e.stderr) for e in ended if e.returncode != 0] == []
    return [e.stdout for e in ended]


@contextlib.contextmanager
def not_root() -> Iterator[None]:
    """Permissions of files count inside, also where the tests run as root."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


# Errors


def test_a_missing_folder_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        studies.open_storage(f"sqlite:///{tmp_path}/typo/x.db")

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database, " * 100)

    with pytest.raises(StorageError, match="file is not a database"):
        studies.open_storage(str(tmp_path / "x.db"))


def test_a_folder_that_cannot_be_written_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        with not_root(), pytest.raises(StorageError, match=r"/x\.db: .*Permission denied"):
            studies.open_storage(f"{folder}/x.db")


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"password": "wrong-secret"}, "password authentication failed"),
        ({"database": "no_such_database"}, "does not exist"),
        ({"port": 1}, "refused"),
        ({"host": "no-such-host.invalid"}, "could not translate host name"),
    ],
)
def test_a_database_out_of_reach_is_an_error_without_password(
    change: dict[str, Any], reason: str, postgres_url: str
) -> None:
    right = sqlalchemy.make_url(postgres_url)
    url = right.set(**change)

    with pytest.raises(StorageError, match=reason) as caught:
        studies.open_storage(url.render_as_string(hide_password=False))

    trace = "".join(traceback.format_exception(caught.value))
    assert str(url.set(drivername="postgresql+psycopg2")) in trace
    assert str(right.password) not in trace
    assert "wrong-secret" not in trace
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.postgres
def test_a_password_may_hold_any_character(postgres_server: Any, postgres_url: str) -> None:
    database = str(sqlalchemy.make_url(postgres_url).database)
    password = "a@b/c:d#e?f%g{h}i j&k=l"
    user = f"user_{database}"
    postgres_server.execute(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD %s", password)
    url = sqlalchemy.make_url(postgres_url).set(username=user, password=password)

    opened = studies.open_storage(url.render_as_string(hide_password=False))

    assert optuna.get_all_study_names(opened) == []
    studies.engine_of(opened).dispose()
    postgres_server.execute(f"REASSIGN OWNED BY {user} TO tlopt")
    postgres_server.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
    postgres_server.execute(f"DROP ROLE {user}")
    postgres_server.execute(f'CREATE DATABASE "{database}"')


# The study


def test_a_study_is_made_once_and_opened_again(storage_url: str, study_text: Callable[..., str]) -> None:
    first = create(storage_url, study_text())
    first.add_trial(optuna.create_trial(value=0.5))

    second = create(storage_url, study_text())

    assert [trial.value for trial in second.trials] == [0.5]


def test_a_study_knows_its_direction_and_metric(storage_url: str, study_text: Callable[..., str]) -> None:
    text = 'objective = "log_loss"\n' + study_text()

    opened = create(storage_url, text)

    assert opened.direction == optuna.study.StudyDirection.MINIMIZE
    assert opened.metric_names == ["log_loss"]


def test_the_sampler_and_the_pruner_are_the_callers(storage_url: str, study_text: Callable[..., str]) -> None:
    sampler, pruner = optuna.samplers.RandomSampler(), optuna.pruners.NopPruner()
    text = study_text()

    opened = studies.create_or_open(
        studies.open_storage(storage_url),
        spec.loads(text, "x.toml"),
        file_text=text,
        fingerprints={},
        sampler=sampler,
        pruner=pruner,
    )

    assert (opened.sampler, opened.pruner) == (sampler, pruner)


def test_the_study_file_is_stored_with_the_study(storage_url: str, study_text: Callable[..., str]) -> None:
    create(storage_url, study_text(trials=7))

    opened = studies.open_existing(studies.open_storage(storage_url), "stripes")

    assert studies.stored_spec(opened) == spec.loads(study_text(trials=7), "x.toml")


def test_another_range_is_refused_in_one_line(storage_url: str, study_text: Callable[..., str]) -> None:
    create(storage_url, study_text())

    with pytest.raises(StudyChanged) as caught:
        create(storage_url, study_text(search="lr = 0.5", epochs=3))

    message = str(caught.value)
    assert message.startswith("the file no longer matches the stored study 'stripes': ")
    assert "budget.epochs: study has 2, here is 3; search.lr: study has { log = [0.0001, 0.1] }" in message
    assert "here is 0.5; give this search another name" in message
    assert "\n" not in message


def test_other_facts_are_refused_in_one_line(storage_url: str, study_text: Callable[..., str]) -> None:
    create(storage_url, study_text())

    with pytest.raises(StudyChanged) as caught:
        create(storage_url, study_text(), fingerprints={"data": "ffff", "weights": "eeee"})

    assert "tlopt:data: study has 0a1b, here is ffff; tlopt:weights: study has 1c2d, here is eeee;" in str(
        caught.value
    )


def test_another_semantics_version_is_refused(
    storage_url: str, study_text: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(storage_url, study_text())
    earlier = spec.SEMANTICS_VERSION - 1
    monkeypatch.setattr(spec, "SEMANTICS_VERSION", earlier)

    with pytest.raises(StudyChanged, match=f"tlopt:semantics: study has {earlier + 1}, here is {earlier}"):
        create(storage_url, study_text())


def test_a_study_of_an_earlier_version_is_refused_with_the_way_on(
    storage_url: str, study_text: Callable[..., str]
) -> None:
    create(storage_url, study_text()).set_user_attr(attributes.SEMANTICS, spec.SEMANTICS_VERSION - 1)

    with pytest.raises(StudyChanged, match="tlopt upgrade stripes"):
        create(storage_url, study_text())


def test_records_of_a_later_version_are_refused(storage_url: str, study_text: Callable[..., str]) -> None:
    made = create(storage_url, study_text())
    made.set_user_attr(attributes.RECORD_FORMAT, attributes.FORMAT_VERSION + 1)
    made.set_user_attr(attributes.EXPORTS, "in another form by then")  # which is no damage

    with pytest.raises(StorageError, match="created by a newer tlopt"):
        create(storage_url, study_text())
    with pytest.raises(StorageError, match="created by a newer tlopt"):
        studies.open_existing(studies.open_storage(storage_url), "stripes")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (attributes.STUDY_FILE, 5),
        (attributes.RECORD_FORMAT, "2"),
        (attributes.SEMANTICS, None),
        (attributes.BEGAN, "yesterday"),
        (attributes.IMAGES, [1]),
        (attributes.EXPORTS, 5),
        (attributes.EXPORTS, [1]),
        (attributes.FIT, "good"),
    ],
)
def test_an_attribute_of_another_type_is_refused_by_name(
    key: str, value: object, storage_url: str, study_text: Callable[..., str]
) -> None:
    create(storage_url, study_text()).set_user_attr(key, value)

    said = rf"'stripes' is damaged: .*{key} = .*tlopt delete stripes"
    with pytest.raises(StorageError, match=said):
        create(storage_url, study_text())
    with pytest.raises(StorageError, match=said):
        studies.open_existing(studies.open_storage(storage_url), "stripes")


def test_a_stored_file_that_cannot_be_read_is_refused_by_digest(
    storage_url: str, study_text: Callable[..., str]
) -> None:
    create(storage_url, study_text()).set_user_attr(attributes.STUDY_FILE, "forgotten = true")

    with pytest.raises(StudyChanged, match=r"digest: study has [0-9a-f]{16}, here is [0-9a-f]{16}"):
        create(storage_url, study_text(epochs=3))


def test_more_trials_are_not_another_study(storage_url: str, study_text: Callable[..., str]) -> None:
    create(storage_url, study_text(trials=4))

    create(storage_url, study_text(trials=9))
    opened = create(storage_url, study_text(trials=5))

    assert studies.stored_spec(opened).budget.trials == 9


def test_a_study_that_was_left_half_made_is_completed(
    storage_url: str, study_text: Callable[..., str]
) -> None:
    store = studies.open_storage(storage_url)
    optuna.create_study(storage=store, study_name="stripes", direction="maximize")

    with pytest.raises(NotReady, match="a worker is about to create it"):
        studies.open_existing(store, "stripes")
    assert create(storage_url, study_text()).user_attrs[attributes.DIGEST]


def test_a_foreign_study_of_the_same_name_is_left_alone(
    storage_url: str, study_text: Callable[..., str]
) -> None:
    foreign = optuna.create_study(
        storage=studies.open_storage(storage_url), study_name="stripes", direction="maximize"
    )
    foreign.add_trial(optuna.create_trial(value=0.5))

    with pytest.raises(StorageError, match="was not created by tlopt"):
        create(storage_url, study_text())
    with pytest.raises(StorageError, match="was not created by tlopt"):
        studies.open_existing(studies.open_storage(storage_url), "stripes")
    assert foreign.user_attrs == {}


def test_a_missing_study_is_an_error_that_lists_the_others(
    storage_url: str, study_text: Callable[..., str]
) -> None:
    create(storage_url, study_text())

    with pytest.raises(NotReady, match=r"no study 'strips' in this storage \(there are: stripes\)"):
        studies.open_existing(studies.open_storage(storage_url), "strips")


def test_a_stored_file_of_another_version_is_a_spec_error(
    storage_url: str, study_text: Callable[..., str]
) -> None:
    opened = create(storage_url, study_text())
    opened.set_user_attr(attributes.STUDY_FILE, "forgotten = true")

    with pytest.raises(SpecError, match="study stripes: forgotten: unknown key"):
        studies.stored_spec(opened)


def test_plain_optuna_reads_the_study(storage_url: str, study_text: Callable[..., str]) -> None:
    create(storage_url, study_text()).add_trial(optuna.create_trial(value=0.25))

    plain = optuna.load_study(study_name="stripes", storage=studies.normalise(storage_url))

    assert plain.best_value == 0.25


# Many at once

# Imports take longer than what is raced for, so each process waits until all are ready.
TOGETHER = """
import os, pathlib, sys, time
import optuna
from tlopt import spec
from tlopt.storage import studies

def wait_for_all():
    folder = pathlib.Path(sys.argv[3])
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < int(sys.argv[2]):
        time.sleep(0.001)

optuna.logging.set_verbosity(optuna.logging.ERROR)
"""

FIRST_START = """
wait_for_all()
text = open(sys.argv[4]).read()
opened = studies.open_storage(sys.argv[1])
prints = {"data": "0a1b"}
study = studies.create_or_open(opened, spec.loads(text, "x.toml"), file_text=text, fingerprints=prints)
print(study.user_attrs["tlopt:digest"])
"""

TAKE = """
study = studies.open_existing(studies.open_storage(sys.argv[1]), "stripes")
wait_for_all()
for _ in range(10):
    trial = study.ask()
    trial.suggest_int("x", 0, 1000)
    study.tell(trial, 0.0)
    print(trial.number)
"""


def test_the_write_ahead_log_waits_for_a_writer_that_sqlite_itself_would_not_wait_for(tmp_path: Path) -> None:
    file = tmp_path / "studies.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("CREATE TABLE of_a_writer (x)")
        writer.execute("BEGIN IMMEDIATE")
        ending = threading.Timer(0.3, writer.execute, ["COMMIT"])
        ending.start()
        connect.use_write_ahead_log(file)
        ending.join()

    with contextlib.closing(sqlite3.connect(file)) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_processes_may_start_together_on_an_empty_database(
    storage_url: str, study_text: Callable[..., str], tmp_path: Path
) -> None:
    text = study_text()
    (tmp_path / "x.toml").write_text(text)

    (tmp_path / "ready").mkdir()

    digests = processes(6, FIRST_START, storage_url, tmp_path / "ready", str(tmp_path / "x.toml"))

    assert digests == [spec.loads(text, "x.toml").digest + "\n"] * 6
    assert optuna.get_all_study_names(studies.open_storage(storage_url)) == ["stripes"]


def test_a_waiting_trial_is_taken_by_one_process_only(
    storage_url: str, study_text: Callable[..., str], tmp_path: Path
) -> None:
    study = create(storage_url, study_text())
    for x in range(40):
        study.enqueue_trial({"x": x})
    (tmp_path / "ready").mkdir()

    taken = processes(4, TAKE, storage_url, tmp_path / "ready")

    assert sorted(int(number) for lines in taken for number in lines.split()) == list(range(40))
    assert [trial.params["x"] for trial in study.trials] == list(range(40))


@pytest.mark.postgres
def test_a_storage_holds_one_connection(
    postgres_server: Any, postgres_url: str, study_text: Callable[..., str]
) -> None:
    study = create(postgres_url, study_text())
    study.tell(study.ask(), 0.5)

    name = sqlalchemy.make_url(postgres_url).database
    rows = postgres_server.execute("SELECT application_name FROM pg_stat_activity WHERE datname = %s", name)

    assert rows == [("tlopt",)]


@pytest.mark.postgres
def test_a_storage_that_is_dropped_gives_its_connections_back(
    postgres_server: Any, postgres_url: str
) -> None:
    optuna.get_all_study_names(studies.open_storage(postgres_url))

    gc.collect()

    name = sqlalchemy.make_url(postgres_url).database
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    deadline = time.monotonic() + 10  # a backend ends a moment after its client
    while postgres_server.execute(count, name) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.postgres
def test_a_connection_has_utc_and_ends_idle_transactions(postgres_url: str) -> None:
    engine = studies.engine_of(studies.open_storage(postgres_url))

    with engine.connect() as connection:
        names = ("TimeZone", "idle_in_transaction_session_timeout")
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]

    assert shown == ["UTC", "20s"]


def test_sqlite_has_a_write_ahead_log_and_one_writer(tmp_path: Path) -> None:
    engine = studies.engine_of(studies.open_storage(str(tmp_path / "x.db")))

    with engine.connect() as connection:
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        other = sqlite3.connect(tmp_path / "x.db", timeout=0.01)
        with contextlib.closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    assert (journal, synchronous) == ("wal", 1)


def test_a_study_is_checked_on_one_reading_of_its_attributes(
    storage_url: str, study_text: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = create(storage_url, study_text())
    stored, readings = opened.user_attrs, []

    def read(_: optuna.Study) -> dict[str, Any]:
        readings.append(stored)
        return stored

    monkeypatch.setattr(optuna.Study, "user_attrs", property(read))

    assert studies.checked_attributes(opened) == stored
    assert len(readings) == 1  # each worker does so at every claim
