"""Networks ranked by their fit: drawn images and rank correlations."""

import json
from pathlib import Path

import numpy as np

from benchmarks.common.images import link_drawn
from benchmarks.insight import backbones

INSIGHT = Path(__file__).parents[1] / "benchmarks" / "insight"


def test_drawn_images_are_in_proportion_to_the_classes_and_the_seeds_own(tmp_path: Path) -> None:
    for name, n_images in (("few", 2), ("many", 20)):
        for index in range(n_images):
            file = tmp_path / "data" / "train" / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")

    def drawn(folder: str, seed: int) -> set[str]:
        linked = link_drawn(tmp_path / "data", tmp_path / folder, {"train": 11}, seed)
        return {str(file.relative_to(linked)) for file in linked.rglob("*.png")}

    first = drawn("first", 0)
    assert [sum(f"/{name}/" in file for file in first) for name in ("few", "many")] == [1, 10]
    assert drawn("again", 0) == drawn("first", 0) == first
    assert drawn("other", 1) != first


def test_rank_correlations_of_networks_are_those_of_planted_values() -> None:
    x = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 2)
    y = np.array([[0.1, 0.2, 0.3, 0.5, 0.7, 0.8], [0.8, 0.7, 0.5, 0.3, 0.2, 0.1]])
    same, reverse, mean = backbones.correlations(x, y)
    assert same == "1.00 (1.00 to 1.00)"
    assert reverse == "-1.00 (-1.00 to -1.00)"
    assert mean == "0.00 (0.00 to 0.00)"


def test_the_tables_of_networks_are_those_of_the_recorded_runs() -> None:
    rows = [json.loads(line) for line in (INSIGHT / "backbones.jsonl").read_text().splitlines()]
    text = (INSIGHT / "README.md").read_text()
    assert [line for line in backbones.table(rows) if line not in text] == []
