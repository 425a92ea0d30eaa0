"""Warnings about keys that leave others without effect."""

import pytest

from tlopt import spec
from tlopt.search.warnings import epoch_warnings

STUDY = """
name = "a"
data = { source = "x" }
model = { backbone = "resnet18" }
budget = { trials = 9, epochs = 8 }
"""


def warnings_of(more: str) -> list[str]:
    return list(epoch_warnings(spec.loads(STUDY + more, "x.toml")))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[pruner]\nkind = "median"\nmin_epochs = 8', "pruner.min_epochs = 8 leaves nothing to prune"),
        ("[search]\nhead_first_epochs = 8", "head_first_epochs = 8 covers all 8 epochs"),
        (
            "[search]\nhead_first_epochs = { int = [0, 4] }\nepochs = { int = [3, 8] }",
            "head_first_epochs = 4 covers all 3 epochs",
        ),
    ],
)
def test_a_count_of_epochs_that_leaves_nothing_to_another_is_told(more: str, said: str) -> None:
    (sentence,) = warnings_of(more)

    assert sentence.startswith(said)


@pytest.mark.parametrize(
    "more",
    [
        "",
        '[pruner]\nkind = "median"\nmin_epochs = 7',
        '[pruner]\nkind = "none"',
        "[search]\nhead_first_epochs = 7",
    ],
)
def test_of_others_nothing_is_said(more: str) -> None:
    assert warnings_of(more) == []
