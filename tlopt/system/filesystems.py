"""The kind of file system that holds a path, and its free space."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# As Linux and macOS name them, without "fuse.". Shared block devices (gfs2, ocfs2) are here too: their files
# belong to several hosts, which cannot share SQLite's memory.
_NETWORK = """
nfs nfs4 cifs smb2 smb3 smbfs smbnetfs ncpfs afs afpfs coda
ceph ceph-fuse glusterfs lustre gpfs beegfs fhgfs orangefs pvfs2 panfs
wekafs quobyte juicefs moosefs mfs lizardfs seaweedfs cvmfs
sshfs davfs webdav curlftpfs httpdirfs gvfsd-fuse rclone
s3fs goofys geesefs mount-s3 mountpoint-s3 gcsfuse blobfuse blobfuse2
gfs gfs2 ocfs2 acfs
"""
NETWORK_TYPES = frozenset(_NETWORK.split())
# 9p and virtiofs are absent on purpose: they are the ordinary disk of a sandbox or a virtual machine (gVisor,
# Kata, WSL, container desktops), whose processes share one kernel and so SQLite's shared memory. Two guests
# on one such folder would not be told; refusing would take the only disk from everybody else.

_MOUNTS = Path("/proc/self/mountinfo")
_MACOS = re.compile(r"^.*? on (?P<point>/.*) \((?P<type>[^,)]+)[^()]*\)$")


def network_filesystem(path: str | Path) -> str | None:
    """The type, such as "nfs4", of the file system of `path` if it is one over the network, else None.

    A path that does not exist counts as its nearest existing parent; links are followed. None also where the
    system does not tell: anywhere but on Linux and macOS.
    """
    found = type_at(os.path.realpath(path), list(_mounts()))
    return found if found is not None and found.removeprefix("fuse.") in NETWORK_TYPES else None


def type_at(path: str, mounts: list[tuple[str, str]]) -> str | None:
    """The type of the longest mount point that leads to the absolute `path`, of equal ones the last, or None.

    Args:
        mounts: (mount point, type), oldest first.
    """
    holding = [(len(point), kind) for point, kind in mounts if f"{path}/".startswith(f"{point.rstrip('/')}/")]
    longest = max((length for length, _ in holding), default=0)
    return next((kind for length, kind in reversed(holding) if length == longest), None)


def linux_mounts(text: str) -> Iterator[tuple[str, str]]:
    """(mount point, type) of every line of /proc/self/mountinfo."""
    # Not splitlines: the kernel escapes no carriage return.
    for line in filter(None, text.split("\n")):
        fields = line.split(" ")
        # The optional fields before the hyphen are any number: proc_pid_mountinfo(5).
        kind, source = fields[fields.index("-", 6) + 1 :][:2]
        # A FUSE program that names no type of its own may still name itself as the source.
        yield _unescaped(fields[4]), source if kind == "fuse" else kind


def macos_mounts(text: str) -> Iterator[tuple[str, str]]:
    """(mount point, type) of every line that macOS' `mount` prints."""
    for line in text.splitlines():
        if found := _MACOS.match(line):
            yield found["point"], found["type"]


def free_bytes(path: str | Path) -> int:
    """Bytes that this user may still write where `path` is, or where it would be made."""
    return shutil.disk_usage(nearest_existing(path)).free


def nearest_existing(path: str | Path) -> Path:
    """`path`, or its nearest parent that exists."""
    absolute = Path(os.path.realpath(path))
    # os.path.exists also where a parent may not be entered; Path.exists raises there
    return next(place for place in (absolute, *absolute.parents) if os.path.exists(place))


def _mounts() -> Iterator[tuple[str, str]]:
    try:
        if sys.platform == "linux":
            # A mount point is bytes; os.fsdecode is what paths went through.
            yield from linux_mounts(os.fsdecode(_MOUNTS.read_bytes()))
        elif sys.platform == "darwin":
            said = subprocess.run(["/sbin/mount"], capture_output=True, timeout=10, check=True)
            yield from macos_mounts(os.fsdecode(said.stdout))
    except (OSError, subprocess.SubprocessError):  # no /proc, or a server that does not answer
        return


def _unescaped(field: str) -> str:
    """The kernel writes space, tab, newline and backslash as \\040, \\011, \\012 and \\134."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
