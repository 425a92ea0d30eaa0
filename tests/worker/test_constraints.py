"""Networks beyond `[constraints]` are recorded without training, steer the sampler, and are never chosen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from optuna.trial import TrialState
from pausing import records

from tlopt.analysis.causes import causes
from tlopt.analysis.front import shown_costs
from tlopt.confirmation.candidates import find_candidates
from tlopt.errors import NotReady
from tlopt.search.defaults import defaults
from tlopt.spec.outcome import Outcome
from tlopt.spec.point import Point
from tlopt.trial.workspace import Workspace

SIDES = "resolution = { choice = [32, 64] }\nlr = { log = [1e-4, 1e-2] }"
N_CLASSES = 3


@pytest.fixture
def place(
    tmp_path: Path,
    study_text: Callable[..., str],
    workshop: tiny.Workshop,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tiny.Place]:
    """A place whose trials train nothing and reach 0.9 at 64 pixels, 0.8 at 32; `limits` are constraints."""
    tiny.plant(monkeypatch, lambda point: [0.9 if point.resolution == 64 else 0.8] * point.epochs)

    def make(limits: str, *, sampler: str = "tpe", search: str = SIDES, trials: int = 12) -> tiny.Place:
        text = tiny.lighter(study_text(name=tmp_path.name, trials=trials, epochs=2))
        head, _, _ = text.partition("[search]")
        tables = f'[sampler]\nkind = "{sampler}"\n[pruner]\nkind = "none"\n'
        limited = f"[constraints]\n{limits}\n" if limits else ""
        return tiny.place(f"{head}[search]\n{search}\n{tables}{limited}", workshop, tmp_path / "runs")

    return make


def costs_at(here: tiny.Place, side: int) -> dict[str, float]:
    """What the network costs at a resolution, counted by itself."""
    point = next(iter(defaults(here.study, here.workspace.facts))).point
    return here.workspace.inference_cost(Point.from_dict(point.as_dict() | {"resolution": side}))


def test_every_trial_records_what_its_network_costs(place: Callable[..., tiny.Place]) -> None:
    here = place("", trials=6)
    here.work()

    found = records(here)

    assert {row.point["resolution"] for row in found if row.point} == {32, 64}
    for row in found:
        assert row.point is not None
        assert row.inference_cost == costs_at(here, row.point["resolution"])
    assert shown_costs(here.study, found) == ("multiply_adds",)


def test_a_cost_that_never_differs_is_not_shown(place: Callable[..., tiny.Place]) -> None:
    here = place("", search="resolution = 32\nlr = { log = [1e-4, 1e-2] }", trials=3)
    here.work()

    assert all(row.inference_cost.keys() == {"parameters", "multiply_adds", "bytes"} for row in records(here))
    assert shown_costs(here.study, records(here)) == ()


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_a_network_beyond_a_limit_is_recorded_without_training(
    place: Callable[..., tiny.Place], sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def start_run(workspace: Workspace, point: Point, **_: Any) -> Point:
        trained.append(point.resolution)
        return point

    monkeypatch.setattr(Workspace, "start_run", start_run)
    here = place("multiply_adds = 4e6", sampler=sampler, trials=14)
    within, beyond = (costs_at(here, side)["multiply_adds"] for side in (32, 64))
    assert within < 4e6 < beyond

    assert here.work() == 14

    found = records(here)
    large = [row for row in found if row.point and row.point["resolution"] == 64]
    assert large
    assert {row.outcome for row in large} == {Outcome.INFEASIBLE}
    assert {row.state for row in large} == {TrialState.PRUNED}
    assert {row.last_epoch for row in large} == {None}
    assert large[0].violations == {"multiply_adds": pytest.approx(beyond / 4e6 - 1)}
    assert {row.outcome for row in found if row not in large} == {Outcome.COMPLETE}
    assert set(trained) == {32}
    assert here.opened.best_trial.params["resolution"] == 32


def test_the_sampler_turns_to_networks_within_the_limit(place: Callable[..., tiny.Place]) -> None:
    here = place("multiply_adds = 4e6", trials=40)
    here.work()

    late = [row for row in records(here) if row.number >= 20 and row.point]
    beyond = sum(row.outcome == Outcome.INFEASIBLE for row in late)

    assert beyond < len(late) / 4  # half of them without the constraint, by chance


def test_infeasible_points_and_defaults_are_not_confirmed(place: Callable[..., tiny.Place]) -> None:
    here = place("multiply_adds = 4e6")
    here.work()

    found = find_candidates(
        here.study,
        here.opened,
        here.workspace.facts,
        is_feasible=lambda point: not here.workspace.broken_limits(point),
    )

    assert found
    assert {candidate.point.resolution for candidate in found} == {32}
    assert any(default.point.resolution == 64 for default in defaults(here.study, here.workspace.facts))


def test_causes_say_by_how_much_limits_are_broken(place: Callable[..., tiny.Place]) -> None:
    here = place("multiply_adds = 4e6")
    here.work()
    excess = 100 * (costs_at(here, 64)["multiply_adds"] / 4e6 - 1)

    (cause,) = causes(records(here))

    assert cause.cause == f"they break multiply_adds by {excess:.3g} %"
    assert next(row for row in records(here) if row.cause).cause.startswith("multiply-adds ")


def test_where_nothing_is_feasible_the_message_says_so(place: Callable[..., tiny.Place]) -> None:
    here = place("parameters = 1000", trials=3)
    assert here.work() == 3

    with pytest.raises(NotReady, match=r"all 3 trials are infeasible; the nearest, trial \d: parameters"):
        find_candidates(here.study, here.opened, here.workspace.facts)


def test_latency_is_measured_where_it_is_limited(place: Callable[..., tiny.Place]) -> None:
    here = place("latency_ms = 1e6", trials=2)
    here.work()

    assert all(row.inference_cost["latency_ms"] > 0 for row in records(here))
    assert {row.outcome for row in records(here)} == {Outcome.COMPLETE}


def test_a_limit_does_not_change_the_digest_of_studies_without_one(
    place: Callable[..., tiny.Place],
) -> None:
    plain = place("", trials=1).study
    same = plain.model_copy(
        update={"constraints": plain.constraints.model_copy(update={"multiply_adds": 0.0})}
    )
    limited = plain.model_copy(
        update={"constraints": plain.constraints.model_copy(update={"multiply_adds": 1e6})}
    )

    assert plain.digest == same.digest
    assert plain.digest != limited.digest
