"""`tlopt curves` and `tlopt run` on a grid: tables, sentences, figure and JSON say the same."""

import json
from pathlib import Path
from typing import Any

import gridded
import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

from tlopt.app.grids import curves
from tlopt.cli.main import app
from tlopt.confirmation.candidates import find_candidates
from tlopt.spec.point import Point
from tlopt.storage.attributes import TrialRecord, best_first

GRID = '[sampler]\nkind = "grid"\nrepeats = 5\n'
DEPTHS = "freeze_depth = { choice = [0, 8, 17] }\n"
RECIPES = GRID + '[sampler.recipes]\n"default" = {}\n"half" = { transfer_depth = 0.5 }\n'
NOISE = gridded.noise(1, 0.005)


def inside(point: Point, replicate: int) -> float:
    return 0.6 + 0.1 * (point.freeze_depth == 8) + NOISE(point.freeze_depth, replicate)


def halved(point: Point, replicate: int) -> float:
    return 0.6 + 0.1 * (point.transfer_depth == 8) + NOISE(point.transfer_depth, replicate)


def said(folder: Path, *arguments: str) -> str:
    """The output of `tlopt curves` on the planted grid, on one line."""
    file, url = str(folder / "planted.toml"), f"sqlite:///{folder}/grid.db"
    found = CliRunner().invoke(app, ["curves", file, "--storage", url, *arguments])
    assert found.exit_code == 0, found.output
    return " ".join(found.output.split())


def as_json(folder: Path, *arguments: str) -> dict[str, Any]:
    file, url = str(folder / "planted.toml"), f"sqlite:///{folder}/grid.db"
    found = CliRunner().invoke(app, ["curves", file, "--storage", url, "--json", *arguments])
    return dict(json.loads(found.output))


def test_the_sentences_name_optimum_ends_and_claims(tmp_path: Path) -> None:
    gridded.build(tmp_path, DEPTHS, GRID, inside, trials=15)
    text = said(tmp_path, "--figure", str(tmp_path / "c.png"))

    assert "planted: accuracy on validation, 200 images, 5 seeds" in text
    assert "at 8 frozen. The optimum lies inside, both ends are worse; possible: 8 frozen." in text
    assert "Ends: 17 frozen minus 0 frozen: " in text
    assert "it is best to freeze some blocks and not all: seen." in text
    assert "In training: accuracy on the images and labels as trained on, during the last epoch" in text
    assert "all seeds have the same validation images" in text
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_training_accuracy_on_false_labels_is_called_that(tmp_path: Path) -> None:
    gridded.build(tmp_path, DEPTHS + "label_noise = 0.2\n", GRID, inside, trials=15)

    assert "labels as trained on, false labels included, during the last epoch" in said(tmp_path)


def test_flat_ends_are_not_told_apart(tmp_path: Path) -> None:
    gridded.build(tmp_path, DEPTHS, GRID, lambda p, r: 0.5 + NOISE(p.freeze_depth, r), trials=15)
    text = said(tmp_path, "--figure", str(tmp_path / "c.png"))

    assert "cannot be told, not even from either end" in text
    assert "seeds): not told apart." in text


def test_json_has_the_values_and_what_is_told_of_them(tmp_path: Path) -> None:
    gridded.build(tmp_path, DEPTHS, GRID, inside, trials=15)
    found = as_json(tmp_path, "--figure", str(tmp_path / "c.png"))
    (curve,) = found["curves"]

    assert (found["split"], found["over"], found["trials_ended"]) == ("val", "freeze_depth", 15)
    assert (curve["at"], curve["best"], curve["possible"], curve["optimum"]) == ([0, 8, 17], 8, [8], "inside")
    assert curve["values"][1][0] == pytest.approx(0.7 + NOISE(8, 0), rel=1e-5)
    assert curve["dip"] is None
    assert curve["train_accuracy"] == pytest.approx(np.array(curve["mean"]) + gridded.TRAIN_LEAD, rel=1e-4)
    assert found["claims"][1]["seen"] == "seen"
    assert found["figure"] == str(tmp_path / "c.png")


def test_recipes_are_compared_with_the_first_and_drawn_as_means(tmp_path: Path) -> None:
    gridded.build(tmp_path, "lr = 0.01", RECIPES, halved, trials=10)
    figure = tmp_path / "c.png"
    text, found = said(tmp_path, "--figure", str(figure)), as_json(tmp_path, "--figure", str(figure))

    assert "minus default" in text
    assert "half is the best: every other recipe is worse." in text
    assert figure.stat().st_size > 5_000
    assert found["best_recipes"] == [{"at": "", "possible": ["half"]}]


def test_recipes_over_numbers_of_images_are_drawn(tmp_path: Path) -> None:
    search = "lr = 0.01\ntrain_images = { choice = [20, 100] }"
    session, _ = gridded.build(tmp_path, search, RECIPES, halved, trials=20)
    found = curves.read_curves(session)

    assert found.over == "train_images"
    assert curves.draw(found, tmp_path / "c.png") == tmp_path / "c.png"
    assert curves.possible_recipes(found, 100) == ["half"]
    gain = curves.recipe_gain(found, 20, "half")
    assert gain is not None
    assert gain.mean == pytest.approx(0.1, abs=0.01)


def test_a_search_is_no_grid(tmp_path: Path) -> None:
    gridded.build(tmp_path, DEPTHS, GRID, inside, trials=15)
    file = tmp_path / "planted.toml"
    text = file.read_text().replace(GRID, "").replace('"planted"', '"search"')
    (tmp_path / "search.toml").write_text(text)
    url = f"sqlite:///{tmp_path}/grid.db"

    found = CliRunner().invoke(app, ["curves", str(tmp_path / "search.toml"), "--storage", url])

    assert found.exit_code == 1


def test_the_best_of_a_grid_is_a_mean_over_seeds_not_the_luckiest_run(tmp_path: Path) -> None:
    def value(point: Point, replicate: int) -> float:
        lucky = point.freeze_depth == 0 and replicate == 3
        return 0.99 if lucky else inside(point, 0)

    session, opened = gridded.build(tmp_path, DEPTHS, GRID, value, trials=15)
    records = [TrialRecord.from_frozen(trial) for trial in opened.get_trials()]
    best, *_ = best_first(records, "maximize")
    chosen = [row for row in find_candidates(session.study, opened, tiny.facts()) if row.number >= 0]

    assert best.point is not None
    assert best.point["freeze_depth"] == 8
    assert chosen[0].point.freeze_depth == 8
    assert chosen[0].value == pytest.approx(inside(chosen[0].point, 0))
