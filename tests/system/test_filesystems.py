"""Network file systems, recognised in planted mount tables, and in real ones if we may mount."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlopt.errors import StorageError
from tlopt.storage.url import refuse_network_file
from tlopt.system import filesystems
from tlopt.system.filesystems import NETWORK_TYPES, linux_mounts, macos_mounts, network_filesystem, type_at

# proc_pid_mountinfo(5): optional fields (shared:1 master:2 ...) are none, one or several before the hyphen
MOUNTINFO = r"""
22 28 0:21 / /proc rw,nosuid shared:5 - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
90 28 0:44 / /home rw,relatime shared:60 master:7 - nfs4 filer:/home rw,vers=4.2,addr=10.0.0.9
91 90 254:17 / /home/scratch rw,relatime - xfs /dev/vdb1 rw
92 28 0:51 / /media/My\040Passport\0112\134x rw - cifs //nas/My\040Passport rw
93 28 0:52 / /mnt/bucket rw - fuse mountpoint-s3 ro
94 28 0:53 / /mnt/far rw - fuse.sshfs me@far:/ rw
95 28 0:54 / /mnt/über rw - lustre 10.0.0.1@tcp:/x rw
96 28 0:55 / /mnt/disk rw - fuse ntfs-3g rw
""".lstrip("\n")

MACOS = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@nas._smb._tcp.local/share on /Volumes/a on b (2) (smbfs, nodev, nosuid, mounted by me)
filer:/home on /Volumes/home (nfs)
""".lstrip("\n")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc/passwd", "ext4"),
        ("/proc", "proc"),
        ("/process", "ext4"),  # starts like /proc, lies beside it
        ("/home", "nfs4"),
        ("/home/me/tlopt.db", "nfs4"),
        ("/home/scratch/tlopt.db", "xfs"),  # a local disk mounted inside a network's folder
        ("/home/scratchy", "nfs4"),
        ("/media/My Passport\t2\\x/tlopt.db", "cifs"),
        ("/mnt/bucket/x", "mountpoint-s3"),
        ("/mnt/far/x", "fuse.sshfs"),
        ("/mnt/über/x", "lustre"),
        ("/mnt/disk", "ntfs-3g"),
    ],
)
def test_a_path_has_the_type_of_the_innermost_mount_that_leads_to_it(path: str, kind: str) -> None:
    assert type_at(path, list(linux_mounts(MOUNTINFO))) == kind


def test_of_two_mounts_on_one_point_the_later_is_seen() -> None:
    assert type_at("/data/x", [("/", "ext4"), ("/data", "nfs4"), ("/data", "tmpfs")]) == "tmpfs"


def test_without_a_table_of_mounts_there_is_no_type() -> None:
    assert type_at("/data/x", []) is None


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1),
    st.lists(st.sampled_from(["shared:1", "master:2", "propagate_from:3", "unbindable"])),
)
def test_every_name_of_a_mount_point_is_read_as_the_kernel_escapes_it(name: str, optional: list[str]) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in name)
    line = " ".join(["90", "28", "0:44", "/", f"/{escaped}", "rw", *optional, "-", "nfs4", "filer:/", "rw"])

    assert list(linux_mounts(line)) == [(f"/{name}", "nfs4")]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/Users/me", "apfs"),
        ("/Volumes/a on b (2)/x", "smbfs"),
        ("/Volumes/home/x", "nfs"),
        ("/System/Volumes/Data/home", "autofs"),
    ],
)
def test_what_mount_prints_on_macos_is_read(path: str, kind: str) -> None:
    assert type_at(path, list(macos_mounts(MACOS))) == kind


# Paths on a planted machine


@pytest.fixture
def _mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`far` and `share` of the test's folder are mounted over a network, `far/near` is not."""
    rows = [("/", "ext4"), (tmp_path / "far", "nfs4"), (tmp_path / "far/near", "ext4")]
    rows.append((tmp_path / "share", "fuse.sshfs"))
    table = tmp_path / "mountinfo"
    table.write_text("".join(f"90 28 0:44 / {point} rw - {kind} none rw\n" for point, kind in rows))
    (tmp_path / "far" / "near").mkdir(parents=True)
    (tmp_path / "share").mkdir()
    monkeypatch.setattr(filesystems, "_MOUNTS", table)
    monkeypatch.setattr("sys.platform", "linux")


@pytest.mark.usefixtures("_mounted")
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("tlopt.db", None),
        ("far/tlopt.db", "nfs4"),
        ("far/not/made/yet/tlopt.db", "nfs4"),
        ("far/near/tlopt.db", None),
        ("far/near/../tlopt.db", "nfs4"),
        ("share/tlopt.db", "fuse.sshfs"),
    ],
)
def test_a_network_is_told_by_the_path_alone(path: str, kind: str | None, tmp_path: Path) -> None:
    assert network_filesystem(tmp_path / path) == kind


@pytest.mark.usefixtures("_mounted")
def test_links_are_followed_onto_a_network_and_off_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path)

    assert network_filesystem(tmp_path / "link" / "tlopt.db") == "nfs4"
    assert network_filesystem(tmp_path / "link" / "back" / "tlopt.db") is None


@pytest.mark.usefixtures("_mounted")
def test_sqlite_on_a_network_is_refused_and_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"far/tlopt\.db lies on a network file system \(nfs4\).*postgresql://"
    ):
        refuse_network_file(tmp_path / "far" / "tlopt.db")

    refuse_network_file(tmp_path / "far" / "near" / "tlopt.db")


def test_where_the_system_does_not_tell_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "_MOUNTS", tmp_path / "absent")

    refuse_network_file(tmp_path / "tlopt.db")


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "apfs", "9p", "virtiofs", "zfs"]
)
def test_ordinary_disks_and_those_of_sandboxes_are_no_network(kind: str) -> None:
    assert kind not in NETWORK_TYPES


# Real mounts


def _mount(*arguments: str | Path) -> None:
    said = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if said.returncode != 0:
        pytest.skip(f"this machine lets us mount nothing: {said.stderr.strip()}")


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    """A folder with a space in its name, on which a test may mount; unmounted afterwards."""
    if not filesystems._MOUNTS.exists():
        pytest.skip("only Linux shows its mounts in a file")
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    point = tmp_path / "a mount"
    point.mkdir()
    yield point
    while os.path.ismount(point):
        subprocess.run(["umount", point], check=True)


def test_a_real_mount_is_found_under_its_real_name(
    mount_point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "NETWORK_TYPES", frozenset(["ramfs"]))
    before = network_filesystem(mount_point / "tlopt.db")
    _mount("-t", "ramfs", "none", mount_point)

    assert (before, network_filesystem(mount_point / "tlopt.db")) == (None, "ramfs")


def test_a_real_bind_mount_has_the_type_of_the_disk_below(
    mount_point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path("/dev/shm")
    if type_at(str(source), list(linux_mounts(filesystems._MOUNTS.read_text()))) != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    monkeypatch.setattr(filesystems, "NETWORK_TYPES", frozenset(["tmpfs"]))
    _mount("--bind", source, mount_point)

    assert network_filesystem(mount_point / "tlopt.db") == "tmpfs"


def test_a_small_disk_is_known_to_be_small_and_a_full_one_to_be_full(mount_point: Path) -> None:
    _mount("-t", "tmpfs", "-o", "size=64k", "none", mount_point)

    assert 0 < filesystems.free_bytes(mount_point / "not" / "made") <= 64 * 1024

    (mount_point / "all").write_bytes(bytes(64 * 1024))

    assert filesystems.free_bytes(mount_point) == 0
