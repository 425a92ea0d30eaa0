"""SQLite files and client errors: findings have cures, nothing is written, and no password is shown."""

import os
import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from looked import problem, problems, titled
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage

from tlopt.doctor import connection
from tlopt.doctor.connection import translated
from tlopt.doctor.database import database
from tlopt.doctor.finding import CheckFailed, Finding, guarded
from tlopt.storage import attributes
from tlopt.system import filesystems

URL = sqlalchemy.make_url("postgresql+psycopg2://me:topsecret@host:5432/x")


def look(url: str | None) -> tuple[list[Finding], BaseStorage | None]:
    """The findings on the database `url`, and the storage of its studies."""
    found = []
    check = guarded("database", database(url))
    while True:
        try:
            found.append(next(check))
        except StopIteration as end:
            return found, end.value


def plant(url: str, names: Iterable[str]) -> None:
    """Create studies with tlopt's names in a database that Optuna created."""
    storage = RDBStorage(url)
    for name in names:
        optuna.create_study(storage=storage, study_name=name).set_user_attr(attributes.DIGEST, "0a1b")
    storage.engine.dispose()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some where #1" / "tlopt.db"


@pytest.fixture
def url(file: Path) -> str:
    """The URL of an SQLite database with a write-ahead log and one study, in a folder with odd characters."""
    file.parent.mkdir()
    with sqlite3.connect(file) as made:
        made.execute("PRAGMA journal_mode=WAL")
    made.close()
    address = sqlalchemy.URL.create("sqlite", database=str(file)).render_as_string()
    plant(address, ["flowers"])
    return address


# Who named it


def test_the_default_database_is_called_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    found, store = look(None)

    assert store is None
    assert titled(found, "storage") == [
        Finding("ok", "storage", f"sqlite:///{tmp_path}/tlopt.db, from the default")
    ]
    assert titled(found, "database")[0].detail == "SQLite; the file does not exist yet, tlopt run creates it"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("origin", ["--storage", "TLOPT_STORAGE", "TLOPT_STORAGE_FILE"])
def test_the_origin_of_the_url_is_named(origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"--storage": "a.db", "TLOPT_STORAGE": "b.db", "TLOPT_STORAGE_FILE": "c.db"}
    (tmp_path / "url").write_text(f"{tmp_path}/c.db")
    given = list(names)[list(names).index(origin) :]  # the stronger ones are not set
    for name in given:
        if name != "--storage":
            monkeypatch.setenv(name, str(tmp_path / ("url" if name.endswith("FILE") else names[name])))

    found = look(f"{tmp_path}/a.db" if "--storage" in given else None)[0]

    assert found[0].detail == f"sqlite:///{tmp_path}/{names[origin]}, from {origin}"


def test_an_unreadable_file_with_the_url_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLOPT_STORAGE_FILE", str(tmp_path / "absent"))

    assert "TLOPT_STORAGE_FILE" in problem(look(None)[0]).detail


# SQLite


def test_a_good_file_is_ok_and_its_studies_are_listed(url: str) -> None:
    found, store = look(url)

    assert problems(found) == []
    assert titled(found, "studies") == [Finding("ok", "studies", "flowers")]
    assert store is not None
    assert optuna.load_study(study_name="flowers", storage=store).user_attrs == {attributes.DIGEST: "0a1b"}


def test_five_studies_are_listed_without_confirmations_and_foreign_ones(url: str) -> None:
    plant(url, [*"fedcba", "a.confirm"])
    optuna.create_study(storage=url, study_name="aa-stranger")

    assert titled(look(url)[0], "studies")[0].detail == "a, b, c, d, e, and 2 more"


def test_the_check_changes_no_byte_and_leaves_no_file(url: str, file: Path) -> None:
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}

    assert problems(look(url)[0]) == []
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == before


def test_the_returned_storage_cannot_write(url: str) -> None:
    _, store = look(url)
    assert store is not None

    with pytest.raises(StorageInternalError) as caught:
        optuna.create_study(storage=store, study_name="new")
    assert "readonly database" in str(caught.value.__cause__)


def test_a_database_in_use_is_read(url: str, file: Path) -> None:
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE studies SET study_name = 'other'")

    found = look(url)[0]
    writer.close()

    assert titled(found, "studies")[0].detail == "flowers"


def test_an_empty_file_is_a_database_without_studies(tmp_path: Path) -> None:
    (tmp_path / "tlopt.db").touch()

    found, store = look(f"{tmp_path}/tlopt.db")

    assert (problems(found), store) == ([], None)
    assert titled(found, "studies")[0].detail == "none yet"


def test_a_missing_folder_is_a_problem_and_is_not_created(tmp_path: Path) -> None:
    found = problem(look(f"{tmp_path}/absent/tlopt.db")[0])

    assert found.detail == f"there is no folder {tmp_path}/absent"
    assert found.cure == f"create it (mkdir -p '{tmp_path}/absent') or correct the path"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_file_or_folder_without_permissions_is_a_problem(place: str) -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder, "tlopt.db")
        path.touch()
        path.chmod(0o444 if place == "file" else 0o666)
        Path(folder).chmod(0o777 if place == "file" else 0o555)
        os.seteuid(user or 65534)
        try:
            found = problem(look(str(path))[0])
        finally:
            os.seteuid(user)
            Path(folder).chmod(0o755)

    assert found.detail == f"{path if place == 'file' else folder} cannot be written: Permission denied"
    assert "owner or permissions" in found.cure


def test_another_kind_of_file_is_a_problem_and_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "tlopt.db").write_bytes(b"no database" * 100)

    found = problem(look(f"{tmp_path}/tlopt.db")[0])

    assert found == Finding(
        "problem",
        "database",
        "file is not a database",
        "name another file; this one holds something else",
    )
    assert (tmp_path / "tlopt.db").read_bytes() == b"no database" * 100


def test_a_damaged_file_is_a_problem(url: str, file: Path) -> None:
    with sqlite3.connect(file) as opened:
        page = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trials'").fetchone()[0]
        size = opened.execute("PRAGMA page_size").fetchone()[0]
    opened.close()
    with file.open("r+b") as raw:
        raw.seek((page - 1) * size)
        raw.write(b"\xff" * size)

    found = problem(look(url)[0])

    assert "restore the file from a copy" in found.cure


def test_the_problem_of_a_locked_file_says_how_to_find_the_locking_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.05)
    holder = sqlite3.connect(tmp_path / "tlopt.db", isolation_level=None)
    holder.execute("CREATE TABLE x (y)")
    holder.execute("BEGIN EXCLUSIVE")

    found = problem(look(f"{tmp_path}/tlopt.db")[0])
    holder.close()

    assert found == Finding(
        "problem", "database", "database is locked", "see who holds the file: fuser -v FILE"
    )


def test_a_file_on_a_network_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(f"90 28 0:44 / {tmp_path} rw - nfs4 filer:/ rw\n")
    monkeypatch.setattr(filesystems, "_MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr("sys.platform", "linux")

    found = problem(look(f"{tmp_path}/tlopt.db")[0])

    assert "(nfs4)" in found.detail
    assert "take postgresql://USER:PASSWORD@HOST:PORT/DATABASE" in found.detail


def test_a_database_of_another_optuna_is_a_problem_and_is_not_upgraded(url: str, file: Path) -> None:
    with sqlite3.connect(file) as opened:
        opened.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    opened.close()

    found = problem(look(url)[0])

    assert "optuna storage upgrade" in found.detail
    assert "with a copy of it at hand and no worker running" in found.detail
    with sqlite3.connect(file) as opened:
        assert opened.execute("SELECT version_num FROM alembic_version").fetchone() == ("v0.9.0.a",)
    opened.close()


# What clients say


def told(says: str, url: sqlalchemy.URL = URL) -> Finding:
    with pytest.raises(CheckFailed) as ended, translated(url):
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception(says))
    assert ended.value.__cause__ is None
    assert ended.value.__suppress_context__
    return ended.value.finding


@pytest.mark.parametrize(
    ("says", "cure"),
    [
        ('connection to server at "h" (1.2.3.4), port 5432 failed: Connection refused', "start the server"),
        ('FATAL:  password authentication failed for user "me"', "correct user and password"),
        ("fe_sendauth: no password supplied", "add the password"),
        ('FATAL:  database "x" does not exist', "CREATE DATABASE"),
        ('FATAL:  role "me" does not exist', "CREATE ROLE"),
        ("FATAL:  sorry, too many clients already", "raise max_connections"),
        ("FATAL:  remaining connection slots are reserved for roles with SUPERUSER", "raise max_connections"),
        ('FATAL:  too many connections for role "me"', "CONNECTION LIMIT"),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "me", no encryption', "sslmode=require"),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "me", SSL encryption', "pg_hba.conf"),
        ("server does not support SSL, but SSL was required", "take sslmode out"),
        ("FATAL:  the database system is starting up", "in a minute"),
        ('could not translate host name "h" to address: Name or service not known', "correct the host"),
        ("timeout expired", "firewall"),
        ("connection failed: Network is unreachable", "network between"),
        ("connection failed: No route to host", "network between"),
        ('FATAL:  permission denied for database "x"', "GRANT CONNECT"),
        ("permission denied for table studies", "GRANT ALL ON ALL TABLES"),
        ("something that nobody has foreseen", "host, port, user, password and database"),
    ],
)
def test_each_client_error_has_a_cure(says: str, cure: str) -> None:
    found = told(says)

    assert found.level == "problem"
    assert found.detail == says
    assert cure in found.cure


def test_for_a_host_with_several_addresses_the_one_that_responded_decides() -> None:
    found = told(
        'connection to server at "h" (::1), port 5432 failed: Connection refused\n'
        "\tIs the server running on that host and accepting TCP/IP connections?\n"
        'connection to server at "h" (127.0.0.1), port 5432 failed: FATAL:  password authentication failed'
    )

    assert found.detail.endswith("(127.0.0.1), port 5432 failed: FATAL:  password authentication failed")
    assert "user and password" in found.cure


@pytest.mark.parametrize(
    "says",
    [
        "invalid dsn: topsecret",
        "could not parse postgresql://me:topsecret@host:5432/x",
        "refused: postgresql://me:other-topsecret@host/x",
    ],
)
def test_a_password_in_a_client_error_is_not_shown(says: str) -> None:
    assert "topsecret" not in repr(told(says))


def test_another_applications_file_is_a_problem_and_is_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "places.sqlite"
    with sqlite3.connect(file) as made:
        made.execute("CREATE TABLE moz_places (id)")
    made.close()
    before = file.read_bytes()

    found = problem(look(str(file))[0])

    assert "belongs to another application: it has the tables moz_places" in found.detail
    assert "no longer compatible" not in found.detail
    assert file.read_bytes() == before
