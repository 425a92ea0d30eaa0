"""optuna-dashboard on a database's studies, with the pictures of their trials."""

from pathlib import Path

import optuna_dashboard
from optuna.artifacts import FileSystemArtifactStore

from tlopt.search.job import Folders
from tlopt.search.storage import open_storage

HOST = "127.0.0.1"  # optuna-dashboard has no login, and whoever reaches it can delete studies


def serve(url: str, runs: Path, *, port: int) -> None:
    """Serve until the process is stopped; this machine only.

    Raises:
        StorageError: the database cannot be opened.
    """
    artifacts = Folders(root=runs, study="").artifacts
    artifacts.mkdir(parents=True, exist_ok=True)
    optuna_dashboard.run_server(
        open_storage(url), host=HOST, port=port, artifact_store=FileSystemArtifactStore(artifacts)
    )
