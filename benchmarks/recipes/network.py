"""EfficientNet-Lite0 with ImageNet's weights: its units, its outputs, and a probe on its features."""

import copy
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import timm
import torch
from sklearn.linear_model import LogisticRegressionCV
from torch import Tensor, nn

from benchmarks.recipes.images import Subset
from benchmarks.recipes.recipes import Recipe, Share
from tlopt.model.sources import fetch

EVAL_BATCH = 64
STAGES = (1, 2, 4, 6)  # of `blocks`: the last at each of the sides 1/4, 1/8, 1/16 and 1/32


def pretrained(n_classes: int, recipe: Recipe) -> nn.Module:
    """The network with ImageNet's weights and a fresh head."""
    net: nn.Module = timm.create_model(
        "tf_efficientnet_lite0", num_classes=n_classes, drop_rate=recipe.head_dropout
    )
    blanks = [copy.deepcopy(part.state_dict()) for part in in_share(net, recipe.fresh)]
    missing, unexpected = net.load_state_dict(_body_weights(), strict=False)
    assert set(missing) == {"classifier.weight", "classifier.bias"}, missing
    assert not unexpected, unexpected
    for part, blank in zip(in_share(net, recipe.fresh), blanks, strict=True):
        part.load_state_dict(blank)
    return net.to(memory_format=torch.channels_last)


@cache
def _body_weights() -> dict[str, Tensor]:
    return {k: v for k, v in fetch("efficientnet_lite0", "").items() if not k.startswith("classifier")}


def source_classifier() -> nn.Linear:
    """ImageNet's classifier."""
    weights = fetch("efficientnet_lite0", "")
    head = nn.Linear(1280, 1000)
    head.load_state_dict({name: weights[f"classifier.{name}"] for name in ("weight", "bias")})
    return head


def stage_maps(net: nn.Module, views: Tensor) -> list[Tensor]:
    """Outputs of the stages at `STAGES`, each (n, channels, height, width)."""
    x, maps = net.bn1(net.conv_stem(views)), []  # type: ignore[operator]
    for at, stage in enumerate(net.blocks):  # type: ignore[arg-type]
        x = stage(x)
        if at in STAGES:
            maps.append(x)
    return maps


def pooled(net: nn.Module, last_map: Tensor) -> Tensor:
    """Features of the classifier's input, (n, 1280), from the last stage's output."""
    return net.global_pool(net.bn2(net.conv_head(last_map)))  # type: ignore[operator, no-any-return]


def units(net: nn.Module) -> list[nn.ModuleList]:
    """The units that shares refer to: the stem, the 16 blocks, the last convolution."""
    blocks = [nn.ModuleList([block]) for stage in net.blocks for block in stage]  # type: ignore[union-attr]
    stem, last = [net.conv_stem, net.bn1], [net.conv_head, net.bn2]
    return [nn.ModuleList(stem), *blocks, nn.ModuleList(last)]  # type: ignore[arg-type]


def in_share(net: nn.Module, share: Share) -> list[nn.ModuleList]:
    every = units(net)
    first, last = (round(part * len(every)) for part in share)
    return every[first:last]


def norms(parts: list[nn.ModuleList]) -> Iterator[nn.BatchNorm2d]:
    for part in parts:
        yield from (module for module in part.modules() if isinstance(module, nn.BatchNorm2d))


@torch.no_grad()
def outputs(net: nn.Module, subset: Subset, resolution: int) -> Tensor:
    net.eval()
    return torch.cat([net(views) for views in _batches(subset, resolution)])


def split_rows(rows: Tensor, n_rows: int) -> Sequence[Tensor]:
    return rows.split(n_rows)  # type: ignore[no-untyped-call, no-any-return]


def _batches(subset: Subset, resolution: int) -> Iterator[Tensor]:
    for views in split_rows(subset.views(resolution), EVAL_BATCH):
        yield views.contiguous(memory_format=torch.channels_last)


def features(images: Subset, resolution: int) -> Tensor:
    """Pooled features of the pretrained network: (n, 1280)."""
    net = pretrained(2, Recipe())
    net.classifier = nn.Identity()
    return outputs(net, images, resolution)


def fit_probe(train: Subset, resolution: int) -> LogisticRegressionCV:
    """Logistic regression on pooled features of the training images, C by five-fold cross-validation."""
    probe = LogisticRegressionCV(
        Cs=np.logspace(-3, 2, 6), cv=5, scoring="neg_log_loss", max_iter=300, l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )  # fmt: skip
    return probe.fit(features(train, resolution).numpy(), train.labels.numpy())
