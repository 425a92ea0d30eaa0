"""Fixed views that save nothing cause a warning that names the key to blame."""

import pytest
import tiny

from tlopt import spec
from tlopt.search.repeated_views import n_repeated_views
from tlopt.search.warnings import view_warnings
from tlopt.spec import Study


def study(search: str, views: int = 8) -> Study:
    return spec.loads(tiny.text(search).replace("[data]", f"[data]\nviews = {views}"), "planted.toml")


@pytest.mark.parametrize(
    ("search", "views", "repeated"),
    [
        ("", 8, 8),
        ("augmentation = 0.3", 8, 8),
        ("augmentation = { choice = [0.0, 0.2, 0.7] }", 4, 12),
        ("augmentation = { uniform = [0.2, 0.7] }", 8, 0),
        ("", 0, 0),
    ],
)
def test_views_repeat_for_each_strength_that_is_named(search: str, views: int, repeated: int) -> None:
    assert n_repeated_views(study(search, views)) == repeated


@pytest.mark.parametrize(
    ("search", "blamed"),
    [
        ("augmentation = { uniform = [0.2, 0.7] }", ["augmentation"]),
        ("mixup = 0.2", ["mixup"]),
        ("mixup = { uniform = [0.1, 0.4] }", ["mixup"]),
        ("mixup = 0.2\naugmentation = { uniform = [0.2, 0.7] }", ["augmentation", "mixup"]),
    ],
)
def test_views_that_save_nothing_are_warned_of(search: str, blamed: list[str]) -> None:
    assert [sentence.split()[0] for sentence in view_warnings(study(search))] == blamed
    assert not list(view_warnings(study(search, views=0)))


@pytest.mark.parametrize(
    "search", ["", "augmentation = { choice = [0.2, 0.7] }", "mixup = { uniform = [0.0, 0.4] }"]
)
def test_views_that_save_some_trials_something_are_not_warned_of(search: str) -> None:
    assert not list(view_warnings(study(search)))
