"""optuna-dashboard on a database's studies, with the pictures of their trials, behind a guard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna_dashboard
import waitress
from optuna.artifacts import FileSystemArtifactStore

from tlopt.dashboard.access import Application, Guard, check_host
from tlopt.dashboard.answer_cache import Shared
from tlopt.dashboard.compression import Compressed
from tlopt.dashboard.outage import OUTAGE_SECONDS_MAX, Available
from tlopt.dashboard.read_only import ReadOnly
from tlopt.dashboard.thinning import Thinned
from tlopt.spec.folders import Folders
from tlopt.storage.studies import open_storage

_THREADS = 8  # a page asks for several things at once


def application(url: str, runs: Path, *, edits: bool, logins: Mapping[str, str]) -> Application:
    """The dashboard as a WSGI application, for a server of one's own as well.

    Args:
        edits: whether studies and notes may be changed.
        logins: passwords by user; empty: no login, and only this machine's own names answer.

    Raises:
        StorageError: the database cannot be opened.
    """
    artifacts = Folders(root=runs, study="").artifacts
    artifacts.mkdir(parents=True, exist_ok=True)
    storage = open_storage(url, outage_seconds_max=OUTAGE_SECONDS_MAX)
    inner: Any = optuna_dashboard.wsgi(storage, artifact_store=FileSystemArtifactStore(artifacts))
    inner.catchall = False  # Bottle's: exceptions reach `Available`
    shown = Available(inner)
    pages: Application = shown if edits else ReadOnly(shown)
    return Guard(Shared(Compressed(Thinned(pages))), edits=edits, logins=logins)


def serve(url: str, runs: Path, *, host: str, port: int, edits: bool, logins: Mapping[str, str]) -> None:
    """Serve until the process is stopped.

    Raises:
        SpecError: others can reach `host`, and there is no login.
        StorageError: the database cannot be opened.
    """
    check_host(host, logins)
    waitress.serve(
        application(url, runs, edits=edits, logins=logins),
        host=host,
        port=port,
        threads=_THREADS,
        ident=None,
        clear_untrusted_proxy_headers=True,
    )
