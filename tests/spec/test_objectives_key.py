"""`objectives`: which combinations a study file may ask for, and what the others are told."""

import pytest

from tlopt import spec
from tlopt.errors import SpecError
from tlopt.spec import differences
from tlopt.spec.algorithms import FrontPruner, NoPruner
from tlopt.spec.schema import study_schema

TWO = 'objectives = ["accuracy", "multiply_adds"]'
GRID = '[sampler]\nkind = "grid"\nrepeats = 10\n[search]\nlr = { choice = [0.1, 0.2] }'


def text(top: str = TWO, *, tables: str = "", trials: str = "20") -> str:
    return (
        f'name = "a"\n{top}\n[data]\nsource = "digits"\n[model]\nbackbone = "resnet18"\n'
        f"[budget]\ntrials = {trials}\nepochs = 8\n{tables}"
    )


def refusal(study_text: str) -> str:
    with pytest.raises(SpecError) as refused:
        spec.loads(study_text, "x.toml")
    return str(refused.value)


def test_the_first_objective_is_the_metric_of_every_screen() -> None:
    study = spec.loads(text('objectives = ["log_loss", "parameters", "latency_ms"]'), "x.toml")

    assert study.objective == "log_loss"
    assert study.directions == ("minimize", "minimize", "minimize")
    assert study.cost_objectives == ("parameters", "latency_ms")
    assert study.cost_names == ("parameters", "latency_ms")
    assert spec.loads(text(), "x.toml").directions == ("maximize", "minimize")


def test_one_objective_has_no_costs_and_keeps_its_pruner() -> None:
    study = spec.loads(text(""), "x.toml")

    assert (study.objectives, study.cost_objectives, study.cost_names) == ((), (), ())
    assert study.directions == ("maximize",)
    assert study.pruner.kind == "median"


def test_several_objectives_are_pruned_by_the_front_unless_the_file_says_none() -> None:
    assert spec.loads(text(), "x.toml").pruner == FrontPruner()
    none = spec.loads(text(tables='[pruner]\nkind = "none"'), "x.toml")
    assert isinstance(none.pruner, NoPruner)
    assert isinstance(spec.loads(text(tables=GRID), "x.toml").pruner, NoPruner)


def test_objectives_change_the_meaning_of_a_study() -> None:
    assert spec.loads(text(), "x.toml").digest != spec.loads(text(""), "x.toml").digest
    assert spec.loads(text("objectives = []"), "x.toml").digest == spec.loads(text(""), "x.toml").digest


def test_changed_objectives_are_told_as_a_study_file_has_them() -> None:
    told = differences.changes(spec.loads(text(""), "x.toml"), spec.loads(text(), "x.toml"))

    assert "objectives: study has none, here is ['accuracy', 'multiply_adds']" in told


@pytest.mark.parametrize(
    ("study_text", "said"),
    [
        (
            text('objectives = ["accuracy"]'),
            'objectives: ["accuracy"] is not allowed: first one of accuracy, ',
        ),
        (text('objectives = ["parameters", "accuracy"]'), "objectives: "),
        (text('objectives = ["accuracy", "log_loss"]'), "objectives: "),
        (text('objectives = ["accuracy", "bytes", "bytes"]'), "objectives: "),
        (text('objectives = ["accuracy", "speed"]'), "objectives: "),
        (text('objectives = "accuracy"'), "objectives: "),
        (text("objectives = 5"), "objectives: "),
        (
            text(f'objective = "log_loss"\n{TWO}'),
            'objective: leave it out, objectives begins with "accuracy"',
        ),
        (text(trials='"enough"'), 'budget.trials: "enough" judges by one objective'),
        (text(f'{TWO}\nwarm_start = "b"'), "warm_start: a search with several objectives"),
        (text(tables='[pruner]\nkind = "median"'), 'pruner.kind: "median" judges by one objective'),
        (text("", tables='[pruner]\nkind = "front"'), "pruner.kind: this one needs several objectives"),
        (text("", tables='[sampler]\nkind = "nsga2"'), "sampler.kind: this one needs several objectives"),
        (
            text("", tables="[constraints]\nparameters = -1"),
            "constraints.parameters: -1 is not allowed: at least 0",
        ),
        (
            text("", tables="[constraints]\nparameters = 0.5"),
            "constraints.parameters: 0.5 is not allowed: 0 for no",
        ),
        (text("", tables="[constraints]\nflops = 5"), "constraints.flops: unknown key; "),
    ],
)
def test_what_does_not_fit_is_refused_with_its_key(study_text: str, said: str) -> None:
    assert refusal(study_text).startswith(f"x.toml: {said}")


def test_editors_know_the_key() -> None:
    known = study_schema()["properties"]["objectives"]["items"]["enum"]

    assert {"accuracy", "log_loss", "multiply_adds", "latency_ms"} <= set(known)
