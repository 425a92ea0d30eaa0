"""What is told of a study that has changed."""

from collections.abc import Callable

from tlopt import spec
from tlopt.spec import meaning
from tlopt.spec.differences import differences


def changes(first: str, second: str) -> list[str]:
    return differences(meaning(spec.loads(first, "a.toml")), meaning(spec.loads(second, "b.toml")))


def test_the_keys_that_differ_are_told_with_both_values(study_text: Callable[..., str]) -> None:
    assert changes(study_text(epochs=2, seed=1), study_text(epochs=3, seed=2)) == [
        "budget.epochs: study has 2, here is 3",
        "seed: study has 1, here is 2",
    ]


def test_a_key_that_only_one_has_is_told(study_text: Callable[..., str]) -> None:
    (told,) = changes(study_text(), study_text(search="mixup = 0.2"))

    assert told.startswith("search.mixup: study has none, here is ")


def test_one_block_is_not_all_blocks(study_text: Callable[..., str]) -> None:
    (told,) = changes(study_text(search="freeze_depth = 1"), study_text(search="freeze_depth = 1.0"))

    assert told.startswith("search.freeze_depth: study has ")


def test_what_changes_no_trial_is_not_told(study_text: Callable[..., str]) -> None:
    assert changes(study_text(weights="a/w.pth"), study_text(name="b", trials=9, weights="b/v.pth")) == []
