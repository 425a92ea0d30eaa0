"""Folders of small images for the tests of the caches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache folder (TLOPT_CACHE) of this test alone."""
    cache = tmp_path / "own cache"
    monkeypatch.setenv("TLOPT_CACHE", str(cache))
    return cache


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of different images: `folder(9, 12)` has classes a and b."""

    def make(*sizes: int) -> Path:
        random = np.random.default_rng(0)
        for class_name, count in zip("abcdef", sizes, strict=False):
            (tmp_path / "images" / class_name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(tmp_path / "images" / class_name / f"{index:03}.png")
        return tmp_path / "images"

    return make
