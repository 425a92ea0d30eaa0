"""The table from the whole network to the smallest, from planted numbers."""

from dataclasses import replace
from typing import Any

import optuna
import tiny
from finished import make_point, make_row, make_verdict
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from tlopt.analysis.network_stages import network_rows, network_stages
from tlopt.analysis.prunings import prune_sentence
from tlopt.analysis.snapshot import Snapshot
from tlopt.confirmation.prunings import planned_prunings
from tlopt.search.race import PLAIN
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.storage.commands import Command

STUDY = tiny.spec.loads(tiny.text("lr = 0.1") + "[prune]\nmultiply_adds = [0.5, 0.3]\n", "x.toml")
LATENCY_MS = {"whole": 12.0, "before": 8.0, "here": 4.0}


def costs(parameters: float, multiply_adds: float) -> dict[str, float]:
    return {"parameters": parameters, "multiply_adds": multiply_adds, "bytes": 4 * parameters}


def pruning(label: str, value: float | None, *, index: int = 0, **cost: float) -> TrialRecord:
    result = {"inference_cost": cost, "outcome": "complete" if value is not None else "pruned"}
    ended = optuna.create_trial(
        value=value,
        params={"pruning": index},
        distributions={"pruning": IntDistribution(0, 9)},
        state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
        user_attrs={attributes.TRIAL_RESULT: result, attributes.POINT: make_point().as_dict()},
    )
    return replace(TrialRecord.from_frozen(ended), label=label)


def seen(*prunings: TrialRecord, backbone_depth: int, chosen: int = 7, **changes: Any) -> Snapshot:
    rows = [
        make_row("trial 7", (0.91, 0.92, 0.93), (0.90, 0.91, 0.92), number=7),
        make_row("plain fine-tuning", (0.89, 0.90, 0.91), (0.87, 0.89, 0.91), number=PLAIN),
    ]
    rows[0] = replace(
        rows[0], point=make_point(backbone_depth=backbone_depth), inference_cost=costs(2e6, 50e6)
    )
    rows[1] = replace(rows[1], inference_cost=costs(4e6, 100e6))
    if chosen == PLAIN:
        rows = rows[1:]
    verdict = replace(make_verdict(rows), n_expected=6, n_finished=6)
    planned = planned_prunings(STUDY, verdict)
    usual: dict[str, Any] = {"study": STUDY, "command": Command(), "trials": (), "workers": ()}
    stored = {"verdict": verdict, "prunings": prunings, "planned_prunings": planned}
    return Snapshot(**{**usual, **stored, **changes})


HALF = pruning("50 %", 0.915, **costs(1e6, 25e6))
TOO_SMALL = pruning("30 %", None, index=1, **costs(0.5e6, 15e6))
SMALLER = pruning("20 %", 0.9, index=1, **costs(0.4e6, 10e6))


def test_every_network_has_a_column_and_quotients_are_to_the_whole_one() -> None:
    exports = ({"kind": "compact", "latency_ms": LATENCY_MS},)
    stages = network_stages(seen(HALF, TOO_SMALL, backbone_depth=5, exports=exports))

    assert [stage.name for stage in stages] == ["plain fine-tuning", "trial 7", "50 %"]
    assert list(network_rows(stages, "accuracy")) == [
        ("validation accuracy", "90.0 ± 1.0 %", "92.0 ± 1.0 %", "91.5 %"),
        ("test accuracy", "89.0 ± 2.0 %", "91.0 ± 1.0 %", "—"),
        ("parameters", "4 M", "2 M (÷ 2.0)", "1 M (÷ 4.0)"),
        ("multiply-adds", "100 M", "50 M (÷ 2.0)", "25 M (÷ 4.0)"),
        ("file size", "16.0 MB", "8.0 MB (÷ 2.0)", "4.0 MB (÷ 4.0)"),
        ("latency", "12 ms", "8 ms (÷ 1.5)", "4 ms (÷ 3.0)"),
    ]


def test_a_network_with_all_blocks_is_as_fast_as_the_whole_one() -> None:
    exports = ({"kind": "compact", "latency_ms": {"before": 8.0, "here": 4.0}},)
    stages = network_stages(seen(HALF, backbone_depth=0, exports=exports))

    assert [stage.costs["latency_ms"] for stage in stages] == [8.0, 8.0, 4.0]


def test_what_is_not_known_is_left_open() -> None:
    assert network_stages(seen(TOO_SMALL, backbone_depth=0)) == ()
    assert network_stages(seen(backbone_depth=0, verdict=None)) == ()
    structure, whole = seen(TOO_SMALL, backbone_depth=5), seen(HALF, backbone_depth=0, chosen=PLAIN)
    assert [stage.name for stage in network_stages(structure)] == ["plain fine-tuning", "trial 7"]
    assert [stage.name for stage in network_stages(whole)] == ["plain fine-tuning", "50 %"]


def test_json_has_means_and_costs() -> None:
    networks = seen(HALF, backbone_depth=5).as_dict()["networks"]

    assert networks[2] == {"name": "50 %", "val": 0.915, "test": None, **costs(1e6, 25e6)}
    assert (networks[1]["val"], networks[1]["test"]) == (0.92, 0.91)
    assert "networks" not in seen(backbone_depth=0).as_dict()


def test_prunings_of_another_choice_or_of_goals_no_longer_wanted_take_no_part() -> None:
    now = seen(HALF, SMALLER, backbone_depth=5)
    half, smaller = now.planned_prunings
    earlier_choice = replace(smaller, candidate=3, point=make_point(lr=0.5))
    earlier_goal = replace(smaller, goal=replace(smaller.goal, share=0.2))

    assert network_stages(now)[-1].name == "20 %"
    for other in (earlier_choice, earlier_goal):
        later = replace(now, planned_prunings=(half, other))
        assert network_stages(later)[-1].name == "50 %"
        assert "2 of 2 prunings ended" in prune_sentence(later)
        assert "validation accuracy 91.5 %, 93.0 % before pruning (50 %)" in prune_sentence(later)
