"""Confusion matrices are legible: counts for few classes, pairs for many, a separate scale for mistakes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from tlopt.plots import confusion
from tlopt.plots.colours import LIGHT, blend
from tlopt.plots.confused import most_confused, short_names
from tlopt.plots.confusion import cell_colours, draw_confusion


def counts_of(n: int, *mistakes: tuple[int, int, int]) -> NDArray[np.int64]:
    """Ten correct images in each class, and `mistakes`: true class, predicted class, images."""
    counts = np.diag(np.full(n, 10))
    for true, predicted, images in mistakes:
        counts[true, predicted] += images
    return counts


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All text in the saved figures, which a PNG file does not contain as text."""
    found: list[str] = []
    save = confusion.save

    def keep(figure: Figure, path: Path) -> Path:
        found.extend(each.get_text() for each in figure.findobj(Text) if isinstance(each, Text))
        return save(figure, path)

    monkeypatch.setattr(confusion, "save", keep)
    return found


def names_of(n: int) -> list[str]:
    return [f"class {index}" for index in range(n)]


def test_up_to_fifteen_classes_have_their_counts_in_the_cells(texts: list[str], tmp_path: Path) -> None:
    draw_confusion(
        tmp_path / "few.png", counts=counts_of(15, (1, 2, 7)), class_names=names_of(15), title="few"
    )

    assert texts.count("10") >= 14
    assert "7" in texts
    assert not any("most confused" in text for text in texts)


@pytest.mark.parametrize("n", [16, 60, 200, 300])
def test_from_sixteen_classes_on_the_most_confused_pairs_are_listed(
    n: int, texts: list[str], tmp_path: Path
) -> None:
    counts = counts_of(n, (1, 2, 10), (3, 1, 5))

    file = draw_confusion(tmp_path / "many.png", counts=counts, class_names=names_of(n), title="many")

    assert f"most confused pairs, of {n} classes" in texts
    assert "class 1\nas class 2" in texts
    assert " 10 (50.0 %)" in texts
    assert " 5 (33.3 %)" in texts
    with Image.open(file) as picture:
        assert min(picture.size) >= 600
        assert max(picture.size) <= 2200


@pytest.mark.parametrize("n", [16, 300])
def test_a_figure_without_mistakes_says_so(n: int, texts: list[str], tmp_path: Path) -> None:
    draw_confusion(tmp_path / "right.png", counts=counts_of(n), class_names=names_of(n), title="right")

    assert "no image is predicted wrongly" in texts


def test_mistakes_have_a_separate_scale_on_which_the_largest_has_the_full_colour() -> None:
    counts = counts_of(16, (1, 2, 1), (3, 1, 2))  # 1 of 11 images, and 2 of 12

    colours = cell_colours(counts, numbered=False)

    assert hexed(colours[3, 1]) == LIGHT.line
    assert hexed(colours[5, 5]) == LIGHT.point
    assert hexed(colours[5, 6]) == LIGHT.page
    share = 0.3 + 0.7 * (1 / 11) / (2 / 12)
    assert np.allclose(colours[1, 2], rgb(blend(LIGHT.line, LIGHT.page, share)), atol=1 / 255)


def test_cells_with_numbers_are_light() -> None:
    colours = cell_colours(counts_of(3, (0, 1, 10)), numbered=True)

    assert hexed(colours[0, 1]) == blend(LIGHT.line, LIGHT.page, 0.5)
    assert hexed(colours[2, 2]) == blend(LIGHT.point, LIGHT.page, 0.5)


def test_pairs_are_sorted_by_images_then_by_share_of_their_class() -> None:
    counts = counts_of(4, (0, 1, 2), (1, 0, 2), (1, 3, 8), (2, 3, 1))

    pairs = most_confused(counts, 3)

    assert [(pair.true, pair.predicted, pair.n) for pair in pairs] == [(1, 3, 8), (0, 1, 2), (1, 0, 2)]
    assert pairs[0].share == pytest.approx(0.4)


def test_long_names_are_shortened_and_stay_distinct() -> None:
    names = (
        "rose",
        "the common garden rose",
        "the common and other garden rose",
        "the common red garden rose",
    )

    assert short_names(names, 12) == ("rose", "the …ose (2)", "the …ose (3)", "the …ose (4)")
    assert short_names(names[:2], 12) == ("rose", "the co… rose")


def rgb(colour: str) -> NDArray[np.float64]:
    return np.frombuffer(bytes.fromhex(colour[1:]), dtype=np.uint8) / 255


def hexed(colour: NDArray[np.float64]) -> str:
    return "#" + bytes((255 * colour).round().astype(np.uint8)).hex()
