"""A separate cache for every test."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that TLOPT_CACHE names, for this test alone."""
    folder = tmp_path / "own cache"
    monkeypatch.setenv("TLOPT_CACHE", str(folder))
    return folder
