"""Curves of planted grids: their lines and places, recipes chosen on other seeds, claims of papers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gridded
import numpy as np
import optuna
import pytest
import tiny

from tlopt.analysis.claims import claims_of
from tlopt.analysis.curves import Curves, chosen_on_others, curves_of
from tlopt.errors import NotReady, SpecError
from tlopt.model.facts import BackboneFacts
from tlopt.spec import Study
from tlopt.spec.model_names import split_width
from tlopt.spec.point import Point

GRID = '[sampler]\nkind = "grid"\nrepeats = 5\n'
DEPTHS = "freeze_depth = { choice = [0, 4, 8, 12, 17] }\n"
IMAGES = "train_images = { choice = [20, 0] }\n"
NOISE = gridded.noise(1, 0.005)


def inside(point: Point, replicate: int) -> float:
    """Best at 8 frozen blocks of 20 images, and at 12 of all."""
    at = 8 if point.train_images else 12
    return 0.8 - 0.02 * abs(point.freeze_depth - at) + NOISE(point.freeze_depth, replicate)


def found(folder: Path, search: str, value: gridded.Value, trials: int, **keys: str) -> Curves:
    session, opened = gridded.build(folder, search, keys.pop("more", GRID), value, trials=trials)
    return curves_of((session.study, opened), **keys)


def test_there_is_a_curve_over_the_depth_for_each_number_of_images(tmp_path: Path) -> None:
    curves = found(tmp_path, DEPTHS + IMAGES, inside, 50)

    assert curves.over == "freeze_depth"
    assert [curve.name for curve in curves.curves] == ["20 images", "400 images"]
    assert [curve.places for curve in curves.curves] == [(0, 4, 8, 12, 17)] * 2
    assert [curve.shape.place for curve in curves.curves] == ["inside"] * 2
    assert [curve.places[curve.shape.best] for curve in curves.curves] == [8, 12]
    assert curves.curves[0].values.shape == (5, 5)
    assert curves.curves[0].values[2, 3] == inside_of(8, 3)


def inside_of(freeze_depth: int, replicate: int) -> float:
    return 0.8 + NOISE(freeze_depth, replicate)


def test_the_axis_may_be_another_key(tmp_path: Path) -> None:
    curves = found(tmp_path, DEPTHS + IMAGES, inside, 50, over="train_images")

    assert [curve.name for curve in curves.curves] == [f"{n} frozen" for n in (0, 4, 8, 12, 17)]
    assert curves.curves[0].places == (20, 400)


def test_over_epochs_there_are_the_powers_of_two_and_the_last(tmp_path: Path) -> None:
    session, opened = gridded.build(tmp_path, DEPTHS, GRID, inside, trials=25, epochs=6)
    curves = curves_of((session.study, opened), over="epoch")

    assert curves.curves[0].places == (1, 2, 4, 6)
    assert curves.curves[2].values[-1] == pytest.approx([0.8 - 0.08 + NOISE(8, r) for r in range(5)])


def test_accuracy_in_training_is_of_the_last_epoch_or_over_epochs_of_each(tmp_path: Path) -> None:
    session, opened = gridded.build(tmp_path, DEPTHS, GRID, inside, trials=25, epochs=6)
    last, by_epoch = (curves_of((session.study, opened), over=over) for over in ("", "epoch"))

    means = last.curves[0].values.mean(axis=1)
    assert last.curves[0].train == pytest.approx(means + gridded.TRAIN_LEAD)
    assert by_epoch.curves[0].train == pytest.approx(
        means[0] * np.array([1, 2, 4, 6]) / 6 + gridded.TRAIN_LEAD
    )


def test_claims_are_seen_or_not_on_planted_curves(tmp_path: Path) -> None:
    claims = {
        (claim.of, claim.text): claim.seen
        for claim in claims_of(found(tmp_path, DEPTHS + IMAGES, inside, 50))
    }

    best_inside = "it is best to freeze some blocks and not all"
    assert claims["20 images", best_inside] == claims["400 images", best_inside] == "seen"
    assert claims["20 images", "double descent over the number of frozen blocks"] == "cannot be told"
    assert claims["", "the best depth moves between 20 images and 400 images"] == "seen"


def rising(point: Point, replicate: int) -> float:
    return 0.5 + 0.01 * point.freeze_depth + NOISE(point.freeze_depth, replicate)


def dipping(point: Point, replicate: int) -> float:
    return 0.5 + 0.1 * (point.freeze_depth != 8) + NOISE(point.freeze_depth, replicate)


def test_the_reverse_of_a_claim_is_said(tmp_path: Path) -> None:
    seen = [claim.seen for claim in claims_of(found(tmp_path, DEPTHS, rising, 25))]

    assert seen == ["the reverse is seen", "the reverse is seen", "cannot be told"]


def test_a_second_descent_is_seen(tmp_path: Path) -> None:
    assert [c.seen for c in claims_of(found(tmp_path, DEPTHS, dipping, 25))][2] == "seen"


def test_of_two_depths_nothing_is_claimed_of_those_between(tmp_path: Path) -> None:
    def falling(point: Point, replicate: int) -> float:
        return 0.8 - 0.01 * point.freeze_depth + NOISE(point.freeze_depth, replicate)

    two = "freeze_depth = { choice = [0, 17] }\n"
    (claim,) = claims_of(found(tmp_path, two, falling, 10))

    assert claim.text == "freezing the most blocks, 17, is worse than freezing fewer"
    assert claim.seen == "seen"


def test_a_flat_curve_tells_nothing(tmp_path: Path) -> None:
    curves = found(tmp_path, DEPTHS, lambda point, r: 0.5 + NOISE(point.freeze_depth, r), 25)

    assert curves.curves[0].shape.place == "both"
    assert {claim.seen for claim in claims_of(curves)} == {"cannot be told"}


def test_runs_without_a_value_are_counted_and_leave_the_others(tmp_path: Path) -> None:
    def value(point: Point, replicate: int) -> float | None:
        if point.freeze_depth == 0 or (point.freeze_depth == 4 and replicate == 2):
            return None
        return inside(point, replicate)

    curves = found(tmp_path, DEPTHS, value, 25)

    assert curves.without_value == {"diverged": 6}
    assert curves.curves[0].places == (4, 8, 12, 17)
    assert np.isnan(curves.curves[0].values[0]).tolist() == [False, False, True, False, False]


RECIPES = (
    GRID
    + "[sampler.recipes]\n"
    + '"default" = {}\n'
    + '"best depth" = { transfer_depth = [0.2, 0.4, 0.6, 0.8, 1.0] }\n'
)


def test_a_recipe_of_several_points_has_the_value_of_the_one_chosen_on_other_seeds(tmp_path: Path) -> None:
    def value(point: Point, replicate: int) -> float:
        return 0.6 + 0.2 * (point.transfer_depth == 10) + NOISE(point.transfer_depth, replicate)

    curves = found(tmp_path, "lr = 0.01", value, 25, more=RECIPES)
    default, best = (curve.values[0] for curve in curves.curves)

    assert default == pytest.approx([0.6 + NOISE(17, r) for r in range(5)])
    assert best == pytest.approx([0.8 + NOISE(10, r) for r in range(5)])
    assert curves.tuned == ("best depth",)
    assert curves.over == ""


def test_choosing_among_noise_gains_nothing() -> None:
    rng = np.random.default_rng(3)
    gains = [chosen_on_others(rng.normal(0, 1, (20, 5)), "maximize").mean() for _ in range(300)]

    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(300)


def test_of_a_loss_the_lowest_is_chosen() -> None:
    values = np.array([[0.1, 0.1, 0.1], [0.5, 0.5, 0.5]])

    assert chosen_on_others(values, "minimize").tolist() == [0.1] * 3
    assert chosen_on_others(values, "maximize").tolist() == [0.5] * 3


def test_a_key_that_does_not_vary_is_refused_as_an_axis(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--over lr: planted has curves over freeze_depth, epoch"):
        found(tmp_path, DEPTHS, inside, 25, over="lr")


def test_a_grid_without_a_complete_trial_has_no_curves_yet(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no complete trial yet"):
        found(tmp_path, DEPTHS, lambda *_: None, 25)


def test_a_fixed_key_without_effect_at_some_places_parts_no_curve(tmp_path: Path) -> None:
    curves = found(tmp_path, DEPTHS + "norm_depth = 17\n", inside, 25)  # 0 where all is frozen

    assert [curve.places for curve in curves.curves] == [(0, 4, 8, 12, 17)]


# Several grids


def grid_named(folder: Path, name: str, value: gridded.Value, **keys: Any) -> tuple[Study, optuna.Study]:
    session, opened = gridded.build(
        folder, keys.pop("search", DEPTHS), GRID, value, trials=25, name=name, **keys
    )
    return session.study, opened


def lower(point: Point, replicate: int) -> float:
    return inside(point, replicate) - 0.1


def test_several_grids_have_a_curve_each_named_by_its_study(tmp_path: Path) -> None:
    near, far = grid_named(tmp_path, "near", inside), grid_named(tmp_path, "far", lower)
    curves = curves_of(near, far)

    assert (curves.over, curves.names, curves.title) == ("freeze_depth", ("near", "far"), "near, far")
    assert [curve.name for curve in curves.curves] == ["near", "far"]
    assert curves.curves[0].values == pytest.approx(curves.curves[1].values + 0.1)
    assert (curves.n_ended, curves.n_planned) == (50, 50)


def test_curves_have_the_same_seeds_in_the_same_order(tmp_path: Path) -> None:
    def lost(point: Point, replicate: int) -> float | None:
        return None if replicate == 1 else inside(point, replicate)

    whole, without = curves_of(
        grid_named(tmp_path, "whole", inside), grid_named(tmp_path, "lost", lost)
    ).curves

    assert np.isnan(without.values[:, 1]).all()
    assert without.values[:, [0, 2, 3, 4]] == pytest.approx(whole.values[:, [0, 2, 3, 4]])


def shifted(point: Point, replicate: int) -> float:
    """Best at 12 frozen blocks."""
    return 0.8 - 0.02 * abs(point.freeze_depth - 12) + NOISE(point.freeze_depth, replicate)


def best_at_8(point: Point, replicate: int) -> float:
    return 0.8 - 0.02 * abs(point.freeze_depth - 8) + NOISE(point.freeze_depth, replicate)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (shifted, "the best depth differs between near and far: seen"),
        (best_at_8, "the best depth differs between studies: cannot be told"),
    ],
)
def test_it_is_said_whether_the_best_depth_differs_between_studies(
    tmp_path: Path, other: gridded.Value, said: str
) -> None:
    curves = curves_of(grid_named(tmp_path, "near", best_at_8), grid_named(tmp_path, "far", other))

    assert f"Gerace et al. 2023: {said}." in [claim.words for claim in claims_of(curves)]


def test_lines_are_studies_where_another_key_varies_too(tmp_path: Path) -> None:
    grids = [
        grid_named(
            tmp_path, name, inside, search=DEPTHS.replace("8, 12, 17", "8") + "lr = { choice = [0.01, 0.1] }"
        )
        for name in ("near", "far")
    ]

    assert [dict(curve.keys) for curve in curves_of(*grids).curves] == [
        {"study": name, "lr": lr} for name in ("near", "far") for lr in (0.01, 0.1)
    ]


def test_grids_that_cannot_be_drawn_as_one_are_refused(tmp_path: Path) -> None:
    one = grid_named(tmp_path, "one", inside)
    with pytest.raises(SpecError, match="one is named twice"):
        curves_of(one, one)
    session, opened = gridded.build(tmp_path, "lr = 0.01", RECIPES, inside, trials=25, name="recipes")
    with pytest.raises(
        SpecError, match="recipes has recipes, which are compared within one grid: draw it alone"
    ):
        curves_of(one, (session.study, opened))
    loss = session.study.model_copy(update={"objective": "log_loss", "sampler": one[0].sampler})
    with pytest.raises(
        SpecError, match="recipes has the objective log_loss and one accuracy: draw them one by one"
    ):
        curves_of(one, (loss, opened))
    with pytest.raises(SpecError, match="--over lr: one, other have curves over freeze_depth, epoch"):
        curves_of(one, grid_named(tmp_path, "other", lower), over="lr")


# Widths


WIDTHS = '{ choice = ["densenet121@0.25", "densenet121@0.5", "densenet121"] }'


def wide_facts(*names: str) -> BackboneFacts:
    of = tiny.facts()
    return replace(
        of,
        n_blocks=dict.fromkeys(names, 62),
        resolution=dict.fromkeys(names, 32),
        batch_norm=dict.fromkeys(names, True),
        plain_lr=dict.fromkeys(names, tiny.PLAIN_LR),
    )


def wider(point: Point, replicate: int) -> float:
    return 0.5 + 0.1 * split_width(point.backbone)[1] + NOISE(point.freeze_depth, replicate)


def test_the_width_of_a_searched_backbone_is_a_number(tmp_path: Path) -> None:
    session, opened = gridded.build(
        tmp_path,
        "freeze_depth = { choice = [0.0, 1.0] }",
        GRID,
        wider,
        trials=30,
        backbone=WIDTHS,
        facts=wide_facts("densenet121@0.25", "densenet121@0.5", "densenet121"),
    )
    by_depth, by_width = (curves_of((session.study, opened), over=over) for over in ("", "width"))

    assert [curve.name for curve in by_depth.curves] == ["width 0.25", "width 0.5", "width 1"]
    assert [curve.places for curve in by_width.curves] == [(0.25, 0.5, 1.0)] * 2
    assert [curve.name for curve in by_width.curves] == ["0 frozen", "62 frozen"]


def test_grids_of_several_widths_are_told_apart_by_them(tmp_path: Path) -> None:
    grids = [
        grid_named(
            tmp_path,
            f"width-{name[12:]}",
            wider,
            search="freeze_depth = { choice = [0, 5, 9, 12, 62] }",
            backbone=f'"{name}"',
            facts=wide_facts(name),
        )
        for name in ("densenet121@0.25", "densenet121@0.5")
    ]

    assert [dict(curve.keys) for curve in curves_of(*grids).curves] == [{"width": 0.25}, {"width": 0.5}]
    assert curves_of(*grids, over="width").curves[0].places == (0.25, 0.5)

    other = grid_named(
        tmp_path,
        "other",
        wider,
        search="freeze_depth = { choice = [0, 5, 9, 12, 62] }",
        backbone='"resnet18"',
        facts=wide_facts("resnet18"),
    )
    assert [dict(curve.keys) for curve in curves_of(*grids, other).curves] == [
        {"backbone": name} for name in ("densenet121@0.25", "densenet121@0.5", "resnet18")
    ]
