"""The comparison of searches with other ways of transfer learning: draws, costs and tables."""

import json
import statistics
from pathlib import Path

import optuna
import pytest

from benchmarks.proof import report as proof
from benchmarks.proof.run import DEFAULTS
from benchmarks.proof.searches import RATE, WITH, n_open
from tlopt import spec
from tlopt.spec.default_names import PLAIN_LABEL as PLAIN
from tlopt.storage import attributes

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
STUDY = """name = "proof"
[data]
source = "images"
[model]
backbone = "efficientnet_lite0"
[budget]
trials = 1
epochs = 2
[search]
"""


def proof_row(method: str, data: str, seed: int, test: float, **more: object) -> dict[str, object]:
    row = {"data": data, "seed": seed, "method": method, "test": [test] * 3, "val": [test] * 3, "epochs": 18}
    return row | more


def test_tlopt_is_compared_with_each_method_within_a_set_and_a_draw(tmp_path: Path) -> None:
    lines = [
        *(proof_row(name, data, seed, 0.5) for name in DEFAULTS for data in "abc" for seed in (0, 1)),
        *(proof_row(WITH.name, data, 0, 0.5 + gain) for data, gain in zip("abc", (0, 0.1, 0.2), strict=True)),
        proof_row(WITH.name, "a", 1, 0.6),
        proof_row(RATE.name, "a", 0, 0.9),
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = proof.read(tmp_path / "results.jsonl")
    # a set is the mean over its draws: a gains (0 + 10) / 2
    half = 4.303 * statistics.stdev([5, 10, 20]) / 3**0.5
    rows = proof.table(found).splitlines()
    assert rows[2].startswith(f"| default fine-tuning | 18 | 50.0 | +11.7 ± {half:.1f} | 50.0 ± 0.0 |")
    (rate,) = (row for row in rows if row.startswith("| tuned rate alone"))
    assert rate == "| tuned rate alone | 18 |  |  | 90.0 ± 0.0 |  |  |"  # one set of three


def test_the_best_default_is_the_best_on_validation_and_costs_all_of_them(tmp_path: Path) -> None:
    values = zip(DEFAULTS, (0.7, 0.9, 0.8, 0.6), strict=True)
    lines = [proof_row(name, "a", 0, 1 - value, val=[value] * 3) for name, value in values]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    row = proof.read(tmp_path / "results.jsonl")[proof.BEST_DEFAULT]["a", 0]
    assert (row["method"], row["epochs"]) == (DEFAULTS[1], 72)


@pytest.mark.parametrize(
    ("of_partly", "n_seeds", "test", "epochs"),
    [
        (0.95, 3, 0.05, 90),  # better on validation than the best default, and so chosen, though not on test
        (0.85, 3, 0.1, 90),
        (0.95, 1, 0.1, 72),  # dropped after the first seed
    ],
)
def test_the_partly_frozen_network_is_chosen_where_it_is_better_than_every_default_on_validation(
    of_partly: float, n_seeds: int, test: float, epochs: int, tmp_path: Path
) -> None:
    values = zip(DEFAULTS, (0.7, 0.9, 0.8, 0.6), strict=True)
    defaults = [proof_row(name, "a", 0, 1 - value, val=[value] * 3) for name, value in values]
    partly = {"label": "trial 5", "val": [of_partly] * n_seeds, "test": [1 - of_partly] * n_seeds}
    lines = [*defaults, proof_row(WITH.name, "a", 0, 0.5, candidates=[partly])]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    row = proof.read(tmp_path / "results.jsonl")[proof.BEST_OF_FIVE]["a", 0]
    assert (statistics.fmean(row["test"]), row["epochs"]) == (pytest.approx(test), epochs)


def test_a_later_point_needs_the_better_mean_and_the_odds_of_few_images(tmp_path: Path) -> None:
    values = zip(DEFAULTS, (0.7, 0.8, 0.6, 0.6), strict=True)
    lines = [proof_row(name, data, 0, 0.5, val=[value] * 3) for name, value in values for data in "abc"]
    for data, later in zip("abc", (0.79, 0.81, 0.99), strict=True):  # behind, ahead within noise, far ahead
        rows = [{"label": PLAIN, "val": [0.7, 0.71, 0.69], "test": [0.5] * 3}]
        rows += [{"label": "trial 9", "val": [later] * 3, "test": [0.6] * 3}]
        rows += [{"label": "trial 8", "val": [0.999], "test": [0.9]}]  # dropped after the first seed
        lines.append(proof_row(WITH.name, data, 0, 0.5, candidates=rows))
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    by_mean, by_odds = proof.after_first_five(proof.read(tmp_path / "results.jsonl")).splitlines()[2:]
    assert by_mean.startswith("| by its mean | 2 of 3 | +6.7 ± ")
    assert by_odds.startswith("| at odds of 4 to 1, as shipped | 1 of 3 | +3.3 ± ")


def test_what_a_choice_loses_is_counted_among_candidates_with_every_seed() -> None:
    candidates = [{"test": [0.6, 0.6]}, {"test": [0.9]}, {"test": [0.7, 0.8]}]
    assert proof.lost_by_choice({"test": [0.6, 0.6], "candidates": candidates}) == pytest.approx(15)


def test_a_search_goes_on_while_epochs_are_left_beside_its_confirmation() -> None:
    text = STUDY + "[confirm]\npoints = 2\nseeds = 3\n"
    study, opened = spec.loads(text, "study.toml"), optuna.create_study()
    # one default with three seeds of two epochs, and nothing else yet
    assert [n_open(study, opened, 1, epochs) for epochs in (6, 7)] == [0, 1]
    for _ in range(3):
        trial = opened.ask()
        for epoch in range(2):
            trial.report(0.5, epoch)
        result = {"outcome": "complete"}
        trial.set_user_attr(attributes.POINT, {"freeze_depth": 17})
        trial.set_user_attr(attributes.TRIAL_RESULT, result)
        opened.tell(trial, 0.5)
    # six epochs of the search, and two of its three points with three seeds each
    assert [n_open(study, opened, 1, epochs) for epochs in (6 + 6 + 12, 6 + 6 + 13)] == [3, 4]


def test_the_tables_of_the_proof_are_those_of_the_recorded_runs() -> None:
    folder = BENCHMARKS / "proof"
    found = proof.read(folder / "results.jsonl")
    text = (folder / "README.md").read_text()
    assert proof.table(found) in text
    assert proof.searches(found) in text
    assert proof.ahead_of_searches(found) in text
    assert proof.after_first_five(found) in text
