"""Regularisers of fine-tuning from the literature: L2-SP, DELTA, BSS, Co-Tuning and StochNorm.

Strengths multiply a mean over the images of a batch. DELTA's published code sums over a batch instead: its
0.01 for 48 images is 0.5 here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegressionCV
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.recipes.images import NORMAL, Images, Subset
from benchmarks.recipes.network import (
    STAGES,
    features,
    fit_probe,
    norms,
    pooled,
    pretrained,
    source_classifier,
    stage_maps,
    units,
)
from benchmarks.recipes.recipes import Recipe

SHARPNESS = 1 / 5  # of DELTA's softmax, per standard deviation of the losses, as in its published code


@dataclass(frozen=True)
class Batch:
    """The forward pass of one batch."""

    views: Tensor
    labels: Tensor
    maps: Sequence[Tensor]  # of the stages at `STAGES`
    features: Tensor  # (n, 1280)


Term = Callable[[Batch], Tensor]  # a term of the loss, with its strength


def terms_of(net: nn.Module, images: Images, recipe: Recipe) -> list[Term]:
    """The recipe's terms; gives `net` the source classifier that Co-Tuning trains."""
    terms: list[Term] = []
    if recipe.delta:
        source = pretrained(2, Recipe()).eval().requires_grad_(False)
        attention = channel_attention(images.train, recipe.resolution)
        terms.append(Delta(recipe.delta, source, attention))
    if recipe.bss:
        terms.append(lambda batch: recipe.bss * smallest_singular_values(batch.features))
    if recipe.co_tuning:
        net.source_classifier = head = source_classifier()
        temperature = source_temperature(images.train, recipe.resolution)
        relation = relationship(images.train, recipe.resolution, temperature)
        terms.append(CoTuning(recipe.co_tuning, head, temperature, relation))
    return terms


@dataclass(frozen=True)
class StartingPoint:
    """L2-SP as decoupled decay: w - rate * strength * (w - start), for convolutions only.

    Source: Li, Grandvalet and Davoine 2018, https://arxiv.org/abs/1802.01483.
    """

    strength: float
    weights: list[Tensor]
    start: list[Tensor]

    @staticmethod
    def of(net: nn.Module, strength: float) -> "StartingPoint":
        convolutions = [
            m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and m.weight.requires_grad
        ]
        held = convolutions if strength else []
        return StartingPoint(strength, held, [w.detach().clone() for w in held])

    @torch.no_grad()
    def pull(self, lr: float) -> None:
        if self.weights:
            torch._foreach_lerp_(self.weights, self.start, lr * self.strength)


def smallest_singular_values(features: Tensor, k: int = 1) -> Tensor:
    """Sum of the squares of the k smallest singular values of `features` (n, D).

    Batch spectral shrinkage: Chen et al. 2019, https://papers.nips.cc/paper/8466.
    """
    values: Tensor = torch.linalg.svdvals(features)
    return values[-k:].square().sum()


@dataclass(frozen=True)
class Delta:
    """DELTA: distance of feature maps from those of the pretrained network on the same views.

    Source: Li et al. 2019, https://openreview.net/forum?id=rkgbwsAcYm.
    """

    strength: float
    source: nn.Module
    attention: Sequence[Tensor]

    def __call__(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            start = stage_maps(self.source, batch.views)
        return self.strength * map_distance(batch.maps, start, self.attention)


def map_distance(maps: Sequence[Tensor], start: Sequence[Tensor], attention: Sequence[Tensor]) -> Tensor:
    """Half the squared distance of maps, summed over layers and channels, mean over images and positions.

    Args:
        maps: for each layer (n, C, height, width).
        attention: for each layer weights of the channels (C,), with sum 1; they are multiplied by C.
    """
    pairs = zip(maps, start, attention, strict=True)
    each = [len(own) * own @ (x - x0).square().mean(dim=(0, 2, 3)) for x, x0, own in pairs]
    return torch.stack(each).sum() / 2


def attention_weights(increases: Tensor) -> Tensor:
    """Weights of a layer's channels, with sum 1, from the increase of the loss without each of them."""
    return functional.softmax((increases - increases.mean()) / increases.std() * SHARPNESS, dim=0)


def channel_attention(train: Subset, resolution: int) -> list[Tensor]:
    """DELTA's weights of channels by stage; the head of the pretrained network is logistic regression."""
    return _channel_attention(train.files, tuple(train.labels.tolist()), resolution)


@cache
def _channel_attention(files: tuple[Path, ...], labels: tuple[int, ...], resolution: int) -> list[Tensor]:
    train = Subset(files, torch.tensor(labels))
    probe = fit_probe(train, resolution)
    weight, bias = (torch.from_numpy(part).float() for part in (probe.coef_, probe.intercept_))
    net = pretrained(2, Recipe()).eval()
    views = train.views(resolution).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        maps = stage_maps(net, views)
        return [
            attention_weights(
                torch.stack([_loss_without(net, at, x, c, train, weight, bias) for c in range(x.shape[1])])
            )
            for at, x in zip(STAGES, maps, strict=True)
        ]


def _loss_without(
    net: nn.Module, at: int, x: Tensor, channel: int, train: Subset, weight: Tensor, bias: Tensor
) -> Tensor:
    """Loss on the training images with one channel of the output `x` of stage `at` set to zero."""
    x = x.clone()
    x[:, channel] = 0
    for stage in net.blocks[at + 1 :]:  # type: ignore[index]
        x = stage(x)
    return functional.cross_entropy(pooled(net, x) @ weight.T + bias, train.labels)


@dataclass(frozen=True)
class CoTuning:
    """Co-Tuning: the source classifier, trained on too, learns the source classes that belong to the label.

    Source: You et al. 2020, https://papers.nips.cc/paper/2020/hash/c8067ad1937f728f51288b3eb986afaa-Abstract.html.
    """

    strength: float
    head: nn.Linear
    temperature: float
    relation: Tensor  # (classes, source classes)

    def __call__(self, batch: Batch) -> Tensor:
        logits = self.head(batch.features) / self.temperature
        return self.strength * functional.cross_entropy(logits, self.relation[batch.labels])


def source_temperature(train: Subset, resolution: int) -> float:
    """The temperature with which the source classifier is as uncertain as at the resolution of its training.

    The paper calibrates it on images of the source, which are not at hand. At 96 instead of 224 pixels its
    logits are three times as large, and its predictions too certain.
    """
    with torch.no_grad():
        own, trained = (
            source_classifier()(features(train, side)) for side in (resolution, NORMAL.resolution)
        )
    return float(brentq(lambda t: mean_entropy(own / t) - mean_entropy(trained), 0.01, 100))


def mean_entropy(logits: Tensor) -> float:
    """Mean entropy of the predictions, in nats."""
    return float(torch.distributions.Categorical(logits=logits).entropy().mean())  # type: ignore[no-untyped-call]


def relationship(train: Subset, resolution: int, temperature: float) -> Tensor:
    """Probabilities of source classes given a class, (classes, source classes), from the training images."""
    with torch.no_grad():
        logits = source_classifier()(features(train, resolution)) / temperature
    probabilities = functional.softmax(logits, dim=1).double().numpy()
    return torch.from_numpy(source_given_target(probabilities, train.labels.numpy())).float()


def source_given_target(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows with sum 1, (classes, source classes), by Bayes' rule from classes given source classes.

    Those are logistic regression without intercept on `probabilities` (n, source classes), as in the paper's
    code; C is chosen by log-loss in five folds, which takes the place of its calibration.
    """
    regression = LogisticRegressionCV(
        Cs=np.logspace(-2, 4, 7), cv=5, scoring="neg_log_loss", max_iter=300, l1_ratios=(0.0,),
        fit_intercept=False, use_legacy_attributes=False,
    ).fit(probabilities, labels)  # fmt: skip
    coefficients = torch.from_numpy(regression.coef_)
    given_source = functional.softmax(coefficients, dim=0).numpy()
    joint = given_source * probabilities.mean(axis=0)
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))


class StochasticNorm(nn.BatchNorm2d):
    """Batch norm that in training normalises channels, drawn anew in each step, by the running statistics.

    The others are normalised by those of the batch. The running statistics are used as they were before the
    step and updated as usual. Source: Kou et al. 2020,
    https://papers.nips.cc/paper/2020/hash/bc573864331a9e42e4511de6f678aa83-Abstract.html.
    """

    running_share = 0.5  # probability of the running statistics, of each channel and step

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean.clone(), self.running_var.clone()
        by_running = functional.batch_norm(x, mean, var, self.weight, self.bias, training=False, eps=self.eps)
        running = torch.rand(self.num_features, 1, 1) < self.running_share
        return torch.where(running, by_running, super().forward(x))


def make_stochastic(net: nn.Module, running_share: float) -> None:
    """Replace the batch-norm layers of `net`."""
    names = {id(module): name for name, module in net.named_modules()}
    for norm in list(norms(units(net))):
        own = StochasticNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        own.load_state_dict(norm.state_dict())
        own.running_share = running_share
        act: nn.Module = norm.act  # type: ignore[assignment]
        net.set_submodule(names[id(norm)], nn.Sequential(own, act))
