"""Planted searches: the explanation finds what was planted, and says of the rest that it cannot be told."""

import math
from collections.abc import Callable

import pytest
import searched
import tiny
from optuna.trial import FrozenTrial

from tlopt.analysis.explain.explanation import Explanation, change_words, explain
from tlopt.analysis.explain.ranges import Decision
from tlopt.spec.dimensions import Choice, Fixed, Int, Log
from tlopt.spec.point import Point

FACTS = tiny.facts()
SEARCH = """
transfer_depth = { int = [8, 14] }
freeze_depth = { int = [0, 17] }
lr = { log = [1e-4, 1e-2] }
lr_ratio = { log = [0.1, 1.0] }
l2_sp = { log = [1e-4, 1.0], zero = true }
augmentation = { choice = [0.2, 0.7] }
"""
STUDY = tiny.study(SEARCH)


def rate(point: Point) -> float:
    """The position of the learning rate in its range."""
    return math.log10(point.lr / 1e-4) / 2


def off_or_weak(point: Point) -> float:
    """1 for a pull that is off, falling with its strength to 0."""
    return 1 - (math.log10(point.l2_sp / 1e-4) / 4 if point.l2_sp else -0.2)


def explained(worth: Callable[[Point], float], *, n_blocks: int | None = 17, **how: object) -> Explanation:
    return explain(STUDY, planted(worth, **how), n_blocks=n_blocks)


def planted(worth: Callable[[Point], float], **how: object) -> list[FrozenTrial]:
    return searched.trials(STUDY, FACTS, worth, **how)  # type: ignore[arg-type]


def decision(found: Explanation, key: str) -> Decision:
    (one,) = (each for each in found.decisions if each.key == key)
    return one


def test_a_range_whose_best_lies_at_its_end_is_extended_there() -> None:
    found = explained(lambda point: 0.3 + 0.3 * rate(point))

    lr = decision(found, "lr")
    assert lr.kind in ("extended", "moved")
    assert isinstance(lr.after, Log)
    assert lr.after.high == 0.1  # half of two decades more
    assert "of the best 6 trials lie above 0.00501" in lr.reason
    assert found.effects[0].key.name == "lr"
    assert found.effects[0].is_clear


@pytest.mark.parametrize("seed", range(3))
def test_where_the_best_lies_beyond_a_range_the_next_one_has_better_points(seed: int) -> None:
    def worth(point: Point) -> float:
        return 0.8 - 0.12 * math.log10(point.lr / 3e-2) ** 2  # best at 0.03; the range ends at 0.01

    after = decision(explained(worth, noise=0.02, seed=seed), "lr").after
    assert isinstance(after, Log)
    assert after.high > 0.03
    wider = tiny.study(SEARCH.replace("[1e-4, 1e-2]", f"[{after.low}, {after.high}]"))
    on, further = (
        max(trial.value for trial in searched.trials(study, FACTS, worth, noise=0.0, seed=seed + 10))
        for study in (STUDY, wider)
    )

    assert further > on + 0.02


def test_keys_without_effect_have_none_and_keep_their_ranges() -> None:
    found = explained(lambda point: 0.3 + 0.3 * rate(point), noise=0.001)

    others = [effect for effect in found.effects if effect.key.name != "lr"]
    assert len(others) == 5
    assert not any(effect.is_clear for effect in others)
    assert any(effect.is_absent for effect in others)
    assert {each.key for each in found.changes} == {"lr"}


@pytest.mark.parametrize("seed", range(3))
def test_noise_changes_no_range(seed: int) -> None:
    found = explained(lambda _: 0.5, noise=0.05, seed=seed)

    assert found.changes == ()
    assert not any(effect.is_clear for effect in found.effects)
    assert "no effect can be told" in found.decisions[0].reason
    assert found.sentences[0].startswith("No range has to change")


def test_a_planted_interaction_of_depth_and_rate_is_found_with_its_direction() -> None:
    def worth(point: Point) -> float:
        return 0.3 + 0.4 * rate(point) * (1 if point.freeze_depth >= 6 else -1)

    found = explained(worth, n=120)

    rows = {(row.depth, row.rate): row for row in found.interactions}
    assert rows["freeze_depth", "lr"].difference.low > 0
    assert not rows["transfer_depth", "lr_ratio"].is_clear
    assert any(said.startswith("freeze_depth and lr interact: the deeper") for said in found.sentences)
    assert {key.name for key in found.maps[0].keys} == {"freeze_depth", "lr"}


def test_without_an_interaction_none_is_said() -> None:
    found = explained(lambda point: 0.3 + 0.3 * rate(point) - 0.02 * point.freeze_depth, n=120)

    assert not any(row.is_clear for row in found.interactions)


def test_a_part_that_is_worse_is_cut_and_the_best_stays() -> None:
    found = explained(lambda point: 0.5 - 0.04 * abs(point.freeze_depth - 4))

    after = decision(found, "freeze_depth").after
    assert isinstance(after, Int)
    assert after.low == 0
    assert 4 < after.high < 17


def test_a_best_end_at_the_limit_of_the_key_stays_and_is_named() -> None:
    found = explained(lambda point: 0.5 - 0.04 * point.freeze_depth)

    one = decision(found, "freeze_depth")
    assert isinstance(one.after, Int)
    assert one.after.low == 0
    assert one.kind in ("narrowed", "kept")


@pytest.mark.parametrize(("n_blocks", "high"), [(17, 17), (15, 15), (None, 14)])
def test_a_depth_is_extended_up_to_the_last_block_if_that_is_known(n_blocks: int | None, high: int) -> None:
    found = explained(lambda point: 0.1 + 0.05 * point.transfer_depth, n_blocks=n_blocks)

    one = decision(found, "transfer_depth")
    assert isinstance(one.after, Int)
    assert one.after.high == high


def test_off_is_dropped_if_it_is_worse_and_stays_if_it_is_best() -> None:
    worse = explained(lambda point: 0.8 - 0.3 * off_or_weak(point), n=90)
    best = explained(lambda point: 0.4 + 0.3 * off_or_weak(point), n=90)

    dropped, kept = decision(worse, "l2_sp").after, decision(best, "l2_sp").after
    assert isinstance(dropped, Log)
    assert not dropped.zero
    assert isinstance(kept, Log)
    assert kept.zero


def test_an_option_that_is_worse_is_left_out() -> None:
    found = explained(lambda point: 0.8 - 0.4 * point.augmentation)

    assert decision(found, "augmentation").after == Fixed(0.2)


def test_a_choice_without_effect_is_fixed_where_most_trials_have_one_option() -> None:
    every = planted(lambda point: 0.3 + 0.3 * rate(point), n=150, noise=0.0005)
    few = [t for t in every if t.params["augmentation"] == 0.7][:12]
    most = [t for t in every if t.params["augmentation"] == 0.2]

    one = decision(explain(STUDY, [*most, *few]), "augmentation")

    assert one.after == Fixed(0.2)
    assert change_words(one) == "augmentation fixed at 0.2, was one of 0.2, 0.7"
    assert f"{len(most)} of {len(most) + 12} trials have this one" in one.reason
    assert isinstance(decision(explain(STUDY, every), "augmentation").after, Choice)


def test_a_minimised_objective_is_read_the_other_way_round() -> None:
    study = tiny.study(SEARCH).model_copy(update={"objective": "log_loss"})
    found = explain(study, searched.trials(study, FACTS, lambda point: 2 - rate(point)))

    lr = decision(found, "lr")
    assert isinstance(lr.after, Log)
    assert lr.after.high > 0.01
    assert "points" not in lr.reason


def test_pruned_trials_are_never_the_best() -> None:
    """Their last values are the highest of all, at low rates."""
    trials = planted(
        lambda point: 0.3 + 0.3 * rate(point) if rate(point) > 0.3 else 2.0,
        pruned=lambda point: rate(point) <= 0.3,
    )

    found = explain(STUDY, trials)

    assert float(found.effects[0].at[found.effects[0].best]) > 0.7
    assert "trials of networks" in found.note


def test_few_trials_and_equal_values_say_what_is_missing() -> None:
    few = explained(lambda point: rate(point), n=9)
    equal = explained(lambda _: 0.5, noise=0.0)

    assert (few.effects, few.decisions) == ((), ())
    assert few.note == (
        "9 trials of networks, 9 of them complete: it takes 12, 5 of them complete, to tell what the keys do."
    )
    assert few.sentences == [few.note]
    assert "all with the same value" in equal.note
    assert few.note in repr(few)


def test_a_kept_trial_stays_in_the_ranges() -> None:
    trials = planted(lambda point: 0.5 - 0.04 * abs(point.freeze_depth - 4))
    deepest = max(trials, key=lambda each: Point.from_dict(each.user_attrs["tlopt:point"]).freeze_depth)
    depth = deepest.user_attrs["tlopt:point"]["freeze_depth"]

    without, kept = (
        decision(explain(STUDY, trials, keep=keep), "freeze_depth") for keep in ((), {deepest.number})
    )

    assert isinstance(without.after, Int)
    assert without.after.high < depth
    assert isinstance(kept.after, Int)
    assert kept.after.high >= depth


def test_the_table_the_frame_and_the_line_of_an_explanation() -> None:
    found = explained(lambda point: 0.3 + 0.3 * rate(point))
    frame = found.to_frame()

    assert list(frame["key"]) == [row[0] for row in found.table()]
    lr = frame[frame["key"] == "lr"].iloc[0]
    assert lr["effect_low"] < lr["effect"] < lr["effect_high"]
    assert lr["before"] == "0.0001 to 0.01, logarithmic"
    assert repr(found).startswith("<Explanation of planted: clear effect of lr; ranges to change: lr")
    assert len(repr(found)) < 200
    assert "<table>" in found._repr_html_()


def test_the_same_trials_give_the_same_explanation() -> None:
    one, two = (explained(lambda point: 0.3 + 0.3 * rate(point), n=30) for _ in range(2))

    assert one.to_frame().equals(two.to_frame())
