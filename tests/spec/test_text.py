"""Study files as editors save them: byte-order marks, other encodings, impossible names."""

import os
from pathlib import Path

import pytest

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.spec.text import is_file, no_such_file, read_text, user_path

STUDY = """name = "blüten"
[data]
source = "x"
[model]
backbone = "resnet18"
[budget]
trials = 9
epochs = 3
"""


def saved(folder: Path, text: str, encoding: str) -> Path:
    path = folder / "study.toml"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    text = STUDY.replace("ü", "ue")

    assert spec.load(saved(tmp_path, text, "utf-8-sig")).name == "blueten"
    assert read_text(saved(tmp_path, text, "utf-8")) == text


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-1", r"study\.toml, line 1: byte 0xfc is not UTF-8.*save the file as UTF-8"),
        ("utf-16", r"study\.toml: is UTF-16 text; a study file is UTF-8"),
        ("utf-32", r"study\.toml: is UTF-32 text; a study file is UTF-8"),
    ],
)
def test_another_encoding_is_named(encoding: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        spec.load(saved(tmp_path, STUDY, encoding))


def test_a_name_too_long_for_a_file_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)

    assert not is_file(path)
    with pytest.raises(SpecError, match="cannot be read as a study file"):
        read_text(path)


def test_a_home_of_nobody_is_named() -> None:
    with pytest.raises(SpecError, match="~no-such-user names no home directory"):
        user_path("~no-such-user/images")
    assert not is_file("~no-such-user/study.toml")


def test_a_folder_is_told_apart_from_a_study_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is a folder and no study file"):
        read_text(tmp_path)


@pytest.mark.timeout(20)
def test_a_named_pipe_is_no_study_file_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "study.toml"
    os.mkfifo(pipe)

    with pytest.raises(SpecError, match=r"study\.toml: is a named pipe and no study file; .* in a file"):
        spec.load(pipe)
    assert str(no_such_file(str(pipe))).startswith(f"{pipe}: is a named pipe and no study file")
    assert "there is no such study file" in str(no_such_file(str(tmp_path / "absent.toml")))
