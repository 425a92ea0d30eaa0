"""The checkpoint store: complete files, the last two, a fallback and a bound, with several writers."""

import errno
import importlib.util
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import _registry
from hypothesis import given, settings
from hypothesis import strategies as st

from tlopt.errors import CheckpointUnreadable, MissingExtra, SpecError
from tlopt.spec.point import Point
from tlopt.training.checkpoint import Checkpoint, apply, pack
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.training.run import Run

A, B, C = "aa", "bb", "cc"  # holders
ID = "trial 3 of planted"


HAS_S3 = all(importlib.util.find_spec(name) for name in ("s3fs", "moto"))


@pytest.fixture(params=["folder", "memory", *(["s3"] if HAS_S3 else [])])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a store: a folder that does not exist yet, or an object store."""
    match request.param:
        case "folder":
            yield str(tmp_path / "runs" / "checkpoints")
        case "memory":
            yield f"memory:/{tmp_path}"
            fsspec.filesystem("memory").store.clear()
        case "s3":
            request.getfixturevalue("s3_server")
            yield f"s3://bucket{tmp_path}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[None]:
    """A server that speaks S3's protocol, where s3fs finds it, with an empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "planted")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
        fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        yield
    server.stop()


def made(number: int = 0, *, size: int = 0, identity: str = ID) -> bytes:
    """A checkpoint of no runs that says `number`, longer by `size` bytes."""
    return pack([], [], identity=identity, facts={"number": number, "rest": "x" * size})


def seen(store: CheckpointStore, trial: int = 3) -> list[int | str]:
    """Numbers of the stored checkpoints, newest first; for an unreadable one its message."""
    rows = store.newest_first(trial, ID)
    return [int(row.facts["number"]) if isinstance(row, Checkpoint) else row for row in rows]


def files(url: str) -> list[str]:
    """Names of all files of the store, sorted."""
    fs, root = fsspec.core.url_to_fs(url)
    return sorted(name.removeprefix(root).lstrip("/") for name in fs.find(root)) if fs.exists(root) else []


def plant(url: str, name: str, data: bytes) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
    fs.pipe_file(f"{root}/{name}", data)


def held(url: str, name: str) -> bytes:
    fs, root = fsspec.core.url_to_fs(url)
    data: bytes = fs.cat_file(f"{root}/{name}")
    return data


def test_a_trial_without_checkpoints_starts_over(url: str) -> None:
    store = CheckpointStore(url)

    assert seen(store) == []
    assert store.trials() == set()
    assert files(url) == []


def test_what_was_written_is_read_newest_first(url: str) -> None:
    store = CheckpointStore(url)

    for number, order in enumerate([(0, 7), (0, 20), (1, 0)]):
        assert store.write(3, A, order, made(number))

    assert seen(CheckpointStore(url)) == [2, 1]


def test_orders_are_numbers_however_long(url: str) -> None:
    store = CheckpointStore(url)

    for number, order in enumerate([(9, 99_999_999), (9, 100_000_000), (999_999, 5), (1_000_000, 0)]):
        store.write(3, A, order, made(number))
        assert seen(store)[0] == number


def test_a_holder_keeps_its_last_two(url: str) -> None:
    store = CheckpointStore(url)

    for step in range(1, 9):
        store.write(3, A, (0, step), made(step))
        assert seen(store) == [step, step - 1][:step]
        assert len(files(url)) == min(step, 2)


def test_trials_do_not_touch_each_other(url: str) -> None:
    store = CheckpointStore(url)
    for trial in (3, 4, 1_000_003):
        for step in range(3):
            store.write(trial, A, (0, step), made(trial))

    store.delete(4)

    assert store.trials() == {3, 1_000_003}
    assert seen(store, 1_000_003) == [1_000_003] * 2
    assert seen(store, 4) == []


@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: b"", lambda d: d[:60] + b"?" + d[61:]])
def test_an_unreadable_one_is_told_and_the_one_before_it_read(
    url: str, spoil: Callable[[bytes], bytes]
) -> None:
    store = CheckpointStore(url)
    store.write(3, A, (0, 5), made(1))
    store.write(3, A, (1, 0), made(2))
    newest = "000003/000001-00000000-aa.ckpt"

    plant(url, newest, spoil(held(url, newest)))

    line, number = seen(store)
    assert str(line).startswith("checkpoint 000001-00000000-aa.ckpt of trial 3 is unreadable: it is cut off")
    assert number == 1


def test_where_all_are_unreadable_each_is_told(url: str) -> None:
    store = CheckpointStore(url)
    store.write(3, A, (0, 5), made(1, identity="another"))
    store.write(3, A, (1, 0), b"nothing")

    first, second = seen(store)

    assert "it is cut off: 7 bytes" in str(first)
    assert "it is of another, not of trial 3 of planted" in str(second)


def test_one_is_read_only_when_it_is_asked_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(url)
    store.write(3, A, (0, 5), made(1))
    store.write(3, A, (1, 0), made(2))
    read, cat = list[str](), store._fs.cat_file

    def spy(path: str) -> bytes:
        read.append(path)
        data: bytes = cat(path)
        return data

    monkeypatch.setattr(store._fs, "cat_file", spy)

    next(store.newest_first(3, ID))

    assert [path.rpartition("/")[2] for path in read] == ["000001-00000000-aa.ckpt"]


class Refusal(Exception):
    """An error of a store's client, which is no OSError."""


ERRORS = [
    OSError(errno.EIO, "Input/output error\nmore"),
    Refusal("503 Slow Down\nmore"),
    PermissionError("no"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["disk", "client", "rights"])
def test_a_read_error_is_told_in_one_line_and_the_one_before_read(
    url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = CheckpointStore(url)
    store.write(3, A, (0, 5), made(1))
    store.write(3, A, (1, 0), made(2))
    cat = store._fs.cat_file

    def refuse(path: str) -> bytes:
        if "000001-" in path:
            raise error
        data: bytes = cat(path)
        return data

    monkeypatch.setattr(store._fs, "cat_file", refuse)

    line, number = seen(store)
    assert str(error).splitlines()[0] in str(line)
    assert "\n" not in str(line)
    assert number == 1


@pytest.mark.parametrize("error", ERRORS, ids=["disk", "client", "rights"])
def test_a_store_that_cannot_be_listed_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = CheckpointStore(url)
    store.write(3, A, (0, 5), made(1))

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store._fs, "ls", refuse)

    (line,) = seen(store)
    assert str(line).startswith("the checkpoints of trial 3 cannot be listed: ")


def test_a_programming_error_stays_what_it_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(url)
    store.write(3, A, (0, 5), made(1))

    def fail(path: str) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(store._fs, "cat_file", fail)

    with pytest.raises(ZeroDivisionError):
        seen(store)


def take(url: str) -> CheckpointStore:
    """The store of a process that begins with trial 3."""
    store = CheckpointStore(url)
    seen(store)
    return store


def test_the_next_holder_keeps_its_predecessors_last_until_it_has_two_of_its_own(url: str) -> None:
    first = take(url)
    first.write(3, A, (0, 5), made(1))
    first.write(3, A, (1, 0), made(2))

    second = take(url)
    second.write(3, B, (1, 5), made(3))
    assert seen(CheckpointStore(url)) == [3, 2]
    second.write(3, B, (2, 0), made(4))
    assert seen(CheckpointStore(url)) == [4, 3]
    assert len(files(url)) == 2


def test_a_holder_that_went_on_from_the_one_before_last_leaves_the_unreadable_last_until_it_is_past_it(
    url: str,
) -> None:
    first = take(url)
    first.write(3, A, (1, 0), made(1))
    first.write(3, A, (2, 0), b"damaged")

    second = take(url)
    second.write(3, B, (1, 5), made(3))
    assert [row for row in seen(CheckpointStore(url)) if not isinstance(row, str)] == [3, 1]
    second.write(3, B, (2, 5), made(4))
    assert seen(CheckpointStore(url)) == [4, 3]


@pytest.mark.parametrize("n_before", [0, 1, 2])
@pytest.mark.parametrize("late", [(0, 9), (5, 0)])
def test_a_late_holder_deletes_nothing_of_the_next_ones(
    url: str, n_before: int, late: tuple[int, int]
) -> None:
    first = take(url)
    for step in range(n_before):
        first.write(3, A, (0, step), made(step))
    second = take(url)
    for epoch in (1, 2):
        second.write(3, B, (epoch, 0), made(10 * epoch))

    first.write(3, A, late, made(7))

    assert {"000003/000001-00000000-bb.ckpt", "000003/000002-00000000-bb.ckpt"} <= set(files(url))
    assert seen(CheckpointStore(url))[0] == (7 if late > (2, 0) else 20)


def test_the_next_holder_deletes_what_a_late_one_wrote_and_it_has_passed(url: str) -> None:
    first = take(url)
    first.write(3, A, (0, 5), made(1))
    second = take(url)
    second.write(3, B, (1, 0), made(2))
    first.write(3, A, (2, 0), made(3))

    for epoch in (3, 4):
        second.write(3, B, (epoch, 0), made(4))

    assert files(url) == ["000003/000003-00000000-bb.ckpt", "000003/000004-00000000-bb.ckpt"]


@settings(max_examples=150, deadline=None)
@given(moves=st.lists(st.tuples(st.sampled_from("tw"), st.integers(0, 3), st.integers(1, 3)), max_size=25))
def test_in_any_order_of_holders_the_furthest_one_and_each_ones_successors_stay(
    moves: list[tuple[str, int, int]],
) -> None:
    # t: another takes the trial where the furthest stands; w: the holder, or the i-th before it, late, writes
    url = "memory://planted"
    fsspec.filesystem("memory").store.clear()
    holders = [(take(url), "0")]
    at, furthest = [0], 0
    for move, index, ahead in moves:
        if move == "t":
            holders.append((take(url), f"{len(holders):x}"))
            at.append(furthest)
            continue
        index = min(index, len(holders) - 1)
        store, holder = holders[-1 - index]
        before = set(files(url))
        at[-1 - index] += ahead
        furthest = max(furthest, at[-1 - index])
        store.write(3, holder, (0, at[-1 - index]), made(at[-1 - index]))

        gone = {name.rpartition("-")[2].removesuffix(".ckpt") for name in before - set(files(url))}
        assert all(int(name, 16) <= int(holder, 16) for name in gone), "a later holder's"
        assert seen(CheckpointStore(url))[0] == furthest
    if all(index == 0 for _, index, _ in moves):
        assert len(files(url)) <= 2


def test_a_late_write_after_the_end_is_found_and_swept(url: str) -> None:
    store, late = take(url), take(url)
    late.write(3, A, (0, 5), made(1))
    store.write(3, B, (9, 0), made(2))
    store.delete(3)
    assert store.trials() == set()
    assert files(url) == []

    late.write(3, A, (1, 0), made(3))

    assert store.trials() == {3}
    store.delete(3)
    assert files(url) == []


def test_deleting_what_is_not_there_is_fine(url: str) -> None:
    CheckpointStore(url).delete(3)


def test_a_file_that_another_deletes_at_the_same_time_is_fine(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(url)
    store.write(3, A, (0, 5), made(1))
    remove = store._fs.rm_file

    def twice(path: str) -> None:
        remove(path)
        remove(path)

    monkeypatch.setattr(store._fs, "rm_file", twice)
    store.delete(3)

    assert files(url) == []


def test_a_deletion_that_the_store_refuses_is_an_error_and_the_trial_is_still_named(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(url)
    store.write(3, A, (0, 5), made(1))

    def refuse(path: str) -> None:
        raise Refusal("403 Forbidden")

    monkeypatch.setattr(store._fs, "rm_file", refuse)

    with pytest.raises(OSError, match="403 Forbidden"):
        store.delete(3)
    assert store.trials() == {3}


def test_a_superseded_one_that_cannot_be_deleted_goes_with_the_next_write(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(url)
    for step in (1, 2):
        store.write(3, A, (0, step), made(step))

    def refuse(path: str) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(store._fs, "rm_file", refuse)
        assert store.write(3, A, (0, 3), made(3))
    assert seen(store) == [3, 2, 1]
    store.write(3, A, (0, 4), made(4))

    assert seen(store) == [4, 3]


def test_files_of_others_are_left_alone(url: str) -> None:
    others = [
        "000003/notes.txt",
        "000003/deep/000001-00000001-aa.ckpt",
        "readme",
        "x/000001-00000001-aa.ckpt",
    ]
    for name in others:
        plant(url, name, b"mine")
    store = CheckpointStore(url, bytes_max=len(made(1)))

    assert store.trials() == set()
    assert store.write(3, A, (0, 1), made(1))
    assert seen(store) == [1]
    store.delete(3)

    assert files(url) == sorted(others)


def test_the_bound_is_over_all_trials_and_exact(url: str) -> None:
    size = len(made(1))
    store = CheckpointStore(url, bytes_max=3 * size)
    assert store.write(3, A, (0, 1), made(1))
    assert store.write(4, A, (0, 1), made(2))

    assert not store.write(3, A, (0, 2), made(3) + b"x")
    assert (seen(store, 3), seen(store, 4)) == ([1], [2])
    assert store.write(3, A, (0, 2), made(3))
    assert not store.write(5, A, (0, 1), made(4))
    assert seen(store, 5) == []


def test_what_is_superseded_makes_room(url: str) -> None:
    size = len(made(1))
    store = CheckpointStore(url, bytes_max=2 * size)

    for step in range(1, 6):
        assert store.write(3, A, (0, step), made(step))
    assert store.write(3, A, (0, 5), made(6)), "it takes the place of itself"

    assert seen(store) == [6, 4]


def test_a_deleted_trial_makes_room(url: str) -> None:
    store = CheckpointStore(url, bytes_max=len(made(1)))
    store.write(3, A, (0, 1), made(1))

    assert not store.write(4, A, (0, 1), made(2))
    store.delete(3)
    assert store.write(4, A, (0, 1), made(2))


@pytest.mark.parametrize("holder", ["", "../../etc", "AA", "a" * 65, "a-b"])
def test_a_holder_that_is_no_token_is_refused(url: str, holder: str) -> None:
    with pytest.raises(ValueError, match="no token"):
        CheckpointStore(url).write(3, holder, (0, 1), made(1))

    assert files(url) == []


def test_an_object_that_may_be_there_in_part_after_an_error_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory:/{tmp_path}"
    store = CheckpointStore(url)
    store.write(3, A, (0, 1), made(1))
    pipe = store._fs.pipe_file

    def half(path: str, data: bytes) -> None:
        pipe(path, data[: len(data) // 2])
        raise Refusal("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(store._fs, "pipe_file", half)
        with pytest.raises(OSError, match="Refusal: connection lost"):
            store.write(3, A, (0, 2), made(2))

    assert seen(store) == [1]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_no_part_and_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = CheckpointStore(str(tmp_path))
    for step in (1, 2):
        store.write(3, A, (0, step), made(step))
    before = files(str(tmp_path))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, refuse)
        with pytest.raises(OSError, match="No space left"):
            store.write(3, A, (0, 3), made(3))

    assert files(str(tmp_path)) == before
    assert store.write(3, A, (0, 3), made(3))
    assert seen(store) == [3, 2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tlopt-test", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full_leaves_no_part_and_the_older_ones(small_disk: Path) -> None:
    store = CheckpointStore(str(small_disk))
    assert store.write(3, A, (0, 1), made(1, size=300_000))
    assert store.write(3, A, (0, 2), made(2, size=300_000))

    with pytest.raises(OSError, match="No space left"):
        store.write(3, A, (0, 3), made(3, size=600_000))

    assert files(str(small_disk)) == ["000003/000000-00000001-aa.ckpt", "000003/000000-00000002-aa.ckpt"]
    assert seen(store) == [2, 1]
    assert store.write(3, A, (0, 3), made(3, size=300_000))
    assert seen(store) == [3, 2]


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_older_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(str(tmp_path))
    for step in (1, 2):
        store.write(3, A, (0, step), made(step))
    done, sync, rename, remove = [], os.fsync, Path.replace, store._fs.rm_file

    def fsync(descriptor: int) -> None:
        done.append("sync the folder" if is_folder(descriptor) else "sync the file")
        sync(descriptor)

    def replace(part: Path, path: Path) -> Path:
        done.append(f"{part.name} to {path.name}")
        return rename(part, path)

    def rm_file(path: str) -> None:
        done.append(f"remove {Path(path).name}")
        remove(path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(store._fs, "rm_file", rm_file)
    store.write(3, A, (0, 3), made(3))

    assert done == [
        "sync the file",
        "aa.part to 000000-00000003-aa.ckpt",
        "sync the folder",
        "remove 000000-00000001-aa.ckpt",
    ]


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_folders_is_told_from_one_that_fails_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    store = CheckpointStore(str(tmp_path))
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if is_folder(descriptor):
            raise OSError(number, "planted")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    if passes:
        assert store.write(3, A, (0, 1), made(1))
    else:
        with pytest.raises(OSError, match="planted"):
            store.write(3, A, (0, 1), made(1))


def test_a_writer_killed_amid_its_work_leaves_the_older_or_the_newer_one_whole(tmp_path: Path) -> None:
    # it writes 2 MB again and again; the page cache survives, so this is no loss of power
    code = (
        "from tlopt.training.checkpoint import pack\n"
        "from tlopt.training.checkpoint_store import CheckpointStore\n"
        f"store = CheckpointStore({str(tmp_path)!r})\n"
        "for step in range(10**6):\n"
        f"    data = pack([], [], identity={ID!r}, facts={{'number': step, 'rest': 'x' * 2_000_000}})\n"
        "    store.write(3, 'aa', (0, step), data)\n"
        "    print(step, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    with writer:
        for _ in range(5):
            said = int(writer.stdout.readline())
        writer.kill()

    store = take(str(tmp_path))
    newest, *_ = seen(store)
    assert isinstance(newest, int)
    assert newest >= said
    store.write(3, B, (0, 10**7), made(1))
    store.write(3, B, (0, 10**7 + 1), made(2))
    assert len(files(str(tmp_path))) == 2, "what the killed one had begun is gone"


def test_an_unfinished_file_is_never_read(url: str) -> None:
    plant(url, "000003/aa.part", made(1))

    assert seen(CheckpointStore(url)) == []
    assert CheckpointStore(url).trials() == {3}


def test_a_checkpoint_that_does_not_fit_gives_way_to_the_one_before(
    begin: Callable[..., Run], point: Callable[..., Point], url: str
) -> None:
    store = CheckpointStore(url)
    fitting, other = begin(point()), begin(point(freeze_depth=1))
    fitting.position.epoch = other.position.epoch = 1
    store.write(3, A, (1, 0), pack([fitting], [], identity=ID, facts={}))
    store.write(3, A, (2, 0), pack([other], [], identity=ID, facts={}))
    run, notes = begin(point()), []

    for found in store.newest_first(3, ID):
        assert isinstance(found, Checkpoint)
        try:
            apply(found, [run])
            break
        except CheckpointUnreadable as error:
            notes.append(str(error))

    assert run.position.epoch == 1
    assert notes == ["it holds other tensors: stem.0.weight, stem.1.bias, stem.1.num_batches_tracked"]


def test_a_relative_folder_stays_where_it_was_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore("here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    store.write(3, A, (0, 1), made(1))

    assert files(str(tmp_path / "here")) == ["000003/000000-00000001-aa.ckpt"]


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_registry, "s3", raising=False)  # what has been imported before
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(MissingExtra, match=r"s3fs.*tlopt\[s3\]"):
        CheckpointStore("s3://bucket/study")


def test_an_address_of_an_unknown_kind_is_an_error_of_the_file_and_hides_what_it_says() -> None:
    with pytest.raises(SpecError, match="nonsense://…") as caught:
        CheckpointStore("nonsense://user:secret@host/path")
    assert "secret" not in str(caught.value)
