"""A finished study with planted numbers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tlopt import spec
from tlopt.analysis.cost import Cost
from tlopt.compact.cost import InferenceCost
from tlopt.confirmation.verdict import Confirmed, Verdict, ranked
from tlopt.exports.card import DatasetSummary, ExportContents, Pretrained, Spend, Trained
from tlopt.model.build import build
from tlopt.model.weights import load_weights
from tlopt.spec import search_keys
from tlopt.spec.default_names import PLAIN_LABEL, PROBE_LABEL
from tlopt.spec.point import Point

STUDY_TEXT = """
name = "flowers"
seed = 7
[data]
source = "data/flowers"
resize = "{resize}"
[model]
backbone = "{backbone}"
weights = "none"
[budget]
trials = 60
epochs = 2
[search]
lr = {{ log = [1e-4, 1.0] }}
"""
COST = InferenceCost(parameters=11_178_051, multiply_adds=37_123_456, weights_bytes=44_800_000)
CLASS_NAMES = ("rose", "tulip | *wild*", "dandelion")
SEEDS = (11, 12, 13)


def make_point(backbone: str = "resnet18", **changes: Any) -> Point:
    values = {name: rule.default for name, rule in search_keys.RULES.items()}
    depths = {"backbone_depth": 0, "transfer_depth": 0, "freeze_depth": 0, "anchor_depth": 0}
    rest = {"lr": 0.1, "l2": 0.0, "epochs": 2, "resolution": 32, "backbone": backbone}
    return Point.from_dict({**values, **depths, **rest, **changes})


def make_row(
    label: str,
    val: Sequence[float],
    test: Sequence[float] = (),
    *,
    point: Point | None = None,
    number: int = 12,
) -> Confirmed:
    """A candidate with these accuracies (log-losses: 1 - accuracy), seed by seed."""

    def metrics(value: float) -> dict[str, float]:
        return {"accuracy": value, "log_loss": 1 - value}

    return Confirmed(
        number=number,
        label=label,
        point=point or make_point(),
        seeds=SEEDS[: len(val)],
        val=tuple(map(metrics, val)),
        test=tuple(map(metrics, test)),
    )


def make_verdict(
    rows: Sequence[Confirmed], *, objective: str = "accuracy", test_readings: int = 1
) -> Verdict:
    direction = "minimize" if objective == "log_loss" else "maximize"
    return Verdict(
        study="flowers",
        objective=objective,
        direction=direction,
        rows=ranked(rows, objective, direction),
        n_expected=9,
        n_finished=9,
        test_readings=test_readings,
    )


def make_contents(
    verdict: Verdict, *, class_names: tuple[str, ...] = CLASS_NAMES, resize: str = "crop"
) -> ExportContents:
    point = verdict.chosen.point
    text = STUDY_TEXT.format(resize=resize, backbone=point.backbone)
    weights = load_weights(point.backbone, "none")
    return ExportContents(
        study=spec.loads(text, "flowers.toml"),
        study_text=text,
        verdict=verdict,
        images=DatasetSummary(
            class_names=class_names, n_search=90, n_test=30, fingerprint="0123456789abcdef"
        ),
        pretrained=Pretrained(label=weights.label, digest=weights.digest, mean=weights.mean, std=weights.std),
        trained=Trained(
            seed=SEEDS[0],
            images="training images",
            train_loss=(1.0, 0.5),
            val={"accuracy": (0.6, 0.9), "log_loss": (0.9, 0.4)},
            confusion=np.diag(np.arange(1, 1 + len(class_names))),
        ),
        spend=Spend(
            trials={"complete": 50, "pruned": 10},
            search=Cost(n=60, epochs=90, seconds=9000.0, processor_seconds=12000.0),
            confirmation=Cost(n=9, epochs=18, seconds=1800.0, processor_seconds=3000.0),
        ),
        versions={"tlopt": "0.1.0", "torch": "2.14.1"},
        created=datetime(2026, 11, 22, 10, 30, tzinfo=UTC),
    )


def planted(point: Point | None = None) -> Verdict:
    """The chosen point is 2 points above plain fine-tuning and 10 above the probe, seed by seed ± 1."""
    return make_verdict(
        [
            make_row("trial 12", (0.91, 0.92, 0.93), (0.90, 0.91, 0.92), point=point),
            make_row(PROBE_LABEL, (0.80, 0.82, 0.84), (0.79, 0.81, 0.83), number=-2),
            make_row(PLAIN_LABEL, (0.89, 0.90, 0.91), (0.87, 0.89, 0.91), number=-1),
        ]
    )


def save_untrained(point: Point, path: Path, *, n_classes: int) -> Path:
    """Weights of a network as a run would leave them, batch-norm statistics included."""
    network = build(point, n_classes=n_classes, weights=load_weights(point.backbone, "none"), seed=3)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        network(torch.randn(4, 3, point.resolution, point.resolution))
    save_file({name: tensor.contiguous() for name, tensor in network.net.state_dict().items()}, path)
    return path
