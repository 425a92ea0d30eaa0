"""tlopt's first five trials beside TPE: image sets, choices, and the tables of recorded runs."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.proof import first_five, five_report
from benchmarks.proof.first_five import (
    CONFIRMED,
    FIVE,
    REFEREE,
    REFEREE_CONFIRMED,
    SETS,
    TPE,
    ImageSet,
)
from tlopt.spec.default_names import PARTLY_LABEL

RECORDED = Path(five_report.__file__).with_name("first_five.jsonl")


def test_a_set_of_some_classes_has_no_image_of_the_others(tmp_path: Path) -> None:
    for split, name, n in (("train", "a", 4), ("train", "b", 4), ("train", "c", 4), ("val", "a", 1)):
        folder = tmp_path / "data" / "whole" / split / name
        folder.mkdir(parents=True)
        for index in range(n):
            (folder / f"{index}.png").touch()
    for split, name in (("val", "b"), ("test", "a"), ("test", "b")):
        (tmp_path / "data" / "whole" / split / name).mkdir(parents=True)
    some = ImageSet(name="some", folder="whole", n_train=6, classes=("a", "b"))
    images = first_five.link_set(some, tmp_path / "data", tmp_path / "work", 0)
    found = sorted(str(file.relative_to(images)) for file in images.rglob("*.png"))
    assert [sum(each.startswith(f"train/{name}") for each in found) for name in "abc"] == [3, 3, 0]
    assert all(os.path.exists(images / each) for each in found)


def test_the_sets_are_distinct_and_eight() -> None:
    assert len({each.name for each in SETS}) == len(SETS) == 8
    assert len({(each.folder, each.classes) for each in SETS}) == 8


def test_the_best_mean_is_that_of_accuracy_and_then_of_log_loss() -> None:
    assert (
        first_five.best_mean([[(0.5, -1.0), (0.7, -1.0)], [(0.6, -0.5), (0.6, -0.5)], [(0.9, 0), (0, 0)]])
        == 1
    )


@pytest.mark.parametrize(("lead", "chosen"), [(0.02, 1), (0.2, 0), (-0.1, 1)])
def test_of_defaults_the_partly_frozen_network_is_chosen_unless_another_is_better(
    lead: float, chosen: int
) -> None:
    runs = [[(0.6 + lead, -1.0)] * 3, [(0.6, -1.0)] * 3, [(0.4, -1.0)] * 3]
    assert first_five.of_defaults(["svm", PARTLY_LABEL, "linear probe"], runs, n_val=64) == chosen


def planted(data: str, seed: int, five: float, last: float) -> list[dict[str, object]]:
    own = {"data": data, "seed": seed}
    return [
        {**own, "part": FIVE, "five": {"label": "kept"}, "five_epochs": 100},
        {**own, "part": TPE, "last_epochs": 180},
        {**own, "part": REFEREE, "five": [five] * 3, "last": [last] * 3},
    ]


def test_a_set_counts_as_equal_by_the_mean_over_its_draws(tmp_path: Path) -> None:
    rows = [
        *planted("dtd10", 0, 0.7, 0.6),  # ten points ahead, and twelve behind: one behind
        *planted("dtd10", 1, 0.5, 0.62),
        *planted("trash6", 0, 0.6, 0.6),
        *planted("tops", 0, 0.6, 0.5),
        *planted("flowers5", 0, 0.6, 0.5)[:2],  # not judged yet
        {"data": "tops", "seed": 0, "part": CONFIRMED, "confirmed_epochs": 230},
        {"data": "tops", "seed": 0, "part": REFEREE_CONFIRMED, "confirmed": [0.5, 0.6, 0.7]},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = five_report.judged(first_five.finished(file))
    assert five_report.gains(found, "last") == pytest.approx({"dtd10": -1.0, "tops": 10.0, "trash6": 0.0})
    first, last, confirmed = five_report.table(found).splitlines()[2:]
    assert first == "| best of the first five, confirmed | 100 | 60.0 |  |  | 60.0 | 60.0 | 60.0 |"
    assert last.startswith("| TPE, best last value | 180 | 57.0 | +3.0 ± ")
    assert last.endswith(" | 2 of 3 | 61.0 | 60.0 | 50.0 |")
    assert confirmed == "| TPE, best of three confirmed | 230 |  |  | 1 of 1 |  |  | 60.0 |"
    assert five_report.choices(found) == "chosen: kept 4"


@pytest.mark.skipif(not RECORDED.exists(), reason="not recorded")
def test_the_table_of_the_first_five_is_that_of_the_recorded_runs() -> None:
    found = five_report.judged(first_five.finished(RECORDED))
    assert five_report.table(found) in RECORDED.with_name("README.md").read_text()
