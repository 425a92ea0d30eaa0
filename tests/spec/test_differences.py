"""The message about a changed study names the keys that differ."""

from collections.abc import Callable

import pytest

from tlopt import spec
from tlopt.spec import differences


def changes(first: str, second: str) -> list[str]:
    return differences.changes(spec.loads(first, "a.toml"), spec.loads(second, "b.toml"))


def test_the_keys_that_differ_are_told_with_both_values(study_text: Callable[..., str]) -> None:
    assert changes(study_text(epochs=2, seed=1), study_text(epochs=3, seed=2)) == [
        "budget.epochs: study has 2, here is 3",
        "seed: study has 1, here is 2",
    ]


def test_a_key_that_only_one_has_is_told(study_text: Callable[..., str]) -> None:
    (told,) = changes(study_text(), study_text(search="mixup = 0.2"))

    assert told == "search.mixup: study has none, here is 0.2"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (
            "lr = { log = [1e-4, 1.0] }",
            "lr = { log = [1e-5, 1.0] }",
            "lr: study has { log = [0.0001, 1.0] }, here is { log = [1e-05, 1.0] }",
        ),
        (
            "l2_sp = { log = [1e-4, 1.0], zero = true }",
            "l2_sp = 0.0",
            "l2_sp: study has { log = [0.0001, 1.0], zero = true }, here is 0.0",
        ),
        (
            "freeze_depth = { int = [0, 3] }",
            "freeze_depth = { uniform = [0.0, 0.5] }",
            "freeze_depth: study has { int = [0, 3] }, here is { uniform = [0.0, 0.5] }",
        ),
    ],
)
def test_ranges_are_told_as_a_study_file_has_them(
    study_text: Callable[..., str], first: str, second: str, told: str
) -> None:
    assert changes(study_text(search=first), study_text(search=second)) == [f"search.{told}"]


def test_a_key_that_is_added_at_its_default_changes_nothing(study_text: Callable[..., str]) -> None:
    assert changes(study_text(), study_text(search="mixup = 0.0")) == []
    assert changes(study_text(search="mixup = 0.0"), study_text()) == []
    assert changes(study_text(), study_text(search="mixup = 0.1")) != []


def test_one_block_is_not_all_blocks(study_text: Callable[..., str]) -> None:
    (told,) = changes(study_text(search="freeze_depth = 1"), study_text(search="freeze_depth = 1.0"))

    assert told.startswith("search.freeze_depth: study has ")


def test_what_changes_no_trial_is_not_told(study_text: Callable[..., str]) -> None:
    assert changes(study_text(weights="a/w.pth"), study_text(name="b", trials=9, weights="b/v.pth")) == []
