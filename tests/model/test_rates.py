"""Usual learning rates: ten times higher with batch-norm, looked up once."""

import pytest

from tlopt.model.families import table as families
from tlopt.model.rates import usual_lr


@pytest.mark.parametrize(
    ("backbone", "sgd", "adamw"),
    [
        ("resnet18", 0.01, 0.001),
        ("mobilenet_v3_small", 0.01, 0.001),
        ("vgg11", 0.001, 0.0001),
        ("convnext_tiny", 0.001, 0.0001),
        ("vit_b_16", 0.001, 0.0001),
    ],
)
def test_the_usual_rate_is_ten_times_higher_with_batch_norm(backbone: str, sgd: float, adamw: float) -> None:
    assert usual_lr(backbone) == {"sgd": sgd, "adamw": adamw}


def test_a_backbone_is_built_once_and_callers_cannot_change_its_rates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual_lr("resnet18")["sgd"] = 100.0
    monkeypatch.setattr(families, "skeleton", None)

    assert usual_lr("resnet18")["sgd"] == 0.01
