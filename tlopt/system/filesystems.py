"""File system types and free space of paths."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Names used by Linux and macOS, without "fuse.". Cluster file systems on shared block devices (gfs2, ocfs2)
# are included: several hosts use their files but cannot share SQLite's memory.
_NETWORK = """
nfs nfs4 cifs smb2 smb3 smbfs smbnetfs ncpfs afs afpfs coda
ceph ceph-fuse glusterfs lustre gpfs beegfs fhgfs orangefs pvfs2 panfs
wekafs quobyte juicefs moosefs mfs lizardfs seaweedfs cvmfs
sshfs davfs webdav curlftpfs httpdirfs gvfsd-fuse rclone
s3fs goofys geesefs mount-s3 mountpoint-s3 gcsfuse blobfuse blobfuse2
gfs gfs2 ocfs2 acfs
"""
NETWORK_TYPES = frozenset(_NETWORK.split())
# 9p and virtiofs are left out on purpose: they are the ordinary disk of a sandbox or virtual machine (gVisor,
# Kata, WSL, container desktops), whose processes share one kernel and so SQLite's shared memory. Two guests
# on one such folder go undetected; refusing would take the only disk from everybody else.

_MOUNTS = Path("/proc/self/mountinfo")
_MACOS = re.compile(r"^.*? on (?P<point>/.*) \((?P<type>[^,)]+)[^()]*\)$")


def network_filesystem(path: str | Path) -> str | None:
    """Type of the network file system that holds `path`, such as "nfs4"; None for a local one.

    For a missing path, its nearest existing parent decides; links are followed. Also None where the system
    does not report mounts: anywhere but on Linux and macOS.
    """
    found = type_at(os.path.realpath(path), list(_mounts()))
    return found if found is not None and found.removeprefix("fuse.") in NETWORK_TYPES else None


def type_at(path: str, mounts: list[tuple[str, str]]) -> str | None:
    """Type of the longest mount point above the absolute `path`, the newest if mounted twice; None if absent.

    Args:
        mounts: (mount point, type), oldest first.
    """
    holding = [(len(point), kind) for point, kind in mounts if f"{path}/".startswith(f"{point.rstrip('/')}/")]
    longest = max((length for length, _ in holding), default=0)
    return next((kind for length, kind in reversed(holding) if length == longest), None)


def linux_mounts(text: str) -> Iterator[tuple[str, str]]:
    """(mount point, type) for each line of /proc/self/mountinfo."""
    # Not splitlines: the kernel escapes no carriage return.
    for line in filter(None, text.split("\n")):
        fields = line.split(" ")
        # Any number of optional fields precedes the hyphen: proc_pid_mountinfo(5).
        kind, source = fields[fields.index("-", 6) + 1 :][:2]
        # A FUSE program without a type of its own may still name itself as the source.
        yield _unescaped(fields[4]), source if kind == "fuse" else kind


def macos_mounts(text: str) -> Iterator[tuple[str, str]]:
    """(mount point, type) for each line printed by `mount` on macOS."""
    for line in text.splitlines():
        if found := _MACOS.match(line):
            yield found["point"], found["type"]


def free_bytes(path: str | Path) -> int:
    """Free bytes for this user on the file system of `path`, which need not exist."""
    return shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: str | Path) -> Path:
    """`path`, or its nearest parent that exists."""
    absolute = Path(os.path.realpath(path))
    # Path.exists raises where a parent may not be entered
    return next(place for place in (absolute, *absolute.parents) if os.path.exists(place))


def _mounts() -> Iterator[tuple[str, str]]:
    try:
        if sys.platform == "linux":
            # Mount points are bytes; decode them as paths are.
            yield from linux_mounts(os.fsdecode(_MOUNTS.read_bytes()))
        elif sys.platform == "darwin":
            said = subprocess.run(["/sbin/mount"], capture_output=True, timeout=10, check=True)
            yield from macos_mounts(os.fsdecode(said.stdout))
    except (OSError, subprocess.SubprocessError):  # no /proc, or a server that does not respond
        return


def _unescaped(field: str) -> str:
    """Decode the kernel's octal escapes of space, tab, newline and backslash, such as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
