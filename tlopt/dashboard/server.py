"""optuna-dashboard for the studies of a database, with access control and the figures of their trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna_dashboard
import waitress
from optuna.artifacts import FileSystemArtifactStore

from tlopt.dashboard.access import AccessControl, Application, check_host
from tlopt.dashboard.answer_cache import ResponseCache
from tlopt.dashboard.compression import Compressed
from tlopt.dashboard.outage import OUTAGE_SECONDS_MAX, OutageResponder
from tlopt.dashboard.read_only import ReadOnlyPages
from tlopt.dashboard.thinning import ThinnedCurves
from tlopt.spec.folders import Folders
from tlopt.storage.studies import open_storage

_THREADS = 8  # a page sends several requests at once


def application(url: str, runs: Path, *, edits: bool, logins: Mapping[str, str]) -> Application:
    """The dashboard as a WSGI application, for any server.

    Args:
        edits: whether studies and notes may be changed.
        logins: passwords by user; if empty, no login, and only requests to localhost are served.

    Raises:
        StorageError: the database cannot be opened.
    """
    artifacts = Folders(root=runs, study="").artifacts
    artifacts.mkdir(parents=True, exist_ok=True)
    storage = open_storage(url, outage_seconds_max=OUTAGE_SECONDS_MAX)
    inner: Any = optuna_dashboard.wsgi(storage, artifact_store=FileSystemArtifactStore(artifacts))
    inner.catchall = False  # of Bottle: exceptions then reach `OutageResponder`
    responder = OutageResponder(inner)
    pages: Application = responder if edits else ReadOnlyPages(responder)
    return AccessControl(ResponseCache(Compressed(ThinnedCurves(pages))), edits=edits, logins=logins)


def serve(url: str, runs: Path, *, host: str, port: int, edits: bool, logins: Mapping[str, str]) -> None:
    """Serve the dashboard until the process is stopped.

    Raises:
        SpecError: other machines can reach `host`, and there are no logins.
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
