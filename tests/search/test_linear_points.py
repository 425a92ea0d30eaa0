"""Linear classifiers as points of a search: few keys, each drawn once, unseen by the sampler."""

from dataclasses import replace

import optuna
import pytest
import tiny
from optuna.trial import FixedTrial, TrialState

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.search.defaults import defaults, linear_points
from tlopt.search.fixed_study import fixed_study, only_point
from tlopt.search.plan import StudyPlan, search_plan
from tlopt.search.samplers import InitialPointsSampler
from tlopt.search.space import check_depths, encode_point, suggest
from tlopt.spec.default_names import PARTLY_LABEL
from tlopt.spec.point import Point

FACTS = tiny.facts()
USUAL = "freeze_depth = { int = [0, 17] }\ntransfer_depth = { int = [8, 17] }\nlr = { log = [1e-4, 1.0] }\n"
ALL = 'classifier = { choice = ["network", "logistic", "svm"] }\n'


def point_of(params: dict[str, object], search: str = ALL + USUAL) -> Point:
    return suggest(FixedTrial(params), tiny.study(search), FACTS)


def test_only_its_own_keys_are_drawn() -> None:
    trial = FixedTrial({"classifier": "svm", "lr": 0.5, "freeze_depth": 3})

    point = suggest(trial, tiny.study(ALL + USUAL), FACTS)

    assert trial.params == {"classifier": "svm"}
    assert (point.classifier, point.transfer_depth, point.freeze_depth, point.epochs) == ("svm", 17, 17, 1)


def test_keys_without_effect_make_no_other_point() -> None:
    fixed = "momentum = 0.5\nmixup = 0.3\nhead_layers = 2\nepochs = 7\naugmentation = 0.9\nl2_sp = 0.1\n"

    assert point_of({"classifier": "logistic"}, ALL + USUAL + fixed) == point_of({"classifier": "logistic"})


@pytest.mark.parametrize("name", ["logistic", "svm"])
def test_a_point_survives_its_parameters_its_storage_and_its_study_file(name: str) -> None:
    study, point = tiny.study(ALL + USUAL), point_of({"classifier": name})

    assert encode_point(point, study, FACTS) == {"classifier": name}
    assert Point.from_dict(point.as_dict()) == point
    alone = spec.loads(fixed_study(study, point, name="alone"), "alone.toml")
    assert only_point(alone, FACTS) == point


def test_networks_are_stored_and_digested_as_before() -> None:
    before, after = tiny.study(USUAL), tiny.study('classifier = "network"\n' + USUAL)

    assert before.digest == after.digest
    assert "classifier" not in defaults(before, FACTS)[0].point.as_dict()


def test_logistic_regression_is_a_default_only_where_the_space_has_it() -> None:
    facts = tiny.facts(batch_norm=False)
    labels = [default.label for default in defaults(tiny.study(ALL + USUAL), facts)]

    assert labels == ["linear probe", "plain fine-tuning", "linear classifier", PARTLY_LABEL]
    assert len(defaults(tiny.study(USUAL), facts)) == 3
    assert {row.point.classifier for row in defaults(tiny.study(ALL + USUAL), FACTS)[:2]} == {"network"}


def test_there_is_one_for_each_class_weighting_and_listed_resolution() -> None:
    more = 'class_weights = { choice = ["none", "balanced"] }\nresolution = { choice = [96, 128] }\n'

    assert len(linear_points(tiny.study(ALL + USUAL), FACTS)) == 2
    assert len(linear_points(tiny.study(ALL + USUAL + more), FACTS)) == 8


def begun(sampler: str, search: str = ALL + USUAL) -> tuple[optuna.Study, StudyPlan]:
    study = tiny.study(search, more=f'[sampler]\nkind = "{sampler}"\n')
    plan = search_plan(study, FACTS, 1)
    own = InitialPointsSampler(plan.initial_points, study.sampler, seed=1, transform=plan.sampler_trials)
    return optuna.create_study(direction="maximize", sampler=own), plan


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_every_sampler_draws_each_once_and_then_networks(sampler: str) -> None:
    opened, plan = begun(sampler)

    for _ in range(12):
        trial = opened.ask()
        task = plan.draw(trial)
        trial.set_user_attr("tlopt:point", task.point.as_dict())
        opened.tell(trial, 0.9 if task.point.is_linear else 0.5 + trial.number / 100)

    drawn = [trial.params for trial in opened.trials]
    assert sum(params["classifier"] == "logistic" for params in drawn) == 1
    assert sum(params["classifier"] == "svm" for params in drawn) == 1
    assert all(len(params) == (4 if params["classifier"] == "network" else 1) for params in drawn)


def test_one_that_is_enqueued_by_its_name_alone_is_drawn() -> None:
    opened, plan = begun("tpe")
    opened.enqueue_trial({"classifier": "svm"})

    task = plan.draw(opened.ask())

    assert (task.point.classifier, task.prunable) == ("svm", False)


def test_the_sampler_does_not_see_them() -> None:
    opened, plan = begun("tpe")
    for _ in range(4):
        trial = opened.ask()
        trial.set_user_attr("tlopt:point", plan.draw(trial).point.as_dict())
        opened.tell(trial, 0.5, TrialState.COMPLETE)

    seen = plan.sampler_trials(opened.get_trials())

    assert [trial.params["classifier"] for trial in seen] == ["network"] * len(seen)
    assert 0 < len(seen) < 4


def test_linear_classifiers_alone_have_no_other_parameters() -> None:
    plan = search_plan(tiny.study('classifier = { choice = ["logistic", "svm"] }\n' + USUAL), FACTS, 1)

    assert list(plan.space) == ["classifier"]
    assert list(plan.initial_points([])) == [{"classifier": "logistic"}, {"classifier": "svm"}]


def test_without_pretrained_weights_there_are_none() -> None:
    without = tiny.facts(transferable=False)

    assert "classifier" not in search_plan(tiny.study(ALL + USUAL), without, 1).space
    with pytest.raises(SpecError, match="needs features of pretrained weights"):
        check_depths(tiny.study('classifier = "svm"'), without)


def test_a_balanced_one_is_another_point() -> None:
    point = point_of({"classifier": "logistic"}, ALL + USUAL + 'class_weights = "balanced"')

    assert point == replace(point_of({"classifier": "logistic"}), class_weights="balanced")
