"""Which layers are batch-norm, and what stays of the others when only batch-norm is in eval mode."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from tlopt.model.norms import batch_norms, keep_statistics
from tlopt.model.rates import has_batch_norm


class Own(nn.BatchNorm2d):
    """Somebody's own kind."""


class Rewritten(nn.Module):
    """Somebody's own kind that derives from none of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))


class RunningVariance(nn.Module):
    """A norm with a running variance alone, such as EvoNorm-B0."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_var", torch.ones(4))


BATCH_NORMS = [
    nn.BatchNorm1d(4),
    nn.BatchNorm2d(4),
    nn.BatchNorm3d(4),
    nn.BatchNorm2d(4, affine=False),
    nn.SyncBatchNorm(4),
    Own(4),
    Rewritten(),
    FrozenBatchNorm2d(4),
]
OTHERS = [
    nn.BatchNorm2d(4, track_running_stats=False),
    nn.InstanceNorm2d(4, track_running_stats=True),
    nn.LayerNorm(4),
    nn.GroupNorm(2, 4),
    nn.Conv2d(4, 4, 1),
    RunningVariance(),
]


@pytest.mark.parametrize("layer", BATCH_NORMS, ids=lambda layer: type(layer).__name__)
def test_what_holds_running_statistics_is_batch_norm_whatever_its_class(layer: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), layer)

    assert [(name, found is layer) for name, found in batch_norms(net)] == [("1", True)]
    assert [found for _, found in batch_norms(layer)] == [layer]


@pytest.mark.parametrize("layer", OTHERS, ids=lambda layer: type(layer).__name__)
def test_other_norms_are_none_and_stay_in_train_mode(layer: nn.Module) -> None:
    net = nn.Sequential(layer).train()

    keep_statistics(net)

    assert list(batch_norms(net)) == []
    assert all(module.training for module in net.modules())


def test_the_norms_of_timm_are_told_apart_too() -> None:
    layers = pytest.importorskip("timm.layers")
    kinds = [layers.BatchNormAct2d(4), layers.FrozenBatchNormAct2d(4), layers.SyncBatchNormAct(4)]
    others = [layers.GroupNormAct(64), layers.EvoNorm2dB0(4), layers.EvoNorm2dS0(4), layers.LayerNorm2d(4)]

    assert [found for _, found in batch_norms(nn.ModuleList([*kinds, *others]))] == kinds


def test_nothing_but_the_layer_itself_is_put_in_eval_mode() -> None:
    net = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout())
    net[0].add_module("drop", nn.Dropout())  # as timm's layers hold one
    net.train()

    keep_statistics(net)

    assert {name: module.training for name, module in net.named_modules() if name} == {
        "0": False,
        "0.drop": True,
        "1": True,
    }


@pytest.mark.parametrize(
    ("backbone", "has"),
    [("resnet18", True), ("mobilenet_v3_small", True), ("vgg11", False), ("vit_b_16", False)],
)
def test_a_network_has_batch_norm_or_not(backbone: str, has: bool) -> None:
    assert has_batch_norm(backbone) is has
