"""Properties of new ranges: the best point stays, keys allow all values, and every trial is counted."""

import random

import pytest
import searched
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlopt.analysis.explain import surface
from tlopt.analysis.explain.bounds import beyond, cut
from tlopt.analysis.explain.explanation import explain
from tlopt.search.space import check_depths, encode_point
from tlopt.search.warm_start import Earlier, from_study
from tlopt.spec import Study, search_keys
from tlopt.spec.dimensions import Int, Log, Uniform, bounds
from tlopt.spec.point import Point
from tlopt.spec.search_keys import RULES
from tlopt.storage import attributes

FACTS = tiny.facts()
SEARCH = """
transfer_depth = { int = [%d, 16] }
freeze_depth = { int = [0, %d] }
norm_depth = { int = [0, 17] }
lr = { log = [%g, 1e-2] }
lr_decay = { uniform = [%g, 1.0] }
l2_sp = { log = [1e-4, 1.0], zero = true }
augmentation = { choice = [0.2, 0.5, 0.7] }
"""


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wilder intervals, which change more ranges, in a tenth of the time."""
    monkeypatch.setattr(surface, "RESAMPLES", 10)
    monkeypatch.setattr(surface, "_DEVIATIONS", 0.5)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lowest=st.integers(0, 12),
    deepest=st.integers(3, 17),
    slowest=st.sampled_from([1e-5, 3e-4, 7e-3]),
    decay=st.integers(0, 9).map(lambda tenths: tenths / 10),
    seed=st.integers(0, 1000),
)
def test_the_best_point_stays_and_every_trial_is_carried_or_counted_out(
    lowest: int, deepest: int, slowest: float, decay: float, seed: int
) -> None:
    study = tiny.study(SEARCH % (lowest, deepest, slowest, decay))
    weights = [random.Random(seed + i).uniform(-1, 1) for i in range(5)]

    def worth(point: Point) -> float:
        terms = (
            point.transfer_depth / 17,
            point.freeze_depth / 17,
            point.lr * 100,
            point.lr_decay,
            point.l2_sp,
        )
        return 0.5 + 0.1 * sum(w * x for w, x in zip(weights, terms, strict=True))

    trials = searched.trials(study, FACTS, worth, n=20, seed=seed)

    found = explain(study, trials, n_blocks=17)
    new = _next(study, {each.key: each.after for each in found.changes})

    check_depths(new, FACTS)
    for name, dimension in new.search.items():
        assert not any(RULES[name].refuse(value) for value in bounds(dimension)), name  # type: ignore[arg-type]
        search_keys.checked(name, dimension)  # type: ignore[arg-type]
    points = [Point.from_dict(trial.user_attrs[attributes.POINT]) for trial in trials]
    best = max(range(len(trials)), key=lambda i: trials[i].value or 0.0)
    assert encode_point(points[best], new, FACTS) is not None
    inside = [trial.number for trial, p in zip(trials, points, strict=True) if encode_point(p, new, FACTS)]
    warm = _warm_start(study, new, trials)
    assert list(warm.carried) == inside
    if len(inside) < len(trials):
        assert f"{len(trials) - len(inside)} left out" in warm.summary


def _next(study: Study, changes: dict[str, object]) -> Study:
    return study.model_copy(update={"name": "second", "search": {**study.search, **changes}})


def _warm_start(study: Study, new: Study, trials: list) -> object:  # type: ignore[type-arg]
    prints = {"data": "0a", "weights": "0b"}
    earlier = Earlier(study=study, trials=trials, began=0.0, semantics=1, fingerprints=prints)
    return from_study(earlier, new, FACTS, fingerprints=prints, semantics=1, initial_points=())


RANGES = st.one_of(
    st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda pair: Int(pair[0], pair[0] + pair[1])),
    st.tuples(st.floats(-5, 5), st.floats(0.01, 5)).map(lambda pair: Uniform(pair[0], pair[0] + pair[1])),
    st.tuples(st.floats(-8, 2), st.floats(0.1, 6)).map(lambda p: Log(10 ** p[0], 10 ** (p[0] + p[1]))),
)


@given(dimension=RANGES, share=st.floats(0.0, 1.0))
def test_a_cut_never_takes_more_than_it_says(dimension: Int | Uniform | Log, share: float) -> None:
    low, high = cut(dimension, "low", share), cut(dimension, "high", share)

    match dimension:
        case Log():
            there = dimension.low * (dimension.high / dimension.low) ** share
        case _:
            there = dimension.low + share * (dimension.high - dimension.low)
    slack = 1e-6 * (abs(there) + dimension.high - dimension.low)
    assert dimension.low <= low <= there + slack
    assert there - slack <= high <= dimension.high


@given(dimension=RANGES, more=st.floats(0.0, 1e3))
def test_an_extension_is_beyond_the_end_and_within_the_limit(
    dimension: Int | Uniform | Log, more: float
) -> None:
    limit = float(round(dimension.high + more)) if isinstance(dimension, Int) else dimension.high + more

    new = beyond(dimension, "high", limit)

    assert (new is None) == (limit <= dimension.high)
    assert new is None or dimension.high < new <= limit
