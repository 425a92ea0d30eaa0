"""Fine-tuning with kept batch-norm statistics as a default and an initial point: its values and its place."""

from dataclasses import replace

import pytest
import tiny
from optuna.trial import FixedTrial

from tlopt.search.defaults import begun_labels, defaults, start_point
from tlopt.search.plan import search_plan
from tlopt.search.portfolio import KEPT_STATISTICS, PARTLY_FROZEN
from tlopt.search.space import suggest
from tlopt.spec.default_names import KEPT_LABEL, PLAIN_LABEL, PROBE_LABEL, SCRATCH_LABEL
from tlopt.spec.point import Point

FACTS = tiny.facts()
PLAIN_LR = tiny.PLAIN_LR["adamw"]
USUAL = {
    "transfer_depth": "{ int = [8, 17] }",
    "freeze_depth": "{ int = [0, 17] }",
    "norm_depth": "{ int = [0, 17] }",
    "lr": "{ log = [1e-4, 1.0] }",
    "lr_ratio": "{ log = [1e-2, 1.0] }",
    "l2_sp": "{ log = [1e-4, 1.0], zero = true }",
}


def search(**changes: str) -> str:
    return "\n".join(f"{name} = {text}" for name, text in (USUAL | changes).items() if text)


def decoded(text: str, backbone: str = '"large"') -> Point:
    """The point that the parameters decode to."""
    study = tiny.study(text, backbone=backbone)
    params = start_point(KEPT_STATISTICS, study, FACTS)
    assert params is not None
    return suggest(FixedTrial(params), study, FACTS)


def test_it_is_plain_fine_tuning_with_all_statistics_kept_and_pretrained_blocks_at_three_tenths() -> None:
    _, plain, kept, _ = defaults(tiny.study(search()), FACTS)

    assert decoded(search()) == kept.point == replace(plain.point, norm_depth=17, lr_ratio=0.3)


@pytest.mark.parametrize(("optimizer", "ratio"), [("sgd", 0.1), ("adamw", 0.3)])
def test_the_default_has_the_measured_rates_whatever_the_space_searches(optimizer: str, ratio: float) -> None:
    narrow = f'freeze_depth = {{ int = [0, 17] }}\nlr = 0.5\nlr_ratio = 0.9\noptimizer = "{optimizer}"'
    _, plain, kept, _ = defaults(tiny.study(narrow), FACTS)

    assert (kept.label, kept.params) == (KEPT_LABEL, None)
    assert kept.point == replace(plain.point, norm_depth=17, lr_ratio=ratio)
    assert kept.point.lr == tiny.PLAIN_LR[optimizer]


@pytest.mark.parametrize("missing", ["transferable", "batch_norm"])
def test_it_is_no_default_without_statistics_to_keep(missing: str) -> None:
    found = defaults(tiny.study(search()), tiny.facts(**{missing: False}))

    assert KEPT_LABEL not in [default.label for default in found]


# Studies that have begun


@pytest.mark.parametrize(
    ("weights", "classifiers", "labels"),
    [
        ("default", '["network", "svm"]', (PROBE_LABEL, PLAIN_LABEL)),
        ("default", '["network", "logistic"]', (PROBE_LABEL, PLAIN_LABEL, "linear classifier")),
        ("none", '["network", "logistic"]', (SCRATCH_LABEL,)),
    ],
)
def test_a_study_that_stores_no_defaults_has_those_of_its_version(
    weights: str, classifiers: str, labels: tuple[str, ...]
) -> None:
    text = search(classifier=f"{{ choice = {classifiers} }}")
    study = tiny.spec.loads(
        tiny.text(text).replace("[model]", f'[model]\nweights = "{weights}"'), "planted.toml"
    )

    assert begun_labels(study, None) == labels
    assert begun_labels(study, [{"label": KEPT_LABEL}]) == (KEPT_LABEL,)


def test_in_a_study_of_an_earlier_version_it_remains_an_initial_point_like_any_other() -> None:
    study = tiny.study(search())
    plan = search_plan(study, FACTS, 1, begun_labels(study, None))

    task = plan.draw(FixedTrial(plan.initial_points(())[2], number=2))

    assert list(plan.initial_points(())[2:]) == [
        start_point(KEPT_STATISTICS, study, FACTS),
        start_point(PARTLY_FROZEN, study, FACTS),
    ]
    assert (task.point.norm_depth, task.label, task.prunable) == (17, "", True)


# Its place in a space


@pytest.mark.parametrize(
    ("changes", "lr", "lr_ratio"),
    [
        ({"lr_ratio": ""}, 0.3 * PLAIN_LR, 1.0),  # one rate for all: the pretrained blocks' decides
        ({"lr_ratio": "0.6"}, 0.5 * PLAIN_LR, 0.6),
        ({"lr_ratio": "{ log = [1e-2, 1e-1] }"}, PLAIN_LR, 0.1),
        ({"lr_ratio": "0.0"}, PLAIN_LR, 0.0),
        ({"lr": "{ log = [1e-2, 1.0] }"}, 1e-2, 0.3),
        ({"optimizer": '"sgd"'}, tiny.PLAIN_LR["sgd"], 0.1),
    ],
)
def test_pretrained_blocks_have_their_rate_as_far_as_the_ranges_allow(
    changes: dict[str, str], lr: float, lr_ratio: float
) -> None:
    point = decoded(search(**changes))

    assert (point.lr, point.lr_ratio) == (pytest.approx(lr), lr_ratio)


@pytest.mark.parametrize(
    ("changes", "depths"),
    [
        ({"norm_depth": "{ int = [0, 12] }"}, (17, 0, 12)),
        ({"norm_depth": "{ choice = [0.0, 0.5] }"}, (17, 0, 8)),
        ({"norm_depth": "1.0"}, (17, 0, 17)),
        ({"transfer_depth": "{ int = [0, 9] }"}, (9, 0, 9)),
        ({"freeze_depth": "{ int = [4, 17] }"}, (17, 4, 17)),
    ],
)
def test_it_keeps_the_most_that_the_ranges_allow(
    changes: dict[str, str], depths: tuple[int, int, int]
) -> None:
    point = decoded(search(**changes))

    assert (point.transfer_depth, point.freeze_depth, point.norm_depth) == depths


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_depth": ""},
        {"norm_depth": "0"},
        {"freeze_depth": "17"},
        {"norm_depth": "3", "freeze_depth": "3"},
    ],
    ids=str,
)
def test_there_is_none_where_the_space_keeps_no_statistics(changes: dict[str, str]) -> None:
    assert start_point(KEPT_STATISTICS, tiny.study(search(**changes)), FACTS) is None


@pytest.mark.parametrize("missing", ["transferable", "batch_norm"])
def test_there_is_none_without_statistics_to_keep(missing: str) -> None:
    assert start_point(KEPT_STATISTICS, tiny.study(search()), tiny.facts(**{missing: False})) is None


def test_a_search_that_can_draw_the_default_runs_it_third_and_never_prunes_it() -> None:
    study = tiny.study(search())
    plan = search_plan(study, FACTS, 1)

    task = plan.draw(FixedTrial(plan.initial_points(())[2], number=2))

    assert plan.initial_points(())[1] == start_point(PARTLY_FROZEN, study, FACTS)
    assert plan.initial_points(())[2] == start_point(KEPT_STATISTICS, study, FACTS)
    assert (task.point.norm_depth, task.label, task.prunable) == (17, KEPT_LABEL, False)


def test_a_search_that_cannot_tries_the_nearest_point_after_the_defaults_as_any_other_trial() -> None:
    study = tiny.study(search(lr_ratio="1.0"))
    plan = search_plan(study, FACTS, 1)

    task = plan.draw(FixedTrial(plan.initial_points(())[3], number=3))

    assert plan.initial_points(())[1] == start_point(PARTLY_FROZEN, study, FACTS)
    assert list(plan.initial_points(())[3:]) == [start_point(KEPT_STATISTICS, study, FACTS)]
    assert (task.point.norm_depth, task.label, task.prunable) == (17, "", True)


def test_the_other_starts_keep_no_statistics() -> None:
    study = tiny.study(search(freeze_depth="{ int = [0, 12] }"))
    plan = search_plan(study, FACTS, 1)

    depths = [suggest(FixedTrial(params), study, FACTS).norm_depth for params in plan.initial_points(())]

    assert [default.point.norm_depth for default in defaults(study, FACTS)] == [0, 0, 17, 0]
    assert depths == [17, 0, 0]  # the probe's freeze depth is out of range


def test_a_search_without_the_key_starts_as_before() -> None:
    before = tiny.study(search(norm_depth=""))
    starts = search_plan(tiny.study(search()), FACTS, 1).initial_points(())

    assert list(search_plan(before, FACTS, 1).initial_points(())) == [
        {name: value for name, value in params.items() if name != "norm_depth"}
        for params in starts
        if not params["norm_depth"]
    ]
