"""Pixels on disk equal decoded ones, are written once, and are complete or missing."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import SEED, save, spec

from tlopt.data import load, threads
from tlopt.data import pixels as pixel_store
from tlopt.data.decode import Reading, decode
from tlopt.errors import DataError

CROP = Reading(resize="crop")


def stored(data, **changes):
    pixels = pixel_store.pixels(data, **{"size": 8, "reading": CROP, **changes})
    return pixels[np.arange(len(pixels))]


@pytest.fixture
def data(folder):
    return load.load_data(spec(folder(5, 5)), seed=SEED)


def files(own_cache: Path, pattern: str) -> list[Path]:
    return sorted((own_cache / "pixels").glob(pattern))


@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_the_store_holds_what_decoding_gives(data, resize):
    pixels = stored(data, reading=Reading(resize=resize))
    assert (pixels.shape, pixels.dtype) == ((len(data.images), 8, 8, 3), np.uint8)
    for found, one in zip(pixels, data.images, strict=True):
        assert (found == decode(one.origin.path, size=8, reading=Reading(resize=resize))).all()


def test_indexing_returns_a_copy(data):
    pixels = pixel_store.pixels(data, size=8, reading=CROP)
    expected = pixels[np.arange(3)].copy()
    pixels[np.arange(3)][:] = 0
    assert (pixels[np.arange(3)] == expected).all()


def test_images_come_in_the_order_asked_for_and_as_often(data):
    pixels, all_of_them = pixel_store.pixels(data, size=8, reading=CROP), stored(data)
    wanted = np.array([5, 0, 5, 2, 7, 1])
    assert (pixels[wanted] == all_of_them[wanted]).all()


def test_no_image_at_all_may_be_asked_for(data):
    """The mistakes of a network that makes none."""
    found = pixel_store.pixels(data, size=8, reading=CROP)[np.array([], dtype=np.int64)]
    assert (found.shape, found.dtype) == ((0, 8, 8, 3), np.uint8)


def test_test_images_have_a_store_of_their_own(folder, own_cache):
    root = folder(9, 9)
    stored(load.load_data(spec(root), seed=SEED))
    assert len(stored(load.test_split(spec(root), seed=SEED))) == 4
    assert len(files(own_cache, "*.rows")) == 2


def test_a_second_call_decodes_nothing(data, monkeypatch):
    first = stored(data)
    monkeypatch.setattr(pixel_store, "_decode", None)  # would be called
    assert (stored(data) == first).all()


def counted(monkeypatch) -> list[object]:
    """The images that are decoded from now on."""
    decode, seen = pixel_store._decode, []

    def counting(image, **how):
        seen.append(image)
        return decode(image, **how)

    monkeypatch.setattr(pixel_store, "_decode", counting)
    return seen


def test_only_what_is_wanted_is_decoded_at_once_and_the_rest_when_it_is_read(data, monkeypatch):
    seen = counted(monkeypatch)
    pixels = pixel_store.pixels(data, size=8, reading=CROP, wanted=np.array([1, 4, 6]))
    assert seen == [data.images[i] for i in (1, 4, 6)]
    assert (pixels[np.arange(8)][2] == decode(data.images[2].origin.path, size=8, reading=CROP)).all()
    assert len(seen) == 8


def test_images_that_one_call_decoded_are_not_decoded_again(data, monkeypatch):
    seen = counted(monkeypatch)
    for wanted in ([1, 4, 6], [0, 1, 4], [1, 4, 6], [0, 1, 4]):
        pixel_store.pixels(data, size=8, reading=CROP, wanted=np.array(wanted))
    assert seen == [data.images[i] for i in (1, 4, 6, 0)]


def test_complete_sets_of_images_are_not_searched_again(data, monkeypatch):
    for wanted in ([6, 7], [0, 1], None):
        pixel_store.pixels(data, size=8, reading=CROP, wanted=None if wanted is None else np.array(wanted))
    monkeypatch.setattr(pixel_store.Pixels, "fill", None)  # would be called
    for wanted in (None, [0, 1], [6, 7]):
        pixel_store.pixels(data, size=8, reading=CROP, wanted=None if wanted is None else np.array(wanted))


def test_moving_the_folder_decodes_nothing(folder, tmp_path, monkeypatch):
    root = folder(5, 5)
    stored(load.load_data(spec(root), seed=SEED))
    moved = load.load_data(spec(root.rename(tmp_path / "moved")), seed=SEED)
    monkeypatch.setattr(pixel_store, "_decode", None)
    assert len(stored(moved)) == 8


def test_size_and_resize_have_stores_of_their_own(data, own_cache):
    for size, resize in ((8, "crop"), (9, "crop"), (8, "stretch")):
        stored(data, size=size, reading=Reading(resize=resize))
    assert len(files(own_cache, "*.rows")) == 3


BUILD = """
import sys, numpy as np, tlopt.data.pixels as store
from tlopt.data import load, threads
from tlopt.data.decode import Reading
from tlopt.spec.sections import DataSpec
decode, count = store._decode, 0
def counted(*positional, **named):
    global count
    count += 1
    return decode(*positional, **named)
store._decode = counted
data = load.load_data(DataSpec(source=sys.argv[1]), seed=7)
print("ready", flush=True)
sys.stdin.readline()
pixels = store.pixels(data, size=64, reading=Reading(resize="crop"))
print(count, pixels[np.arange(len(pixels))].astype(int).sum())
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


def with_an_older_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps([path.stat().st_size]))


DAMAGES = [cut, flip_a_byte, empty, without_sidecar, with_a_damaged_sidecar, with_an_older_sidecar]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_built_again(data, own_cache, damage):
    expected = np.array(stored(data))
    (path,) = files(own_cache, "*.rows")
    damage(path)
    assert (stored(data) == expected).all()


@pytest.mark.parametrize("damage", [cut, flip_a_byte, empty, without_sidecar])
def test_a_store_damaged_while_it_is_read_gives_the_same_pixels_and_is_mended(data, own_cache, damage):
    pixels, everything = pixel_store.pixels(data, size=8, reading=CROP), np.arange(8)
    expected = pixels[everything]
    (path,) = files(own_cache, "*.rows")
    whole = path.read_bytes()
    damage(path)
    assert (pixels[everything] == expected).all()
    assert path.read_bytes() == whole


def test_a_store_that_is_deleted_while_it_is_read_gives_the_same_pixels(data, own_cache):
    pixels, everything = pixel_store.pixels(data, size=8, reading=CROP), np.arange(8)
    expected = pixels[everything]
    shutil.rmtree(own_cache)
    assert (pixels[everything] == expected).all()
    assert len(files(own_cache, "*.rows")) == 1


def test_a_disk_without_room_costs_nobody_the_rows_that_are_there(data, own_cache, monkeypatch):
    expected = pixel_store.pixels(data, size=8, reading=CROP, wanted=np.arange(4))[np.arange(4)]
    (path,) = files(own_cache, "*.rows")
    whole = path.read_bytes()
    monkeypatch.setattr(pixel_store, "free_bytes", lambda path: 0)
    pixels = pixel_store.pixels(data, size=8, reading=CROP)
    assert path.read_bytes() == whole
    assert (pixels[np.arange(4)] == expected).all()


def test_a_disk_that_has_room_again_is_written_again(data, own_cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pixel_store, "free_bytes", lambda path: 0)
        pixels = pixel_store.pixels(data, size=8, reading=CROP)
        pixels.resume_writing()
        pixels[np.arange(8)]
        assert files(own_cache, "*.rows") == []
    pixels.resume_writing()
    expected = pixels[np.arange(8)]
    (path,) = files(own_cache, "*.rows")
    assert (pixel_store.Pixels(path, data.images, size=8, reading=CROP)[np.arange(8)] == expected).all()
    assert path.stat().st_size == 8 * (8 * 8 * 3 + 8)


def test_a_disk_without_room_is_left_alone_and_said_once(data, own_cache, monkeypatch, caplog):
    monkeypatch.setattr(pixel_store, "free_bytes", lambda path: 8 * (8 * 8 * 3 + 8) - 1)
    pixels = pixel_store.pixels(data, size=8, reading=CROP)
    for found, one in zip(pixels[np.arange(8)], data.images, strict=True):
        assert (found == decode(one.origin.path, size=8, reading=CROP)).all()
    assert files(own_cache, "*.rows") == []
    (said,) = caplog.messages
    assert f"the cache {own_cache} cannot be written" in said
    assert "free disk space there, or set TLOPT_CACHE to another folder" in said
    monkeypatch.undo()
    monkeypatch.setenv("TLOPT_CACHE", str(own_cache))
    stored(data)
    assert len(files(own_cache, "*.rows")) == 1


def test_a_disk_that_fills_up_meanwhile_is_given_back_what_was_taken(data, own_cache, monkeypatch):
    writes, write = [], os.pwrite

    def limited(file, record, at):
        writes.append(at)
        if len(writes) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, record, at)

    monkeypatch.setattr(os, "pwrite", limited)
    pixels = stored(data)
    assert files(own_cache, "*") == [own_cache / "pixels" / files(own_cache, "*.lock")[0].name]
    monkeypatch.undo()
    monkeypatch.setenv("TLOPT_CACHE", str(own_cache))
    assert (stored(data) == pixels).all()


def test_images_that_cannot_be_written_are_decoded_once_within_the_memory_limit(data, own_cache, monkeypatch):
    monkeypatch.setattr(pixel_store, "free_bytes", lambda path: 0)
    monkeypatch.setattr(pixel_store, "_MEMORY_BYTES_MAX", 5 * 8 * 8 * 3)
    pixels = pixel_store.pixels(data, size=8, reading=CROP)
    first = pixels[np.arange(8)]
    decoded, count = pixel_store._decode, []
    monkeypatch.setattr(pixel_store, "_decode", lambda *a, **k: count.append(a) or decoded(*a, **k))
    assert (pixels[np.arange(8)] == first).all()
    assert len(count) == 3


def test_an_image_that_changed_since_loading_is_named(data):
    save(data.images[3].origin.path, 99)
    with pytest.raises(DataError, match=f"{data.images[3].origin} has changed since"):
        stored(data)


def test_an_image_that_went_away_since_loading_is_named(data):
    data.images[3].origin.path.unlink()
    with pytest.raises(DataError, match=f"{data.images[3].origin} is gone or changed: it cannot be read"):
        stored(data)


def test_progress_is_shown_on_stderr_only(data, capsys, monkeypatch):
    monkeypatch.setattr(threads, "SECONDS_BETWEEN_LINES", 0.0)
    stored(data, progress=True)
    shown = capsys.readouterr()
    assert (shown.out, "decoding to 8 px" in shown.err) == ("", True)


@pytest.mark.parametrize(
    ("resolution", "evaluated", "cropped"),
    [(224, 256, 336), (96, 110, 144), (8, 9, 12), (2, 2, 3), (1, 1, 2)],
)
def test_images_are_stored_larger_than_what_the_network_sees(resolution, evaluated, cropped):
    assert (pixel_store.eval_size(resolution), pixel_store.training_size(resolution)) == (evaluated, cropped)


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("TLOPT_CACHE", "/somewhere/else")
    assert pixel_store.cache_root() == Path("/somewhere/else")
