"""A cache of its own for every test, and folders of small images."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import save


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What TLOPT_CACHE names in this test alone."""
    folder = tmp_path / "own cache"
    monkeypatch.setenv("TLOPT_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of images: `folder(9, 12)` has classes a and b, `folder(train=(5, 5))` a split."""

    def make(*sizes: int, **splits: tuple[int, ...]) -> Path:
        root = tmp_path / "images"
        content = 0
        for split, counts in (splits or {"": sizes}).items():
            for class_name, count in zip("abcdef", counts, strict=False):
                for index in range(count):
                    content += 1
                    save(root / split / class_name / f"{index:03}.png", content)
        return root

    return make
