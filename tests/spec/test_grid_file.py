"""Grids in study files: listed values, recipes, and what a digest covers."""

import pytest
import tiny

from tlopt.errors import SpecError
from tlopt.spec.dimensions import Choice, Fixed

GRID = '[sampler]\nkind = "grid"\nrepeats = 3\n'
RECIPES = GRID + "[sampler.recipes]\n"


def test_keys_of_recipes_are_choices_with_the_usual_value_first() -> None:
    study = tiny.study(
        "lr = 0.001", more=RECIPES + '"probe" = { freeze_depth = 1.0, lr = [0.01, 0.1] }\n"plain" = {}\n'
    )

    assert study.search == {"lr": Choice((0.001, 0.01, 0.1)), "freeze_depth": Choice((0.0, 1.0))}


def test_a_value_that_all_recipes_have_is_fixed() -> None:
    study = tiny.study("", more=RECIPES + '"one" = { momentum = 0.9 }\n"two" = {}\n')

    assert study.search == {"momentum": Fixed(0.9)}


def test_nothing_of_a_grid_is_pruned() -> None:
    assert tiny.study("lr = 0.1", more=GRID).pruner.kind == "none"


@pytest.mark.parametrize(
    ("search", "more", "said"),
    [
        ("lr = { log = [1e-3, 1e-1] }", GRID, "search.lr: a grid takes listed values"),
        ("", GRID + '[pruner]\nkind = "median"\n', "pruner.kind: a grid trains every point to its end"),
        ("", GRID.replace("3", "0"), "sampler.repeats: 0 is not allowed: at least 1"),
        ("", RECIPES + '"a" = { lr = 0.1 }\n', "search.lr: recipes set it; give a value here"),
        (
            "lr = { choice = [0.1, 0.2] }",
            RECIPES + '"a" = { lr = 0.1 }\n',
            "search.lr: recipes set it, so here it has one plain value",
        ),
        ("", RECIPES + '"a" = { freeze = 1 }\n', "sampler.recipes.a.freeze: unknown key"),
        ("", RECIPES + '"a" = { momentum = 7.0 }\n', "sampler.recipes.a.momentum: 7.0 is not allowed"),
        ("", RECIPES + '"a" = { momentum = [] }\n', "sampler.recipes.a.momentum: [] is neither"),
        ("", RECIPES + '"a" = { momentum = [0.9, 0.9] }\n', "names a value twice"),
        ("", RECIPES + '"a" = 3\n', "sampler.recipes: recipes are tables by name"),
        (
            "",
            RECIPES + '"a" = { transfer_depth = 3 }\n',
            "search.transfer_depth: mixes whole numbers (blocks) and fractions",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key(search: str, more: str, said: str) -> None:
    with pytest.raises(SpecError, match=r"planted\.toml: ") as error:
        tiny.study(search, more=more)

    assert said in str(error.value)


def test_a_grid_has_no_warm_start() -> None:
    with pytest.raises(SpecError, match="warm_start: a grid has its own points"):
        tiny.spec.loads('warm_start = "earlier"\n' + tiny.text("lr = 0.1", more=GRID), "planted.toml")


def test_seeds_may_be_added_to_a_grid_later_but_no_points() -> None:
    few, many = (tiny.study("lr = 0.1", trials=n, more=GRID.replace("3", str(n))) for n in (3, 5))
    other = tiny.study("lr = 0.1", more=RECIPES + '"a" = { momentum = 0.5 }\n')

    assert few.digest == many.digest != other.digest


def test_keys_that_came_later_change_no_digest_at_their_defaults() -> None:
    assert tiny.study("").digest == tiny.study("train_images = 0\nlabel_noise = 0.0").digest
    assert tiny.study("").digest != tiny.study("train_images = 12").digest
