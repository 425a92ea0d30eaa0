"""Batch-norm layers are told from other norms, and only they are put in eval mode."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from tlopt.model.norms import batch_norms, keep_statistics
from tlopt.model.rates import has_batch_norm


class Subclass(nn.BatchNorm2d):
    """A user's subclass."""


class Rewritten(nn.Module):
    """A user's batch-norm that derives from none of torch's."""

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
    Subclass(4),
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
def test_a_layer_of_any_class_with_running_statistics_is_a_batch_norm(layer: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), layer)

    assert [(name, found is layer) for name, found in batch_norms(net)] == [("1", True)]
    assert [found for _, found in batch_norms(layer)] == [layer]


@pytest.mark.parametrize("layer", OTHERS, ids=lambda layer: type(layer).__name__)
def test_other_layers_are_not_batch_norms_and_stay_in_train_mode(layer: nn.Module) -> None:
    net = nn.Sequential(layer).train()

    keep_statistics(net)

    assert list(batch_norms(net)) == []
    assert all(module.training for module in net.modules())


def test_timm_s_batch_norms_are_told_from_its_other_norms() -> None:
    layers = pytest.importorskip("timm.layers")
    kinds = [layers.BatchNormAct2d(4), layers.FrozenBatchNormAct2d(4), layers.SyncBatchNormAct(4)]
    others = [layers.GroupNormAct(64), layers.EvoNorm2dB0(4), layers.EvoNorm2dS0(4), layers.LayerNorm2d(4)]

    assert [found for _, found in batch_norms(nn.ModuleList([*kinds, *others]))] == kinds


def test_only_the_layer_itself_is_put_in_eval_mode() -> None:
    net = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout())
    net[0].add_module("drop", nn.Dropout())  # as in timm's layers
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
def test_backbones_with_and_without_batch_norm(backbone: str, has: bool) -> None:
    assert has_batch_norm(backbone) is has
