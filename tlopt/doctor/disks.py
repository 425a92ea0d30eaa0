"""Check the folders that tlopt writes to: rights, room, and whether other machines share them."""

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

HUNG = "see with mount whether it lies on a server that is away; name another folder, or unmount that one"


def cache() -> Findings:
    """Findings on the cache folder, which holds pixels and digests."""
    folder = cache_root().absolute()
    yield _folder("cache", folder, "TLOPT_CACHE")
    kind = network_filesystem(folder)
    if kind:
        yield Finding(
            "note",
            "cache",
            f"{folder} lies on a network file system ({kind}), and pixels are read from it all the time",
            "set TLOPT_CACHE to a folder on a disk of this machine",
        )


def runs(folder: Path) -> Findings:
    """Findings on the runs folder, which holds logs, pictures and weights."""
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
    whose = (
        f", shared with other machines ({kind})"
        if kind
        else ", on this machine alone as far as can be seen: workers on several nodes need a folder that all"
        " of them mount, or s3://BUCKET/PREFIX"
    )
    yield found if found.level == "problem" else replace(found, detail=found.detail + whose)


def write_obstacle(folder: Path) -> str:
    """The reason why no file can be written to the existing `folder`, or ""; nothing is left there."""
    try:
        # This tells more than the rights do: root meets read-only disks, and users meet quotas.
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _folder(title: str, folder: Path, variable: str) -> Finding:
    """The finding whether `folder`, or its place, can be written, and how much room there is."""
    place = nearest_existing(folder)
    other = f"name another folder with {variable}"
    if obstacle := write_obstacle(place):
        return Finding(
            "problem",
            title,
            f"{folder} cannot be written: {obstacle}",
            f"change its owner or rights, make room, or {other}",
        )
    free = free_bytes(place)
    detail = f"{free / 1e9:,.1f} GB free at {folder}"
    if free < DISK_PROBLEM_BYTES:
        return Finding("problem", title, detail, f"make room, or {other}")
    if free < DISK_NOTE_BYTES:
        return Finding("note", title, detail, f"make room, or {other}")
    return Finding("ok", title, detail)


def _object_store(title: str, url: str) -> Finding:
    """The finding whether the store at `url` answers."""
    from fsspec.core import url_to_fs

    shown = hide_password(url)
    try:
        filesystem, root = url_to_fs(url, use_listings_cache=False)
        filesystem.ls(root)
    except FileNotFoundError:
        return Finding(
            "note",
            title,
            f"{shown} answers, and nothing lies there yet",
            "see that the bucket is right: below it everything is made, the bucket is not",
        )
    except ImportError as error:
        return Finding("problem", title, f"{shown}: {error}", "install the package that it names")
    # Every kind of store raises errors of its own.
    except Exception as error:
        reason = f"{type(error).__name__}: {hide_password(str(error))}"
        return Finding("problem", title, f"{shown}: {reason}", "check address, credentials and network")
    return Finding("ok", title, f"{shown} answers")
