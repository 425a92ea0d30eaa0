"""Pixels on disk: equal to decoding, built once, whole or not there."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import SEED, save, spec

from tlopt.data import load, store
from tlopt.data.image import decode
from tlopt.errors import DataError


def stored(data, **changes):
    return store.pixels(data, **{"size": 8, "resize": "crop", **changes})


@pytest.fixture
def data(folder):
    return load.load(spec(folder(5, 5)), seed=SEED)


def files(own_cache: Path, pattern: str) -> list[Path]:
    return sorted((own_cache / "pixels").glob(pattern))


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_the_store_holds_what_decoding_gives(data, resize):
    pixels = stored(data, resize=resize)
    assert isinstance(pixels, np.memmap)
    assert (pixels.shape, pixels.dtype) == ((len(data.images), 8, 8, 3), np.uint8)
    for found, one in zip(pixels, data.images, strict=True):
        assert (found == decode(one.origin.path, size=8, resize=resize)).all()


def test_the_store_cannot_be_written_to(data):
    with pytest.raises(ValueError, match="read-only"):
        stored(data)[0] = 0


def test_test_images_have_a_store_of_their_own(folder, own_cache):
    root = folder(9, 9)
    stored(load.load(spec(root), seed=SEED))
    assert len(stored(load.test_split(spec(root), seed=SEED))) == 4
    assert len(files(own_cache, "*.npy")) == 2


def test_a_second_call_decodes_nothing(data, monkeypatch):
    first = stored(data)
    monkeypatch.setattr(store, "_decode", None)  # would be called
    assert (stored(data) == first).all()


def test_moving_the_folder_decodes_nothing(folder, tmp_path, monkeypatch):
    root = folder(5, 5)
    stored(load.load(spec(root), seed=SEED))
    moved = load.load(spec(root.rename(tmp_path / "moved")), seed=SEED)
    monkeypatch.setattr(store, "_decode", None)
    assert len(stored(moved)) == 8


def test_size_and_resize_have_stores_of_their_own(data, own_cache):
    for size, resize in ((8, "crop"), (9, "crop"), (8, "squash")):
        stored(data, size=size, resize=resize)
    assert len(files(own_cache, "*.npy")) == 3


BUILD = """
import sys, tlopt.data.store as store
from tlopt.data import load
from tlopt.data_keys import DataSpec
decode, count = store._decode, 0
def counted(*positional, **named):
    global count
    count += 1
    return decode(*positional, **named)
store._decode = counted
data = load.load(DataSpec(source=sys.argv[1]), seed=7)
print("ready", flush=True)
sys.stdin.readline()
pixels = store.pixels(data, size=64, resize="crop")
print(count, pixels.astype(int).sum())
"""


def test_two_processes_that_want_a_store_build_it_once(folder):
    root = folder(20, 20)
    command = [sys.executable, "-c", BUILD, str(root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        assert [process.stdout.readline() for process in (one, other)] == ["ready\n"] * 2
        for process in (one, other):
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [process.communicate(timeout=60)[0].split() for process in (one, other)]
    assert sorted(int(count) for count, _ in results) == [0, 32]
    assert results[0][1] == results[1][1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_sidecar(path: Path) -> None:
    path.with_suffix(".json").unlink()


def with_a_damaged_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps({"bytes": 1}))


@pytest.mark.parametrize("damage", [cut, flip_a_byte, empty, without_sidecar, with_a_damaged_sidecar])
def test_a_damaged_store_is_built_again(data, own_cache, damage):
    expected = np.array(stored(data))
    (path,) = files(own_cache, "*.npy")
    damage(path)
    assert (stored(data) == expected).all()


class FullDisk:
    """A file on a disk that is full after `room` bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        self.room -= memoryview(content).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()


def test_a_full_disk_says_how_much_is_needed_and_where(data, own_cache, monkeypatch):
    opened = Path.open

    def limited(path, mode="r", **how):
        file = opened(path, mode, **how)
        return FullDisk(file, 500) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", limited)
    with pytest.raises(DataError, match=r"the disk is full at .*pixels; 1,536 bytes are needed: make room"):
        stored(data)
    monkeypatch.undo()
    monkeypatch.setenv("TLOPT_CACHE", str(own_cache))
    assert files(own_cache, "*.part") == []
    assert len(stored(data)) == 8


def test_an_image_that_changed_since_loading_is_named(data):
    save(data.images[3].origin.path, 99)
    with pytest.raises(DataError, match=f"{data.images[3].origin} has changed since"):
        stored(data)


def test_an_image_that_went_away_since_loading_is_named(data):
    data.images[3].origin.path.unlink()
    with pytest.raises(DataError, match=f"{data.images[3].origin} cannot be read any more"):
        stored(data)


def test_progress_is_shown_on_stderr_only(data, capsys):
    stored(data, progress=True)
    shown = capsys.readouterr()
    assert (shown.out, "decoding to 8 px" in shown.err) == ("", True)


@pytest.mark.parametrize(("resolution", "size"), [(224, 256), (96, 110), (8, 9), (2, 2), (1, 1)])
def test_the_store_is_an_eighth_larger_than_what_the_network_sees(resolution, size):
    assert store.store_size(resolution) == size


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("TLOPT_CACHE", "/somewhere/else")
    assert store.cache_root() == Path("/somewhere/else")
