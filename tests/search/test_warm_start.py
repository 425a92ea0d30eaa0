"""A study takes over each trial of an earlier one once, as a value or as a point."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import optuna
import pytest
import tiny
from optuna.trial import FrozenTrial, TrialState

from tlopt import spec
from tlopt.errors import Refused
from tlopt.search import warm_start
from tlopt.search.defaults import defaults
from tlopt.search.plan import search_plan
from tlopt.search.samplers import next_initial_point
from tlopt.search.space import search_space
from tlopt.search.warm_start import CARRIED_MAX, ENQUEUED_MAX, Earlier, WarmStart
from tlopt.spec import Study
from tlopt.spec.point import Point
from tlopt.storage import attributes, studies
from tlopt.storage.attributes import OUTCOME_CONSTRAINT, TrialRecord

FACTS = tiny.facts()
FINGERPRINTS = {"data": "0a1b", "weights": "77aa"}
NARROW = "lr = { log = [1e-3, 1e-2] }\nfreeze_depth = { int = [0, 17] }"
WIDE = "lr = { log = [1e-4, 1.0] }\nfreeze_depth = { int = [0, 17] }"
PLAIN = defaults(tiny.study(WIDE), FACTS)[1].point
BEGAN = 1.5e9
MIRRORED = spec.loads(
    tiny.text(NARROW).replace('source = "images"', 'source = "images"\nflip = false'), "x.toml"
)


def trial(number: int, value: float | None = 0.5, **point: Any) -> FrozenTrial:
    """A trial that tlopt ran, complete with a value and pruned without."""
    outcome = point.pop("outcome", "pruned" if value is None else "complete")
    made = optuna.create_trial(
        state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
        value=value,
        intermediate_values={0: 0.25, 1: value or 0.125},
        constraints={OUTCOME_CONSTRAINT: -1.0 if outcome in ("complete", "pruned") else 1.0},
        user_attrs={
            attributes.POINT: replace(PLAIN, **point).as_dict(),
            attributes.TRIAL_RESULT: {"outcome": outcome, "metrics": {"log_loss": 0.75}},
        },
    )
    made.number = number
    return made


def earlier(*trials: FrozenTrial, study: Study | None = None, **changes: Any) -> Earlier:
    known = {"began": BEGAN, "semantics": spec.SEMANTICS_VERSION, "fingerprints": FINGERPRINTS} | changes
    return Earlier(study=study or named(NARROW, "narrow"), trials=trials, **known)


def named(search: str, name: str, **changes: Any) -> Study:
    return tiny.study(search, **changes).model_copy(update={"name": name})


def planned(
    before: Earlier, study: Study | None = None, fingerprints: dict[str, str] = FINGERPRINTS, **changes: Any
) -> WarmStart:
    return warm_start.from_study(
        before,
        study or named(WIDE, "wide"),
        FACTS,
        fingerprints=fingerprints,
        semantics=spec.SEMANTICS_VERSION,
        initial_points=changes.get("initial_points", ()),
    )


def left_out(*trials: FrozenTrial, search: str = WIDE, **changes: Any) -> str:
    """The sentence on trials none of which is carried over."""
    warm = planned(earlier(*trials), named(search, "wide", **changes))
    assert (warm.carried, warm.enqueued) == ((), ())
    return warm.summary.removeprefix("0 trials of 'narrow' carried over, ")


# Which trials


def test_complete_and_pruned_and_diverged_trials_are_carried_over_others_are_not() -> None:
    ended = [
        trial(0),
        trial(1, None),
        trial(2, None, outcome="diverged"),
        trial(3, None, outcome="out_of_memory"),
        trial(4, None, outcome="timed_out"),
        optuna.create_trial(state=TrialState.FAIL),
        optuna.create_trial(value=0.5),
    ]
    ended[5].number, ended[6].number = 5, 6

    warm = planned(earlier(*ended))

    assert warm.carried == (0, 1, 2)
    assert warm.summary == (
        "3 trials of 'narrow' carried over, 4 left out: ended as out of memory; ended as timed out;"
        " ended as failed; not run by tlopt"
    )


@pytest.mark.parametrize(
    ("point", "search", "reason"),
    [
        ({"lr": 0.3}, NARROW, "lr 0.3 lies outside 0.001 to 0.01"),
        ({"l2_sp": 0.5}, WIDE + "\nl2_sp = { log = [1e-3, 0.1], zero = true }", "l2_sp 0.5 lies outside"),
        ({"momentum": 0.8}, WIDE, "momentum 0.8 is 0.9 here"),
        ({"batch_size": 64}, WIDE + "\nbatch_size = 16", "batch_size 64 is 16 here"),
        ({"freeze_depth": 9}, "freeze_depth = { int = [0, 4] }", "freeze_depth 9 blocks lies outside 0 to 4"),
        ({"schedule": "linear"}, WIDE, "schedule 'linear' is 'cosine' here"),
        (
            {"optimizer": "sgd"},
            'optimizer = { choice = ["sgd", "adamw"] }\n'
            "lr = { sgd = { log = [0.1, 1.0] }, adamw = { log = [1e-4, 1.0] } }",
            "lr 0.00125 lies outside 0.1 to 1",
        ),
    ],
)
def test_a_point_that_the_new_space_has_not_is_left_out_with_the_reason(
    point: dict[str, Any], search: str, reason: str
) -> None:
    assert left_out(trial(0, **point), search=search).startswith(f"1 left out: {reason}")


def test_each_reason_is_said_once_with_its_number() -> None:
    said = left_out(trial(0, lr=0.3), trial(1, momentum=0.8), trial(2, lr=0.2), search=NARROW)

    assert said == ("3 left out: lr 0.3 lies outside 0.001 to 0.01 (one of 2 such); momentum 0.8 is 0.9 here")


def test_a_depth_that_the_earlier_study_left_out_is_the_default_where_that_is_the_same_trial() -> None:
    search = WIDE + "\nanchor_depth = { int = [0, 17] }\ntransfer_depth = { int = [12, 17] }"

    assert PLAIN.anchor_depth == PLAIN.transfer_depth == 17
    assert planned(earlier(trial(0)), named(search, "wide")).carried == (0,)
    assert "anchor_depth 17 blocks lies outside 0 to 9" in left_out(
        trial(0), search=search.replace("[0, 17] }\nt", "[0, 9] }\nt")
    )


def test_a_depth_at_the_end_of_a_range_of_fractions_is_inside() -> None:
    study = named("freeze_depth = { uniform = [0.0, 0.52] }", "wide")  # 0.52 of 17 blocks: 9, which are 0.529

    assert planned(earlier(trial(0, freeze_depth=9)), study).carried == (0,)
    assert planned(earlier(trial(0, freeze_depth=10)), study).carried == ()


def test_another_network_is_left_out_and_a_known_one_needs_the_same_weights() -> None:
    both = {"backbone": '{ choice = ["small", "large"] }'}
    study = named("lr = { log = [1e-4, 1.0] }", "wide", **both)
    here = {"data": "0a1b", "weights": "77aa+5566"}  # of large and small, by name
    ended = [trial(0), trial(1, backbone="huge")]

    same = planned(earlier(*ended), study, here)
    other = planned(earlier(*ended), study, here | {"weights": "99ff+5566"})

    assert (same.carried, "backbone huge is not in this search" in same.summary) == ((0,), True)
    assert other.carried == ()
    assert "weights of large: 'narrow' has 77aa, here is 99ff" in other.summary


def test_of_many_trials_the_best_half_and_the_newest_are_carried_over() -> None:
    n = CARRIED_MAX + 50
    falling = [trial(number, 1 - number / n, lr=0.001 + number * 1e-6) for number in range(n)]

    warm = planned(earlier(*falling))

    half = CARRIED_MAX // 2
    assert warm.carried == (*range(half), *range(n - half, n))
    assert f"50 left out: beyond the {CARRIED_MAX} best and newest" in warm.summary


def test_trials_under_way_stay_where_they_are() -> None:
    waiting = optuna.create_trial(state=TrialState.WAITING)

    warm = planned(earlier(trial(0), waiting))

    assert warm.carried == (0,)
    assert warm.summary == "1 trial of 'narrow' carried over; 1 trial is still under way there"


# Values or points


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"study": MIRRORED}, "data.flip: 'planted' has false, here is true"),
        ({"fingerprints": FINGERPRINTS | {"data": "ffff"}}, "images: 'narrow' has ffff, here is 0a1b"),
        ({"semantics": spec.SEMANTICS_VERSION - 1}, "'narrow' was begun by another version of tlopt"),
    ],
)
def test_values_of_other_images_or_meanings_are_not_carried_over_but_the_best_points_are(
    changes: dict[str, Any], reason: str
) -> None:
    ended = [trial(0, 0.5, lr=0.002), trial(1, 0.75, lr=0.003), trial(2, None), trial(3, 0.25, lr=0.004)]

    warm = planned(earlier(*ended, **changes), named(WIDE, "wide", trials=8))

    assert warm.carried == ()
    assert [row["params"]["lr"] for row in warm.enqueued] == [0.003, 0.002]  # a quarter of the budget
    assert [row["origin"]["trial"] for row in warm.enqueued] == [1, 0]
    assert f"({reason}); its 2 best points are trained again" in warm.summary


def test_points_get_the_epochs_and_the_resolution_of_the_new_study() -> None:
    ended = [trial(0, 0.5, epochs=10, lr=0.002), trial(1, 0.75, epochs=10, lr=0.002)]

    warm = planned(earlier(*ended))

    assert (warm.carried, len(warm.enqueued)) == ((), 1)  # they are one point there
    assert "its trials have other epochs or another resolution" in warm.summary
    assert "its best point is trained again" in warm.summary


def test_an_initial_point_is_not_enqueued_beside_itself() -> None:
    study = named(WIDE, "wide", trials=400)
    plan = search_plan(study, FACTS, 1)
    ended = [trial(number, 0.9 - number / 100, lr=PLAIN.lr + number * 1e-3) for number in range(9)]

    warm = planned(
        earlier(*ended, fingerprints=FINGERPRINTS | {"data": "ffff"}),
        study,
        initial_points=plan.initial_points(()),
    )

    numbers = [row["origin"]["trial"] for row in warm.enqueued]
    assert numbers == list(range(1, ENQUEUED_MAX + 1))  # 0 is plain fine-tuning


def test_an_exports_point_is_enqueued_and_refused_outside_of_the_ranges() -> None:
    study = named(NARROW, "wide")
    warm = warm_start.from_point("exports/x", replace(PLAIN, lr=0.005), study, FACTS, initial_points=())

    (row,) = warm.enqueued
    assert (row["params"]["lr"], row["origin"]) == (
        0.005,
        {"study": "exports/x", "trial": None, "began": None},
    )
    with pytest.raises(Refused, match=r"lr 0\.5 lies outside 0\.001 to 0\.01"):
        warm_start.from_point("exports/x", replace(PLAIN, lr=0.5), study, FACTS, initial_points=())


KEPT = WIDE + "\nnorm_depth = { int = [0, 17] }"


def test_a_trial_that_kept_statistics_is_left_out_where_none_are_kept() -> None:
    assert "norm_depth 9 is 0 here" in left_out(trial(3, norm_depth=9))
    assert planned(earlier(trial(3, norm_depth=9)), named(KEPT, "kept")).carried == (3,)


# In the study


@pytest.mark.parametrize("key", ["summary", "said"])  # "said" in studies begun with 0.2.0
def test_a_stored_warm_start_is_read_back(key: str) -> None:
    warm = planned(earlier(trial(3)))
    stored = {key if name == "summary" else name: value for name, value in warm.as_attribute().items()}

    assert warm.summary
    assert WarmStart.from_attribute(stored) == warm


def begun(url: str, warm: WarmStart) -> optuna.Study:
    study = named(WIDE, "wide")
    choices = attributes.SharedChoices(
        threads=1, numerics={}, images={}, defaults=(), warm_start=warm.as_attribute()
    )
    text = tiny.text(WIDE).replace("planted", "wide")
    return studies.create_or_open(
        studies.open_storage(url), study, file_text=text, fingerprints={}, choices=choices
    )


@pytest.mark.parametrize("batch_norm", [True, False])
def test_trials_from_before_statistics_could_be_kept_inform_a_search_of_them(
    tmp_path: Path, batch_norm: bool
) -> None:
    facts, study = tiny.facts(batch_norm=batch_norm), named(KEPT, "kept")
    before = earlier(trial(3, lr=0.002))
    warm = warm_start.from_study(
        before, study, facts, fingerprints=FINGERPRINTS, semantics=spec.SEMANTICS_VERSION, initial_points=()
    )
    choices = attributes.SharedChoices(
        threads=1, numerics={}, images={}, defaults=(), warm_start=warm.as_attribute()
    )
    opened = studies.create_or_open(
        studies.open_storage(f"sqlite:///{tmp_path}/a.db"),
        study,
        file_text=tiny.text(KEPT).replace("planted", "kept"),
        fingerprints={},
        choices=choices,
    )

    warm_start.carry_over(opened, warm, before, study, facts)

    (seen,) = search_plan(study, facts, 1).sampler_trials(opened.get_trials())
    expected = {"lr": 0.002, "freeze_depth": 0} | ({"norm_depth": 0} if batch_norm else {})
    assert seen.params == expected


def carry(opened: optuna.Study, before: Earlier) -> None:
    warm = WarmStart.from_attribute(opened.user_attrs[attributes.WARM_START])
    warm_start.carry_over(opened, warm, before, named(WIDE, "wide"), FACTS)


def taken(opened: optuna.Study) -> list[tuple[int, int, float | None]]:
    """Number, number in the earlier study and value of each trial."""
    return [
        (t.number, t.user_attrs[attributes.ORIGIN]["trial"], t.value)
        for t in opened.get_trials(deepcopy=False)
    ]


BEFORE = earlier(*(trial(n, n / 8 if n % 4 else None, lr=0.002 + n / 1000) for n in range(7)))
EXPECTED = [(n, n, n / 8 if n % 4 else None) for n in range(7)]


def test_a_carried_trial_is_the_earlier_one_in_the_new_space(storage_url: str) -> None:
    opened = begun(storage_url, planned(BEFORE))

    carry(opened, BEFORE)

    trials = opened.get_trials(deepcopy=False)
    assert taken(opened) == EXPECTED
    assert all(each.distributions == search_space(named(WIDE, "wide")) for each in trials)
    assert [each.params["lr"] for each in trials] == [0.002 + n / 1000 for n in range(7)]
    assert trials[1].intermediate_values == BEFORE.trials[1].intermediate_values
    record = TrialRecord.from_frozen(trials[1])
    assert (record.label, record.is_carried, record.counts) == ("trial 1 of narrow", True, False)
    assert record.metrics == {"log_loss": 0.75}
    assert Point.stored(record.point, "it").lr == 0.003


def test_workers_that_start_together_carry_over_once_and_in_order(storage_url: str) -> None:
    warm, n = planned(BEFORE), 4
    together = Barrier(n)

    def start(_: int) -> None:
        opened = begun(storage_url, warm)
        together.wait(60)
        carry(opened, BEFORE)

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(start, range(n)))

    assert taken(begun(storage_url, warm)) == EXPECTED


def test_a_start_that_is_killed_half_way_is_completed_by_the_next(storage_url: str) -> None:
    warm = planned(BEFORE)

    def killed_after_three() -> None:
        opened = begun(storage_url, warm)
        add, n_added = opened.add_trial, 0

        def add_or_die(each: FrozenTrial) -> None:
            nonlocal n_added
            if n_added == 3:
                os._exit(9)
            add(each)
            n_added += 1

        opened.add_trial = add_or_die  # type: ignore[method-assign]
        carry(opened, BEFORE)

    process = multiprocessing.get_context("fork").Process(target=killed_after_three)
    process.start()
    process.join(60)
    opened = begun(storage_url, warm)
    assert (process.exitcode, taken(opened)) == (9, EXPECTED[:3])
    assert warm_start.n_missing(opened, warm) == 4

    carry(opened, BEFORE)

    assert taken(opened) == EXPECTED
    assert warm_start.n_missing(opened, warm) == 0


def test_points_are_enqueued_once_and_count_as_trials_of_the_study(storage_url: str) -> None:
    warm = planned(earlier(*BEFORE.trials, fingerprints=FINGERPRINTS | {"data": "ffff"}))
    opened = begun(storage_url, warm)

    warm_start.enqueue(opened, warm)
    warm_start.enqueue(begun(storage_url, warm), warm)

    waiting = opened.get_trials(deepcopy=False)
    assert [each.state for each in waiting] == [TrialState.WAITING] * ENQUEUED_MAX
    first = TrialRecord.from_frozen(waiting[0])
    assert first.notes == ("the point of trial 6 of narrow, by warm_start",)
    assert (first.is_carried, first.origin) == (False, {"study": "narrow", "trial": 6, "began": BEGAN})


def test_what_was_carried_over_keeps_its_first_name_when_carried_over_again(storage_url: str) -> None:
    opened = begun(storage_url, planned(BEFORE))
    carry(opened, BEFORE)
    again = earlier(*opened.get_trials(deepcopy=False), study=named(WIDE, "wide"), began=2e9)

    assert planned(again).carried == tuple(range(7))
    assert [again.origin(each)["study"] for each in again.trials] == ["narrow"] * 7


# The search that goes on from there


def test_an_initial_point_that_was_carried_over_is_not_run_again(storage_url: str) -> None:
    study = named(WIDE, "wide")
    initial = search_plan(study, FACTS, 1).initial_points(())
    before = earlier(trial(0, 0.5))  # plain fine-tuning
    opened = begun(storage_url, planned(before))
    carry(opened, before)

    drawing = opened.ask()

    found = next_initial_point(initial, opened.get_trials(deepcopy=False), drawing.number)
    assert found == initial[0]
    remaining: Sequence[Any] = [initial[1]]
    assert next_initial_point(remaining, opened.get_trials(deepcopy=False), drawing.number) is None
