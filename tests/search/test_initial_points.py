"""The points that a search starts from: their order, no repeats, and a share of the budget."""

import pytest
import tiny

from tlopt.search.defaults import defaults, initial_points, linear_points, start_point
from tlopt.search.portfolio import KEPT_STATISTICS, STARTS, TRIALS_PER_START, Start
from tlopt.search.space import Params
from tlopt.spec import Study
from tlopt.spec.default_names import KEPT_LABEL, PARTLY_LABEL, PLAIN_LABEL, PROBE_LABEL

FACTS = tiny.facts()
WIDE = """
transfer_depth = { int = [8, 17] }
freeze_depth   = { int = [0, 17] }
norm_depth     = { int = [0, 17] }
lr             = { log = [1e-4, 1.0] }
lr_ratio       = { log = [1e-2, 1.0] }
classifier     = { choice = ["network", "logistic", "svm"] }
"""

# the default of 14 kept and frozen blocks is outside; the nearest point is a start
WITHOUT_PARTLY_FROZEN = WIDE.replace("[8, 17]", "[15, 17]")


def points(study: Study) -> list[Params]:
    known = [default.params for default in defaults(study, FACTS) if default.params is not None]
    return initial_points(study, FACTS, known)


def test_linear_classifiers_come_first_then_the_defaults_by_what_they_train_then_the_learnt_points() -> None:
    study = tiny.study(WITHOUT_PARTLY_FROZEN)
    params = {default.label: default.params for default in defaults(study, FACTS)}
    found = points(study)

    assert found[:2] == linear_points(study, FACTS)
    assert found[2:5] == [params[PROBE_LABEL], params[KEPT_LABEL], params[PLAIN_LABEL]]
    assert found[5:] == [start_point(start, study, FACTS) for start in STARTS]


def test_defaults_with_the_most_frozen_blocks_come_first_then_those_with_kept_statistics() -> None:
    study = tiny.study(WIDE)
    params = {default.label: default.params for default in defaults(study, FACTS)}

    assert points(study)[2:6] == [
        params[label] for label in (PROBE_LABEL, PARTLY_LABEL, KEPT_LABEL, PLAIN_LABEL)
    ]


@pytest.mark.parametrize(
    ("trials", "n_starts"), [(4, 0), (4 + TRIALS_PER_START - 1, 0), (4 + TRIALS_PER_START, 1), (60, 1)]
)
def test_beside_defaults_and_linear_classifiers_they_take_a_third_of_what_is_left(
    trials: int, n_starts: int
) -> None:
    assert len(points(tiny.study(WITHOUT_PARTLY_FROZEN, trials=trials))) == 5 + n_starts


def test_no_point_comes_twice() -> None:
    found = points(tiny.study(WIDE))

    assert all(params not in found[:place] for place, params in enumerate(found))


@pytest.mark.parametrize("start", [KEPT_STATISTICS, *STARTS], ids=lambda start: start.recipe)
def test_a_point_that_the_space_cannot_express_is_left_out(start: Start) -> None:
    narrow = tiny.study("lr = { log = [1e-4, 1.0] }")

    assert start_point(start, narrow, FACTS) is None
