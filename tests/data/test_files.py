"""Files that are not regular are named and never block."""

import os

import pytest
from pictures import SEED, save, spec

from tlopt.data import load
from tlopt.data.files import read_regular
from tlopt.errors import DataError, TloptError


def test_a_regular_file_is_read_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link") == b"content"


@pytest.mark.timeout(20)
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(DataError, match="not a regular file but a named pipe"):
        read_regular(tmp_path / "x.png")


def test_a_device_is_refused(tmp_path):
    (tmp_path / "x.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file but a device"):
        read_regular(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("target", "words"),
    [("loop.png", "leads back to itself"), ("nowhere.png", "a link to nowhere.png, which is not there")],
)
def test_a_link_to_nothing_says_where_it_leads(tmp_path, target, words):
    (tmp_path / "loop.png").symlink_to(target)
    with pytest.raises(DataError, match=words):
        read_regular(tmp_path / "loop.png")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "x/" * 2500])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        read_regular(tmp_path / name)


@pytest.mark.timeout(60)
def test_odd_files_among_images_are_named_and_the_others_used(folder):
    root = folder(6, 6)
    os.mkfifo(root / "a" / "pipe.png")
    (root / "a" / "loop.png").symlink_to("loop.png")
    with pytest.raises(DataError, match=r"(?s)2 images.*loop\.png: .*itself.*pipe\.png: .*named pipe"):
        load.load_data(spec(root), seed=SEED)
    assert len(load.load_data(spec(root, unreadable="skip"), seed=SEED).skipped) == 2


@pytest.mark.parametrize("source", ["x" * 300, "x/" * 2500, "~nobody-of-this-name/x", "absent"])
def test_a_source_that_cannot_be_is_one_clear_error(source):
    with pytest.raises(TloptError, match=r"no such folder|no home directory"):
        load.load_data(spec(source), seed=SEED)


def test_a_source_that_is_an_image_says_what_a_source_may_be(tmp_path):
    with pytest.raises(DataError, match=r"is a file: .*or a table of files and labels"):
        load.load_data(spec(save(tmp_path / "x.png", 1)), seed=SEED)
