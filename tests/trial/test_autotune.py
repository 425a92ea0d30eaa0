"""Precision and layout come from the study file or from the measurement of the first worker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from tlopt.app import workflow
from tlopt.app.handle import Session, open_session
from tlopt.model.network import Network
from tlopt.model.weights import load_weights
from tlopt.storage import attributes
from tlopt.training.numerics import Numerics
from tlopt.trial import autotune
from tlopt.trial.autotune import measure_numerics, numerics_of_study

CPU = torch.device("cpu")
PLAIN, GROUPED = (Network(nn.Conv2d(4, 4, 1, groups=groups), (), "", 4) for groups in (1, 4))


def with_model(text: str, lines: str) -> str:
    return text.replace("[model]", f"[model]\n{lines}")


@pytest.fixture
def session(tmp_path: Path, study_text: Callable[..., str]) -> Callable[..., Session]:
    """The study with lines of [model], opened anew at every call."""

    def make(lines: str) -> Session:
        file = tmp_path / "study.toml"
        file.write_text(with_model(study_text(trials=1, epochs=1), lines))
        return open_session(file, storage_url=f"sqlite:///{tmp_path}/tlopt.db", runs=tmp_path)

    return make


@pytest.mark.parametrize(
    ("lines", "network", "numerics"),
    [
        ("", PLAIN, Numerics("float32", "channels_first")),
        ("", GROUPED, Numerics("float32", "channels_last")),
        ('precision = "bfloat16"', PLAIN, Numerics("bfloat16", "channels_first")),
        ('layout = "channels_last"', PLAIN, Numerics("float32", "channels_last")),
        ('layout = "channels_first"', GROUPED, Numerics("float32", "channels_first")),
        ('precision = "auto"\nlayout = "auto"', GROUPED, Numerics("float32", "channels_last")),
    ],
)
def test_what_the_file_names_is_taken(lines: str, network: Network, numerics: Numerics) -> None:
    study = tiny.spec.loads(with_model(tiny.text("lr = 0.1"), lines), "x.toml")

    assert numerics_of_study(study, network, CPU) == numerics


def test_without_auto_nothing_is_measured() -> None:
    study = tiny.study("lr = 0.1")

    assert (
        measure_numerics(study, {"resnet18": load_weights("resnet18", "none")}, n_classes=3, device=CPU) == {}
    )


def test_auto_is_measured_once_for_a_study_and_every_worker_follows(
    session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[dict[str, Any]] = []
    answers = [Numerics("bfloat16", "channels_last"), Numerics()]

    def planted(*_: object, **keywords: Any) -> Numerics:
        asked_for.append(keywords)
        return answers.pop(0)

    monkeypatch.setattr(autotune, "fastest_numerics", planted)
    lines = 'precision = "auto"\nlayout = "auto"'
    first, second = session(lines), session(lines)
    workspaces = [workflow.prepare(first), workflow.prepare(second)]

    workflow.begin(first, workspaces[0])
    opened, plan = workflow.begin(second, workspaces[1])

    assert len(asked_for) == 1
    assert (asked_for[0]["resolution"], asked_for[0]["batch_size"]) == (32, 8)
    assert opened.user_attrs[attributes.NUMERICS] == {"resnet18": "bfloat16 channels_last"}
    point = plan.draw(opened.ask()).point
    for workspace in (*workspaces, workflow.prepare(session(lines))):
        run = workspace.start_run(point, seed=1, train=workspace.data.splits[0].train)
        assert run.numerics == Numerics("bfloat16", "channels_last")
