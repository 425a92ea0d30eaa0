"""Rules tried for pruning by the front: planted curves, and settings judged on sets that they never saw."""

import numpy as np
import pytest

from benchmarks.front.tried import Search, Setting, by_rank, chosen
from tlopt.spec.objectives import front_of

RULES = [
    Setting("stop", least=0.002),
    Setting("stop", upper=1.0),
    Setting("stop", margin=1.5, slope=0.6),
    Setting("pause", pauses=True, margin=1.5, slope=0.6),
    Setting("pause", pauses=True, least=0.002),
    Setting("pause", pauses=True, upper=1.0),
]


def test_points_are_ranked_front_by_front_and_by_their_lead_within_one() -> None:
    rows = [(-0.9, 4.0), (-0.5, 1.0), (-0.8, 4.0), (-0.85, 2.0), (-0.4, 1.0)]

    ranked = by_rank(rows)

    assert set(ranked[:3]) == {0, 1, 3}  # 0.9, and 0.85 and 0.5 at a lower cost
    assert ranked[:3] == [3, 1, 0]  # leads of 0.35, 0.10 and 0.05 over what costs no more
    assert set(ranked[3:]) == {2, 4}


@pytest.mark.parametrize("setting", RULES)
def test_where_the_first_epoch_says_it_all_no_point_of_the_front_is_lost(setting: Setting) -> None:
    random = np.random.default_rng(0)
    ends, costs = random.uniform(0.3, 0.9, 32), np.exp2(random.integers(0, 4, 32))
    curves = np.repeat(ends[:, None], 8, axis=1)
    search = Search(curves=curves, costs=costs, chance=0.1, setting=setting)

    n_epochs, complete = search.run(range(32))

    front = front_of([(-end, cost) for end, cost in zip(ends, costs, strict=True)])
    assert {0, 1, *front} <= set(complete)
    assert n_epochs == sum(search.trained.values())
    assert n_epochs < curves.size


def test_a_setting_is_chosen_without_the_set_that_it_is_judged_on() -> None:
    bold, careful = Setting("stop", least=0.1), Setting("stop", least=0.001)
    found = {
        bold: {"a": (0.4, 0.002), "b": (0.4, 0.002), "c": (0.4, 0.2)},
        careful: {"a": (0.7, 0.001), "b": (0.7, 0.001), "c": (0.7, 0.001)},
    }

    assert chosen(found, without="c") == bold
    assert chosen(found, without="a") == careful
