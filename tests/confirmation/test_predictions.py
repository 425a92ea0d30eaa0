"""Predictions are stored beside the weights, read back exactly, and never used for another network."""

from pathlib import Path

import numpy as np
import pytest
from finished import make_point
from predicted import make_predictions

from tlopt.confirmation.predictions import Predictions, Source, predictions_file, read_known, surest_mistakes
from tlopt.errors import DataError

ROWS = [(0, 0, 0.9), (0, 1, 0.6), (1, 0, 0.8)]
FINGERPRINTS = {"data": "0123", "weights": "4567"}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "candidate3-seed1.safetensors"


def test_what_is_written_is_read_back(weights: Path) -> None:
    # a name in a script of its own, and one with a byte that is no text
    given = make_predictions(
        ROWS, class_names=("雛菊", "rose\udcff"), point=make_point(), fingerprints=FINGERPRINTS
    )
    file = predictions_file(weights, "val")
    given.write(file)

    found = Predictions.read(file)

    assert file.name == "candidate3-seed1.val.npz"
    assert (found.source, found.split, found.class_names, found.files) == (
        given.source,
        given.split,
        given.class_names,
        given.files,
    )
    for name in ("labels", "predicted", "thumbnails", "thumbnail_of"):
        assert np.array_equal(getattr(found, name), getattr(given, name)), name
    assert found.probability == pytest.approx(given.probability, abs=1e-6)


def test_predictions_of_0_2_0_are_read(weights: Path) -> None:
    file = predictions_file(weights, "val")
    given = make_predictions(ROWS, class_names=("a", "b"))
    given.write(file)
    with np.load(file) as written:
        arrays = {"said" if name == "header" else name: written[name] for name in written}
    np.savez_compressed(file, **arrays)

    assert Predictions.read(file).source == given.source


def test_predictions_of_another_network_or_other_images_are_not_known(weights: Path) -> None:
    source = Source.of(make_point(), 11, FINGERPRINTS)
    make_predictions(ROWS, class_names=("a", "b"), point=make_point(), fingerprints=FINGERPRINTS).write(
        predictions_file(weights, "val")
    )

    assert read_known(weights, "val", source) is not None
    assert read_known(weights, "test", source) is None
    for other in (
        Source.of(make_point(lr=0.2), 11, FINGERPRINTS),
        Source.of(make_point(), 12, FINGERPRINTS),
        Source.of(make_point(), 11, {**FINGERPRINTS, "data": "9999"}),
    ):
        assert read_known(weights, "val", other) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive at all"])
def test_a_damaged_file_is_named(weights: Path, content: bytes) -> None:
    file = predictions_file(weights, "test")
    file.parent.mkdir()
    file.write_bytes(content)

    with pytest.raises(DataError, match=r"candidate3-seed1\.test\.npz cannot be read"):
        Predictions.read(file)


def test_a_file_that_ends_early_is_named(weights: Path) -> None:
    file = predictions_file(weights, "val")
    make_predictions(ROWS, class_names=("a", "b")).write(file)
    file.write_bytes(file.read_bytes()[:-200])

    with pytest.raises(DataError, match="cannot be read"):
        Predictions.read(file)


def test_no_mistake_is_no_index() -> None:
    right = np.array([0, 1])

    assert surest_mistakes(right, right, np.array([0.9, 0.8])).tolist() == []
