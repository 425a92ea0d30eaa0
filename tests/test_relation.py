"""Sources that are more or less related to a target: copies of images, and the studies that use them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.relation.images import copy_images
from benchmarks.relation.sources import SOURCES, TARGET, with_values
from tlopt import spec

ROOT = Path(__file__).parents[1]


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """Two classes of two images of mid-grey with a mark."""
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.full((64, 64, 3), 128, dtype=np.uint8)
            pixels[0, 0] = index
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


def pixels_in(folder: Path) -> dict[str, np.ndarray]:
    return {
        str(file.relative_to(folder)): np.asarray(Image.open(file)) for file in sorted(folder.rglob("*.png"))
    }


def test_without_noise_the_copy_has_the_same_pixels(grey: Path, tmp_path: Path) -> None:
    copied = pixels_in(copy_images(grey, tmp_path / "copy"))

    assert copied.keys() == {"a/0.png", "a/1.png", "b/0.png", "b/1.png"}
    for name, pixels in pixels_in(grey).items():
        np.testing.assert_array_equal(copied[name], pixels)


def test_only_the_classes_named_are_copied(grey: Path, tmp_path: Path) -> None:
    assert pixels_in(copy_images(grey, tmp_path / "copy", classes=("b",))).keys() == {"b/0.png", "b/1.png"}
    with pytest.raises(ValueError, match="no class c; there are a, b"):
        copy_images(grey, tmp_path / "other", classes=("a", "c"))


def test_noise_has_its_standard_deviation_and_is_the_same_each_time(grey: Path, tmp_path: Path) -> None:
    first, second = (pixels_in(copy_images(grey, tmp_path / name, noise=0.1)) for name in ("one", "two"))

    for name, pixels in first.items():
        assert np.std(pixels[1:].astype(float) / 255) == pytest.approx(0.1, rel=0.05)
        np.testing.assert_array_equal(pixels, second[name])
    assert not np.array_equal(first["a/0.png"][1:], first["a/1.png"][1:])


def test_sources_have_as_many_classes_as_the_target_and_share_as_many_as_their_name_says() -> None:
    shared = {name: len(set(each.classes) & set(TARGET)) for name, each in SOURCES.items()}

    assert {len(each.classes) for each in SOURCES.values()} == {len(TARGET)}
    assert shared == {"same": 5, "shares-3": 3, "shares-0": 0, "noise-0.3": 5, "noise-1": 5, "signs": 0}


def test_a_source_is_trained_and_a_grid_starts_from_it_with_the_same_network() -> None:
    values = {"name": "x", "source": "images", "weights": "sources/x/weights.safetensors"}
    grid = spec.loads(with_values(ROOT / "studies" / "relation.toml", values), "relation.toml")
    source = spec.load(ROOT / "studies" / "source.toml")

    assert (grid.name, grid.data.source, str(grid.weights_file)) == tuple(values.values())
    assert grid.is_grid
    assert grid.model.backbone == source.model.backbone
    assert grid.search["resolution"] == source.search["resolution"]
    assert all(not hasattr(dimension, "options") for dimension in source.search.values())
