"""The usual rates: tenfold with batch-norm, looked up once."""

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
def test_networks_with_batch_norm_bear_ten_times_the_rate(backbone: str, sgd: float, adamw: float) -> None:
    assert usual_lr(backbone) == {"sgd": sgd, "adamw": adamw}


def test_a_backbone_is_built_once_and_what_a_caller_does_to_its_rates_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual_lr("resnet18")["sgd"] = 100.0
    monkeypatch.setattr(families, "skeleton", None)

    assert usual_lr("resnet18")["sgd"] == 0.01
