"""Database URLs: finding, normalising, and hiding passwords."""

import traceback
from pathlib import Path

import pytest

from tlopt.errors import StorageError
from tlopt.storage.url import find_url, hide_password, normalise


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("postgres://u:p@h:1/d", "postgresql+psycopg2://u:p@h:1/d"),
        ("postgresql://u:p@h:1/d", "postgresql+psycopg2://u:p@h:1/d"),
        ("postgresql+psycopg2://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        (" postgresql://h/d?sslmode=require\n", "postgresql+psycopg2://h/d?sslmode=require"),
        ("postgresql://u:{p}@h/d", "postgresql+psycopg2://u:%7Bp%7D@h/d"),
        ("postgresql://u:p%40%2F%3A@h/d", "postgresql+psycopg2://u:p%40%2F%3A@h/d"),
        ("postgresql://u:p@[::1]:1/d", "postgresql+psycopg2://u:p@[::1]:1/d"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("/a/b.sqlite", "sqlite:////a/b.sqlite"),
        ("/a b/c@d.db", "sqlite:////a b/c%40d.db"),
    ],
)
def test_a_url_is_written_in_one_way(url: str, normal: str) -> None:
    assert normalise(url) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize("url", ["x.db", "sqlite:///x.db", "sqlite+pysqlite:///x.db"])
def test_a_relative_path_is_of_the_working_directory(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert normalise(url) == f"sqlite:///{tmp_path}/x.db"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:pw-secret@h/d",
        "redis://:pw-secret@h",
        "postgresql+psycopg://u:pw-secret@h/d",
        "postgresql://u:pw-secret@h",
        "postgresql://u:pw@secret@h/d",
        "postgresql://u:pw@secret/x@h/d",
        "postgresql://u:pw-secret",
        "sqlite://",
        "sqlite:///:memory:",
        "somewhere",
        "",
    ],
)
def test_a_url_that_cannot_serve_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        normalise(url)

    assert "sqlite:///FILE" in str(caught.value)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/tmp/" + "x" * 300 + ".db", "File name too long"),
        ("/tmp/" + "x/" * 3000 + "y.db", "File name too long"),
        ("~nobody-of-this-name/x.db", "there is no such user"),
        ("{folder}/loop.db", "symbolic links"),
        ("{folder}/folder.db", "is a folder; name a file in it"),
        ("{folder}/a\0b.db", "is no path of a file"),
    ],
)
def test_a_path_that_no_file_can_have_is_refused(path: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "loop.db").symlink_to(tmp_path / "loop.db")
    (tmp_path / "folder.db").mkdir()

    with pytest.raises(StorageError, match=words) as caught:
        find_url(path.format(folder=tmp_path))

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h:1/d", "postgresql://u:***@h:1/d"),
        ("postgresql://u:se@cret:x/@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
        ("postgresql://u:secret", "postgresql://u:***"),
        ("postgresql://h:5432/d?user=u&password=secret&x=1", "postgresql://h:5432/d?user=u&password=***&x=1"),
        ("postgresql://[::1]:5432/d", "postgresql://[::1]:5432/d"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("sqlite:////a:b@c.db", "sqlite:////a:b@c.db"),
    ],
)
def test_a_shown_url_has_no_password(url: str, shown: str) -> None:
    assert hide_password(url) == shown


def test_the_url_given_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOPT_STORAGE", "/environment.db")

    assert find_url("/given.db") == "sqlite:////given.db"
    assert find_url(None) == "sqlite:////environment.db"


def test_the_url_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text("postgres://u:p@h/d\n")
    monkeypatch.setenv("TLOPT_STORAGE_FILE", str(tmp_path / "url"))

    assert find_url(None) == "postgresql+psycopg2://u:p@h/d"


@pytest.mark.parametrize("content", [None, ""])
def test_a_url_file_without_a_url_is_an_error(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "url").write_text(content)
    monkeypatch.setenv("TLOPT_STORAGE_FILE", str(tmp_path / "url"))

    with pytest.raises(StorageError, match="TLOPT_STORAGE_FILE"):
        find_url(None)


def test_without_any_url_the_database_is_a_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert find_url(None) == f"sqlite:///{tmp_path}/tlopt.db"
