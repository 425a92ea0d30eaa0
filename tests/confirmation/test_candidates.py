"""Which points are confirmed, how their runs are summarised, and who reads the test split, how often."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import tiny
from optuna.trial import TrialState

from tlopt.confirmation.candidates import (
    CANDIDATES,
    add_candidates,
    belongs,
    combined_test,
    find_candidates,
    read_verdict,
    record_combined_test,
    record_test,
    stored_candidates,
    stored_race,
    wants_test,
)
from tlopt.confirmation.companion import open_companion
from tlopt.confirmation.evidence import ODDS_MIN
from tlopt.errors import NotReady, StorageError, StudyChanged
from tlopt.search.defaults import defaults
from tlopt.search.plan import confirm_plan, confirm_seed
from tlopt.search.race import KEPT, PLAIN, PROBE, Candidate
from tlopt.search.samplers import InitialPointsSampler
from tlopt.spec import Study
from tlopt.spec.default_names import KEPT_LABEL, PARTLY_LABEL, PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import Point
from tlopt.storage import attributes
from tlopt.storage.studies import create_or_open, open_storage

SEARCH = "freeze_depth = { int = [0, 17] }\nlr = { log = [1e-4, 1.0] }"
CONFIRM = "[confirm]\npoints = 2\nseeds = 3"
STUDY = tiny.study(SEARCH, more=CONFIRM)
TEXT = tiny.text(SEARCH, more=CONFIRM)
FACTS = tiny.facts()
FINGERPRINTS: dict[str, str | int] = {"data": "0a1b"}
PROBE_POINT, PLAIN_POINT, KEPT_POINT, PARTLY_POINT = (default.point for default in defaults(STUDY, FACTS))


def at(lr: float) -> Point:
    return replace(PLAIN_POINT, lr=lr)


def add_trial(
    to: optuna.Study,
    value: float | None,
    point: Point,
    *,
    state: TrialState = TrialState.COMPLETE,
    log_loss: float = 0.5,
    params: dict[str, int] | None = None,
    outcome: str = "",
    constraints: dict[str, float] | None = None,
) -> None:
    """A finished trial as a worker leaves it."""
    whole = optuna.distributions.IntDistribution(-2, 10_000_000)
    result = {
        "outcome": outcome or state.name.lower(),
        "metrics": {"accuracy": value, "log_loss": log_loss},
    }
    to.add_trial(
        optuna.create_trial(
            state=state,
            value=value,
            params=params or {},
            distributions=dict.fromkeys(params or {}, whole),
            user_attrs={attributes.POINT: point.as_dict(), attributes.TRIAL_RESULT: result},
            constraints=constraints,
        )
    )


@pytest.fixture
def store(tmp_path: Path) -> optuna.storages.BaseStorage:
    return open_storage(f"sqlite:///{tmp_path}/tlopt.db")


@pytest.fixture
def searched(store: optuna.storages.BaseStorage) -> optuna.Study:
    return create_or_open(store, STUDY, file_text=TEXT, fingerprints=FINGERPRINTS)


def found(searched: optuna.Study, study: Study = STUDY) -> list[tuple[int, str]]:
    return [(c.number, c.label) for c in find_candidates(study, searched, FACTS)]


# Candidates


def test_the_defaults_and_the_best_points_are_confirmed(searched: optuna.Study) -> None:
    for value, lr in ((0.25, 0.2), (0.75, 0.3), (0.5, 0.4)):
        add_trial(searched, value, at(lr))

    candidates = find_candidates(STUDY, searched, FACTS)

    assert [(c.number, c.label) for c in candidates] == [
        (PROBE, PROBE_LABEL),
        (PLAIN, PLAIN_LABEL),
        (1, "trial 1"),
        (2, "trial 2"),
    ]
    assert [c.point for c in candidates] == [PROBE_POINT, PLAIN_POINT, at(0.3), at(0.4)]


def test_a_trial_that_tlopt_did_not_run_is_confirmed_where_its_parameters_are_a_point(
    searched: optuna.Study, store: optuna.storages.BaseStorage, caplog: pytest.LogCaptureFixture
) -> None:
    real = optuna.distributions.FloatDistribution(-99.0, 99.0)
    for params in ({"freeze_depth": 3.0, "lr": 0.3}, {"freeze_depth": 3.0, "lr": 5.0}, {"lr": 0.3}, {}):
        searched.add_trial(
            optuna.create_trial(value=0.75, params=params, distributions=dict.fromkeys(params, real))
        )
    add_trial(searched, 0.5, at(0.2))

    candidates = find_candidates(STUDY, searched, FACTS)

    assert [candidate.number for candidate in candidates[2:]] == [0, 4]
    assert candidates[2].point == replace(at(0.3), freeze_depth=3)
    assert "trial 1 of planted was not run by tlopt and is left out: lr = 5.0" in caplog.text
    assert "trial 2 of planted was not run by tlopt and is left out: it has no freeze_depth" in caplog.text
    confirmation = opened(store, *candidates)
    assert belongs(confirmation, searched)


def test_no_point_of_an_infeasible_trial_is_a_candidate_a_default_included(searched: optuna.Study) -> None:
    for value, point, flops in ((1.0, at(0.3), 0.25), (0.5, at(0.2), -0.25), (0.9, PLAIN_POINT, 0.125)):
        add_trial(searched, value, point, constraints={"flops": flops})
    add_trial(searched, 0.75, at(0.3))  # a repeat of the infeasible point that says nothing of its constraint

    assert found(searched) == [(PROBE, PROBE_LABEL), (1, "trial 1")]


def test_a_foreign_trial_that_is_infeasible_is_no_candidate(searched: optuna.Study) -> None:
    real = optuna.distributions.FloatDistribution(-99.0, 99.0)
    params = {"freeze_depth": 3.0, "lr": 0.3}
    searched.add_trial(
        optuna.create_trial(
            value=0.75, params=params, distributions=dict.fromkeys(params, real), constraints={"flops": 1.0}
        )
    )
    add_trial(searched, 0.5, at(0.2))

    assert [number for number, _ in found(searched)[2:]] == [1]


def test_a_search_without_a_feasible_trial_says_so(searched: optuna.Study) -> None:
    add_trial(searched, 0.5, at(0.2), constraints={"flops": 0.25})

    with pytest.raises(NotReady, match="1 infeasible; the first cause: breaks flops by"):
        find_candidates(STUDY, searched, FACTS)


def test_a_candidate_with_an_infeasible_run_is_never_chosen(
    searched: optuna.Study, store: optuna.storages.BaseStorage
) -> None:
    confirmation = opened(store, Candidate(0, "trial 0", at(0.3)), Candidate(PLAIN, PLAIN_LABEL, PLAIN_POINT))
    for number, value, flops in ((0, 1.0, 0.25), (PLAIN, 0.5, -0.25)):
        params = {"candidate": number, "replicate": 0}
        add_trial(confirmation, value, at(0.3), params=params, constraints={"flops": flops})

    verdict = read_verdict(STUDY, confirmation)

    assert (verdict.chosen.label, verdict.rows[1].val) == (PLAIN_LABEL, ())


def test_the_lowest_log_loss_is_the_best() -> None:
    minimising = STUDY.model_copy(update={"objective": "log_loss"})
    searched = optuna.create_study(direction="minimize")
    for value, lr in ((0.25, 0.2), (0.75, 0.3), (0.5, 0.4)):
        add_trial(searched, value, at(lr))

    assert [number for number, _ in found(searched, minimising)[2:]] == [0, 2]


def test_among_equal_values_the_lower_log_loss_comes_first(searched: optuna.Study) -> None:
    for log_loss, lr in ((0.5, 0.2), (0.125, 0.3), (0.25, 0.4)):
        add_trial(searched, 0.75, at(lr), log_loss=log_loss)

    assert [number for number, _ in found(searched)[2:]] == [1, 2]


def test_a_point_is_confirmed_once(searched: optuna.Study) -> None:
    for point in (PLAIN_POINT, at(0.3), at(0.3), PROBE_POINT, at(0.4)):
        add_trial(searched, 0.75, point)

    assert [number for number, _ in found(searched)] == [PROBE, PLAIN, 1, 4]


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL])
def test_only_complete_trials_are_confirmed(searched: optuna.Study, state: TrialState) -> None:
    add_trial(searched, 0.25, at(0.3))
    add_trial(searched, 0.75 if state == TrialState.PRUNED else None, at(0.4), state=state)

    assert [number for number, _ in found(searched)] == [PROBE, PLAIN, 0]


def test_a_search_without_a_complete_trial_cannot_be_confirmed(searched: optuna.Study) -> None:
    add_trial(searched, 0.75, at(0.4), state=TrialState.PRUNED)

    with pytest.raises(NotReady, match="planted has no complete trial to confirm: 1 pruned"):
        find_candidates(STUDY, searched, FACTS)
    with pytest.raises(NotReady, match=r"1 pruned\nthe hours are over, or start a study") as late:
        find_candidates(STUDY, searched, FACTS, late="the hours are over")
    assert "budget.trials" not in str(late.value)


def test_where_trials_break_limits_a_higher_one_is_the_cure(searched: optuna.Study) -> None:
    add_trial(searched, 0.75, at(0.4), state=TrialState.PRUNED)
    add_trial(searched, 0.75, at(0.3), state=TrialState.PRUNED, outcome="infeasible")

    with pytest.raises(NotReady, match=r"1 pruned, 1 infeasible(?s:.*)a higher limit in \[constraints\]$"):
        find_candidates(STUDY, searched, FACTS)


def test_a_study_is_confirmed_with_the_defaults_that_it_began_with(
    searched: optuna.Study, store: optuna.storages.BaseStorage
) -> None:
    add_trial(searched, 0.75, at(0.3))
    begun_by_an_earlier_version = found(searched)
    searched.set_user_attr(attributes.DEFAULTS, [{"label": d.label} for d in defaults(STUDY, FACTS)])

    candidates = find_candidates(STUDY, searched, FACTS)

    assert begun_by_an_earlier_version == [(PROBE, PROBE_LABEL), (PLAIN, PLAIN_LABEL), (0, "trial 0")]
    assert found(searched)[:3] == [(PROBE, PROBE_LABEL), (PLAIN, PLAIN_LABEL), (KEPT, KEPT_LABEL)]
    assert candidates[2].point == KEPT_POINT
    assert stored_candidates(opened(store, *candidates)) == candidates


# The study of the confirmation


def opened(store: optuna.storages.BaseStorage, *candidates: Candidate, **changes: Any) -> optuna.Study:
    study = STUDY.model_copy(update=changes)
    search = create_or_open(store, STUDY, file_text=TEXT, fingerprints=FINGERPRINTS)
    name = f"{study.name}.confirm"
    confirmation = open_companion(
        store,
        study,
        name=name,
        list_of=CANDIDATES,
        search=search,
        file_text=TEXT,
        fingerprints=FINGERPRINTS,
    )
    add_candidates(confirmation, candidates, study, odds=ODDS_MIN)
    return confirmation


# Whose confirmation it is


def test_a_confirmation_is_of_the_search_it_was_begun_for(
    store: optuna.storages.BaseStorage, searched: optuna.Study
) -> None:
    add_trial(searched, 0.75, at(0.3))
    confirmation = opened(store, Candidate(0, "trial 0", at(0.3)), Candidate(PROBE, PROBE_LABEL, PROBE_POINT))

    assert belongs(confirmation, searched)


def test_a_confirmation_of_a_deleted_search_is_not_that_of_the_next(
    store: optuna.storages.BaseStorage, searched: optuna.Study, tmp_path: Path
) -> None:
    add_trial(searched, 0.75, at(0.3))
    confirmation = opened(store, Candidate(0, "trial 0", at(0.3)))
    optuna.delete_study(study_name=STUDY.name, storage=store)
    later = open_storage(f"sqlite:///{tmp_path}/tlopt.db")  # another process
    again = create_or_open(later, STUDY, file_text=TEXT, fingerprints=FINGERPRINTS)
    add_trial(again, 0.75, at(0.3))  # even where it draws the same point

    assert not belongs(confirmation, again)


@pytest.mark.parametrize(("lr", "belonging"), [(0.3, True), (0.4, False)])
def test_a_confirmation_of_an_earlier_version_is_known_by_its_points(
    store: optuna.storages.BaseStorage, searched: optuna.Study, lr: float, belonging: bool
) -> None:
    add_trial(searched, 0.75, at(lr))
    earlier = optuna.create_study(study_name="planted.confirm", storage=store)
    earlier.set_user_attr(CANDIDATES, [{"number": 0, "label": "trial 0", "point": at(0.3).as_dict()}])

    assert belongs(earlier, searched) is belonging


def test_a_candidate_whose_trial_lacks_a_key_is_named(
    store: optuna.storages.BaseStorage, searched: optuna.Study
) -> None:
    lacking = {key: value for key, value in at(0.3).as_dict().items() if key != "lr"}
    add_trial(searched, 0.5, at(0.2))
    searched.add_trial(optuna.create_trial(value=0.75, user_attrs={attributes.POINT: lacking}))
    confirmation = opened(store, Candidate(1, "trial 1", at(0.3)))

    with pytest.raises(StorageError, match="trial 1 of planted: its point lacks the key lr;"):
        belongs(confirmation, searched)


BEST = Candidate(12, "trial 12", at(0.3))
SECOND = Candidate(5, "trial 5", at(0.4))
PROBED = Candidate(PROBE, PROBE_LABEL, PROBE_POINT)
PLAINED = Candidate(PLAIN, PLAIN_LABEL, PLAIN_POINT)


def test_a_confirmation_is_a_plain_study_beside_the_search(store: optuna.storages.BaseStorage) -> None:
    confirmation = opened(store, PROBED, PLAINED, BEST)

    assert confirmation.study_name == "planted.confirm"
    assert stored_candidates(confirmation) == (PROBED, PLAINED, BEST)


def test_new_candidates_join_those_that_are_there(store: optuna.storages.BaseStorage) -> None:
    opened(store, PROBED, BEST)

    again = opened(store, PROBED, SECOND)

    assert stored_candidates(again) == (PROBED, BEST, SECOND)


def test_a_worker_that_joins_changes_no_candidates(store: optuna.storages.BaseStorage) -> None:
    opened(store, PROBED, BEST)

    assert stored_candidates(opened(store)) == (PROBED, BEST)


def test_a_confirmation_without_candidates_was_not_begun(store: optuna.storages.BaseStorage) -> None:
    with pytest.raises(NotReady, match="tlopt confirm"):
        stored_candidates(opened(store))


def test_a_confirmation_of_another_meaning_is_refused(store: optuna.storages.BaseStorage) -> None:
    opened(store, BEST)

    with pytest.raises(StudyChanged, match="objective"):
        opened(store, BEST, objective="macro_f1")


def test_only_runs_that_are_missing_are_drawn_after_a_candidate_joined(
    store: optuna.storages.BaseStorage,
) -> None:
    def drawn(*candidates: Candidate) -> list[tuple[int, int]]:
        confirmation = opened(store, *candidates)
        race = stored_race(STUDY, confirmation)
        plan = confirm_plan(STUDY, race, lambda _: 0, lambda number, replicate: Path("none"))
        confirmation.sampler = InitialPointsSampler(plan.initial_points, STUDY.sampler, seed=1)
        while len(confirmation.trials) < plan.n_open(confirmation):
            trial = confirmation.ask()
            trial.set_user_attr(attributes.POINT, plan.draw(trial).point.as_dict())
            confirmation.tell(trial, 0.5)
        return [(t.params["candidate"], t.params["replicate"]) for t in confirmation.trials]

    first = drawn(PROBED, BEST)
    after = drawn(PROBED, BEST, SECOND)

    assert first == [(n, r) for r in range(3) for n in (PROBE, 12)]
    assert after == [*first, (5, 0), (5, 1), (5, 2)]


# Its verdict


@pytest.fixture
def confirmation(store: optuna.storages.BaseStorage) -> optuna.Study:
    return opened(store, PROBED, PLAINED, BEST, SECOND)


@pytest.fixture
def ran(confirmation: optuna.Study) -> Callable[..., None]:
    """Adds runs of a candidate, one for each value."""

    def add(of: Candidate, *values: float, first: int = 0, **changes: Any) -> None:
        for replicate, value in enumerate(values, first):
            params = {"candidate": of.number, "replicate": replicate}
            add_trial(confirmation, value, of.point, params=params, log_loss=1 - value, **changes)

    return add


def test_a_verdict_has_every_run_of_every_candidate(
    confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    ran(PLAINED, 0.5, 0.5, 0.5)
    ran(BEST, 0.5, 0.75, 1.0)
    ran(SECOND, 0.75, 0.75, 0.875)
    ran(PROBED, 0.25, 0.25, 0.25)

    verdict = read_verdict(STUDY, confirmation)

    assert verdict.finished
    assert (verdict.n_finished, verdict.n_expected) == (12, 12)
    assert [row.label for row in verdict.rows] == ["trial 5", "trial 12", PLAIN_LABEL, PROBE_LABEL]
    assert [row["accuracy"] for row in verdict.rows[1].val] == [0.5, 0.75, 1.0]
    assert verdict.rows[1].point == BEST.point
    assert verdict.rows[1].seeds == tuple(confirm_seed(STUDY, r) for r in range(3))


def test_runs_stand_in_the_order_of_their_seeds(confirmation: optuna.Study, ran: Callable[..., None]) -> None:
    for replicate in (2, 0, 1):
        ran(BEST, replicate / 4, first=replicate)

    best = read_verdict(STUDY, confirmation).row("trial 12")

    assert best is not None
    assert [row["accuracy"] for row in best.val] == [0.0, 0.25, 0.5]


def test_a_confirmation_with_runs_to_go_is_not_finished(
    confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    ran(BEST, 0.5)
    ran(PROBED, 0.25)
    add_trial(confirmation, None, at(0.4), state=TrialState.FAIL, params={"candidate": 5, "replicate": 0})

    verdict = read_verdict(STUDY, confirmation)

    assert not verdict.finished
    assert (verdict.n_finished, verdict.n_expected) == (2, 12)


@pytest.mark.parametrize("outcome", ["diverged", "out_of_memory"])
def test_a_candidate_with_one_run_without_a_value_is_never_chosen(
    outcome: str, confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    ran(PROBED, 0.25, 0.25, 0.25)
    ran(BEST, 1.0, 1.0)
    ran(BEST, 0.0, first=2, state=TrialState.PRUNED, outcome=outcome)

    verdict = read_verdict(STUDY, confirmation)

    assert verdict.chosen.label == PROBE_LABEL
    best = verdict.row("trial 12")
    assert best is not None
    assert best.val == ()


def test_more_seeds_than_before_leave_a_confirmation_unfinished(
    confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    for candidate in (PROBED, PLAINED, BEST, SECOND):
        ran(candidate, 0.5, 0.5, 0.5)
    more = tiny.study(SEARCH, more="[confirm]\npoints = 2\nseeds = 5")

    verdict = read_verdict(more, confirmation)

    assert (verdict.finished, verdict.n_expected) == (False, 20)


@pytest.mark.parametrize(("n_images", "chosen"), [(48, PLAIN_LABEL), (100_000, "trial 12")])
def test_a_point_is_chosen_over_the_default_by_the_evidence_of_the_images(
    n_images: int, chosen: str, confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    for candidate, value in ((PROBED, 0.25), (PLAINED, 0.80), (SECOND, 0.75), (BEST, 0.81)):
        ran(candidate, value, value, value)

    verdict = read_verdict(STUDY, confirmation, n_images={"val": n_images})

    assert verdict.chosen.label == chosen
    assert verdict.odds_min == ODDS_MIN
    assert verdict.preferred == PARTLY_LABEL


@pytest.mark.parametrize(
    ("began_with", "seeds", "n_splits", "odds"),
    [
        (1.5, 3, 3, 1.5),
        (1.5, 4, 3, ODDS_MIN),
        (2.0, 4, 3, ODDS_MIN),
        (1.5, 3, 4, 1.5),
        (6.0, 4, 3, 6.0),  # of shared splits from its beginning, by whatever rule
        (ODDS_MIN, 5, 1, ODDS_MIN),
        (0.0, 4, 3, 0.0),  # an earlier version began it, without a rule
    ],
)
def test_odds_for_a_split_of_each_seed_hold_no_longer_once_seeds_share_splits(
    began_with: float, seeds: int, n_splits: int, odds: float, confirmation: optuna.Study
) -> None:
    confirmation.set_user_attr(attributes.ODDS, began_with)
    more = tiny.study(SEARCH, more=f"[confirm]\npoints = 2\nseeds = {seeds}")

    assert read_verdict(more, confirmation, n_images={"val": 48}, n_splits=n_splits).odds_min == odds
    assert confirmation.user_attrs[attributes.ODDS] == began_with


def test_nothing_is_settled_before_every_run_has_ended(
    confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    for candidate, value in ((PROBED, 0.25), (PLAINED, 0.80), (BEST, 0.81)):
        ran(candidate, value, value, value)

    assert read_verdict(STUDY, confirmation, n_images={"val": 48}).chosen.label == "trial 12"


def test_a_confirmation_that_an_earlier_version_began_keeps_its_choice(
    confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    earlier = {name: value for name, value in confirmation.user_attrs.items() if name != attributes.ODDS}
    before = optuna.create_study(study_name=confirmation.study_name, direction="maximize")
    for name, value in earlier.items():
        before.set_user_attr(name, value)
    for candidate, value in ((PROBED, 0.25), (PLAINED, 0.80), (SECOND, 0.75), (BEST, 0.81)):
        ran(candidate, value, value, value)
    for trial in confirmation.get_trials():
        before.add_trial(trial)

    verdict = read_verdict(STUDY, before, n_images={"val": 48})

    assert (verdict.finished, verdict.chosen.label) == (True, "trial 12")


# The test


def test_the_test_is_wanted_for_the_chosen_one_and_the_defaults(
    confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    for candidate, value in ((PROBED, 0.25), (PLAINED, 0.5), (SECOND, 0.75), (BEST, 1.0)):
        ran(candidate, value, value, value)

    verdict = read_verdict(STUDY, confirmation)

    assert [row.label for row in wants_test(verdict)] == ["trial 12", PROBE_LABEL, PLAIN_LABEL]


def test_a_chosen_default_is_wanted_once(confirmation: optuna.Study, ran: Callable[..., None]) -> None:
    for candidate, value in ((PROBED, 0.25), (PLAINED, 1.0), (SECOND, 0.75), (BEST, 0.5)):
        ran(candidate, value, value, value)

    assert [row.number for row in wants_test(read_verdict(STUDY, confirmation))] == [PLAIN, PROBE]


def test_nothing_is_wanted_for_a_default_without_a_value(
    confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    ran(BEST, 0.5, 0.5, 0.5)
    ran(PROBED, 0.5, 0.5, 0.5, state=TrialState.PRUNED, outcome="diverged")

    assert [row.label for row in wants_test(read_verdict(STUDY, confirmation))] == ["trial 12"]


def test_what_the_test_said_is_kept_and_counted(confirmation: optuna.Study, ran: Callable[..., None]) -> None:
    for candidate, value in ((PROBED, 0.25), (PLAINED, 0.5), (BEST, 1.0), (SECOND, 0.75)):
        ran(candidate, value, value, value)
    said = [{"accuracy": 0.5, "log_loss": 0.25}] * 3

    record_test(confirmation, {12: said, PROBE: said, PLAIN: said})
    verdict = read_verdict(STUDY, confirmation)

    assert verdict.chosen.test == tuple(said)
    assert verdict.test_readings == 1
    assert wants_test(verdict) == ()


def test_another_choice_later_reads_the_test_again_and_says_so(
    confirmation: optuna.Study, ran: Callable[..., None]
) -> None:
    for candidate, value in ((PROBED, 0.25), (PLAINED, 0.5), (BEST, 0.75)):
        ran(candidate, value, value, value)
    said = [{"accuracy": 0.5, "log_loss": 0.25}] * 3
    record_test(confirmation, {12: said, PROBE: said, PLAIN: said})

    ran(SECOND, 1.0, 1.0, 1.0)
    (wanted,) = wants_test(read_verdict(STUDY, confirmation))
    record_test(confirmation, {wanted.number: said})

    verdict = read_verdict(STUDY, confirmation)
    assert (wanted.label, verdict.test_readings) == ("trial 5", 2)
    assert all(row.test == tuple(said) for row in verdict.rows)


def test_the_test_of_a_combination_is_kept_by_its_members_and_counted(confirmation: optuna.Study) -> None:
    record_combined_test(confirmation, "soup 12/0 -1/2", {"accuracy": 0.5})
    record_combined_test(confirmation, "ensemble 12/0 12/1", {"accuracy": 0.75})

    assert combined_test(confirmation, "soup 12/0 -1/2") == {"accuracy": 0.5}
    assert combined_test(confirmation, "soup 12/0 -1/1") is None
    assert confirmation.user_attrs[attributes.TEST_READINGS] == 2


def test_trials_that_have_drawn_nothing_yet_are_no_runs(confirmation: optuna.Study) -> None:
    confirmation.ask()

    assert read_verdict(STUDY, confirmation).n_finished == 0
