"""The source distribution contains every file of the repository, which the tests read."""

import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no repository here")
def test_the_source_distribution_is_the_repository(tmp_path: Path) -> None:
    sdist = pytest.importorskip("hatchling.builders.sdist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)

    built = next(sdist.SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))

    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    assert tracked - names == set()
    assert "PKG-INFO" in names
    assert not any(name.startswith((".venv", ".git/", "build/", "dist/")) for name in names)
