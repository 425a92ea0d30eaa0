"""Check the folders that tlopt writes to: permissions, free space, shared file systems."""

import tempfile
from dataclasses import replace
from pathlib import Path

from tlopt.cache.folder import cache_root
from tlopt.doctor.finding import Finding, Findings
from tlopt.storage.url import hide_password
from tlopt.system.filesystems import free_bytes, nearest_existing, network_filesystem

DISK_PROBLEM_BYTES = 10**9
DISK_NOTE_BYTES = 5 * 10**9
_PROBE_BYTES = 4096

HUNG = "check with mount whether its file server responds; unmount it or choose another folder"


def cache() -> Findings:
    """Findings on the cache folder, for pixels, features and digests."""
    folder = cache_root().absolute()
    yield _folder("cache", folder, "TLOPT_CACHE")
    kind = network_filesystem(folder)
    if kind:
        yield Finding(
            "note",
            "cache",
            f"{folder} is on a network file system ({kind}), and pixels are read from it constantly",
            "set TLOPT_CACHE to a folder on a local disk",
        )


def runs(folder: Path) -> Findings:
    """Findings on the runs folder, for logs, pictures and weights."""
    yield _folder("runs", folder.absolute(), "--runs")


def checkpoints(where: str) -> Findings:
    """Findings on the folder or object store of checkpoints."""
    scheme, _, path = where.rpartition("://")
    if scheme not in ("", "file", "local"):
        yield _object_store("checkpoints", where)
        return
    folder = Path(path).expanduser().absolute()
    found = _folder("checkpoints", folder, "--checkpoints or TLOPT_CHECKPOINTS")
    kind = network_filesystem(folder)
    sharing = (
        f", shared with other machines ({kind})"
        if kind
        else ", apparently a local disk: workers on several nodes need a folder that all of them mount, or"
        " s3://BUCKET/PREFIX"
    )
    yield found if found.level == "problem" else replace(found, detail=found.detail + sharing)


def write_obstacle(folder: Path) -> str:
    """The reason why files cannot be written to the existing `folder`, or ""; leaves no file."""
    try:
        # Permissions alone do not show read-only disks and quotas.
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _folder(title: str, folder: Path, variable: str) -> Finding:
    """The finding on whether `folder` can be written or created, and on its free space."""
    existing = nearest_existing(folder)
    other = f"choose another folder with {variable}"
    if obstacle := write_obstacle(existing):
        return Finding(
            "problem",
            title,
            f"{folder} cannot be written: {obstacle}",
            f"change its owner or permissions, free disk space, or {other}",
        )
    free = free_bytes(existing)
    detail = f"{free / 1e9:,.1f} GB free at {folder}"
    if free < DISK_PROBLEM_BYTES:
        return Finding("problem", title, detail, f"free disk space, or {other}")
    if free < DISK_NOTE_BYTES:
        return Finding("note", title, detail, f"free disk space, or {other}")
    return Finding("ok", title, detail)


def _object_store(title: str, url: str) -> Finding:
    """The finding on whether the object store at `url` responds."""
    from fsspec.core import url_to_fs

    address = hide_password(url)
    try:
        filesystem, root = url_to_fs(url, use_listings_cache=False)
        filesystem.ls(root)
    except FileNotFoundError:
        return Finding(
            "note",
            title,
            f"{address} responds and contains nothing yet",
            "check that the bucket is right: tlopt creates everything in it, but not the bucket itself",
        )
    except ImportError as error:
        return Finding("problem", title, f"{address}: {error}", "install the package that the message names")
    # Each kind of store raises its own errors.
    except Exception as error:
        reason = f"{type(error).__name__}: {hide_password(str(error))}"
        return Finding("problem", title, f"{address}: {reason}", "check address, credentials and network")
    return Finding("ok", title, f"{address} responds")
