"""Numbers with their nouns, durations, lists of names and Markdown as people read them."""

import pytest

from tlopt.system.words import counted, duration_words, joined, markdown_escaped, natural_order


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(1, "seed"), "1 seed"),
        (counted(0, "seed"), "0 seeds"),
        (counted(2, "class"), "2 classes"),
        (counted(2, "batch"), "2 batches"),
        (counted(1, "image is", "images are"), "1 image is"),
        (counted(3, "image is", "images are"), "3 images are"),
        (counted(1234, "trial", form=","), "1,234 trials"),
        (counted(1.2, "second", form=".0f"), "1 second"),
    ],
)
def test_a_noun_agrees_with_the_number_that_is_shown(said: str, expected: str) -> None:
    assert said == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1, "1 second"), (119, "119 seconds"), (120, "2.0 minutes"), (9000, "2.5 hours"), (172800, "2.0 days")],
)
def test_a_duration_has_the_largest_unit_of_which_there_are_two(seconds: float, expected: str) -> None:
    assert duration_words(seconds) == expected


def test_a_long_list_names_the_first_and_counts_the_rest() -> None:
    assert joined(["a", "b", "c"], 3) == "a, b, c"
    assert joined(["a", "b", "c"], 1) == "a, and 2 more"


def test_numbers_in_names_are_ordered_by_value() -> None:
    given = ["10", "9", "p10b2", "p2", "p10b1", "x", "", "007", "7", "1" * 5000]

    assert natural_order(given) == ["", "007", "7", "9", "10", "1" * 5000, "p2", "p10b1", "p10b2", "x"]


def test_markdown_shows_a_name_as_it_is_and_on_one_line() -> None:
    assert markdown_escaped("<b>my_photos</b>\n[x](y)") == r"\<b\>my\_photos\</b\> \[x\](y)"
