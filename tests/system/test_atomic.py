"""Files and folders are replaced atomically."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tlopt.system.atomic import replacing_file, replacing_folder, write_atomically

BELOW = {"file": replacing_file, "folder": replacing_folder}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with replacing_file(path) as part:
        part.write_text("ne")
        assert path.read_text() == "old"
        part.write_text("new")
    assert (path.read_text(), names(tmp_path)) == ("new", ["x.txt"])


def test_text_is_written_as_utf_8_without_other_line_ends(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x.txt", "ä\n")
    assert (tmp_path / "x.txt").read_bytes() == b"\xc3\xa4\n"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_an_error_leaves_the_former_file_and_no_trace(tmp_path: Path, error: type[BaseException]) -> None:
    write_atomically(tmp_path / "x.txt", "old")

    def fail() -> None:
        with replacing_file(tmp_path / "x.txt") as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert ((tmp_path / "x.txt").read_text(), names(tmp_path)) == ("old", ["x.txt"])


@pytest.mark.parametrize(("number", "named"), [(errno.ENOSPC, "x.txt"), (errno.ECONNRESET, None)])
def test_a_full_disk_is_told_with_the_name_of_the_file(
    number: int, named: str | None, tmp_path: Path
) -> None:
    with pytest.raises(OSError) as caught, replacing_file(tmp_path / "x.txt"):  # noqa: PT011
        raise OSError(number, os.strerror(number))

    assert caught.value.errno == number
    assert caught.value.filename == (named and str(tmp_path / named))


def test_a_folder_that_is_gone_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "gone" / "x.txt", "new")

    assert caught.value.filename == str(tmp_path / "gone" / "x.txt")


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with replacing_folder(tmp_path / "x") as part:
        (part / "new").touch()
        assert names(tmp_path / "x") == ["old"]
    assert (names(tmp_path / "x"), names(tmp_path)) == (["new"], ["x"])


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_an_error_leaves_the_former_folder_and_no_trace(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()

    def fail() -> None:
        with replacing_folder(tmp_path / "x") as part:
            (part / "new").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert (names(tmp_path / "x"), names(tmp_path)) == (["old"], ["x"])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path, kind: str) -> None:
    code = (
        "import os, signal; from pathlib import Path; import tlopt.system.atomic as atomic\n"
        f"with atomic.replacing_{kind}(Path({str(tmp_path / 'x')!r})) as part:\n"
        f"    part.exists() or part.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    with BELOW[kind](tmp_path / "x") as part:
        part.write_text("whole") if kind == "file" else (part / "whole").touch()
    assert names(tmp_path) == ["x"]


def test_what_a_living_writer_is_about_stays(tmp_path: Path) -> None:
    with replacing_file(tmp_path / "x") as outer:
        outer.write_text("outer")
        other = outer.with_name(outer.name.replace(str(os.getpid()), str(os.getppid())))
        other.write_text("another process's")
        write_atomically(tmp_path / "y", "")
        with replacing_file(tmp_path / "x", part=tmp_path / "own") as part:
            part.write_text("inner")
        assert (tmp_path / "x").read_text() == "inner"
    assert (tmp_path / "x").read_text() == "outer"
    write_atomically(tmp_path / "x", "last")
    assert other.exists()


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "x", "")
