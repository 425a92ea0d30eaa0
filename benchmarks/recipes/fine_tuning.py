"""Fine-tuning of EfficientNet-Lite0 by a recipe, in plain torch; no part of tlopt's training is used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from benchmarks.recipes.images import NORMAL, Images
from benchmarks.recipes.network import (
    features,
    fit_probe,
    in_share,
    norms,
    outputs,
    pooled,
    pretrained,
    split_rows,
    stage_maps,
    units,
)
from benchmarks.recipes.recipes import LAST, Recipe
from benchmarks.recipes.regularisers import Batch, StartingPoint, Term, make_stochastic, terms_of
from tlopt.data.views import epoch_draws, training_views
from tlopt.spec.point import seed_for

STRENGTH = 0.25  # of augmentation: crops of 81 to 100 % of a window's area, colour factors within 10 %
DECAY = 0.01  # AdamW's weight decay
DECAYS = (0.9, 0.99)  # of exponential means of weights, per step
TAIL_EPOCHS = 3  # whose last weights are averaged
Scores = dict[str, float]


def prepare(net: nn.Module, recipe: Recipe) -> list[nn.BatchNorm2d]:
    """The batch-norm layers whose statistics are kept; freezes what the recipe does not train."""
    trained = {id(p) for part in in_share(net, recipe.trained) for p in part.parameters()}
    frozen = [part for part in units(net) if not all(id(p) in trained for p in part.parameters())]
    for part in frozen:
        part.requires_grad_(False)
    kept = [*norms(in_share(net, recipe.kept)), *norms(frozen)]
    for norm in norms(units(net)):
        norm.momentum = recipe.bn_momentum
        if not recipe.affine_trained:
            norm.requires_grad_(False)
    if recipe.stoch_norm:
        make_stochastic(net, recipe.stoch_norm)
    return kept


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    fresh = [p for part in in_share(net, recipe.fresh) for p in part.parameters()]
    head = [*net.classifier.parameters(), *fresh]  # type: ignore[union-attr]
    own = {id(p) for p in head}
    body = [p for p in net.parameters() if p.requires_grad and id(p) not in own]
    rows: list[dict[str, Any]] = [
        {"params": body, "lr": recipe.body_lr},
        {"params": head, "lr": recipe.head_lr},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(rows, lr=recipe.body_lr, momentum=0.9)
    return torch.optim.AdamW(rows, lr=recipe.body_lr, weight_decay=DECAY, fused=True)


def factor(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Factor for the peak learning rate: a linear warm-up, then a cosine."""
    n_warmup = round(warmup_fraction * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return float(0.5 * (1 + np.cos(np.pi * (step - n_warmup) / (n_steps - n_warmup))))


@dataclass
class Average:
    """A mean of the network's floating-point tensors, batch-norm statistics among them."""

    decay: float | None  # of each step; None: the plain mean of what is added
    tensors: list[Tensor]
    n_added: int = 0

    def add(self, net: nn.Module) -> None:
        """Add the network's current tensors; those before the first step are not part of the mean."""
        n, decay = self.n_added, self.decay
        stays = n / (n + 1) if decay is None else decay * (1 - decay**n) / (1 - decay ** (n + 1))
        torch._foreach_lerp_(self.tensors, floating(net), 1 - stays)
        self.n_added += 1

    def put(self, net: nn.Module) -> None:
        torch._foreach_copy_(floating(net), self.tensors)


def floating(net: nn.Module) -> list[Tensor]:
    return [tensor for tensor in net.state_dict().values() if tensor.is_floating_point()]


def copies(net: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in floating(net)]


def batch_loss(
    net: nn.Module,
    views: Tensor,
    labels: Tensor,
    recipe: Recipe,
    draws: np.random.Generator,
    terms: Sequence[Term] = (),
) -> Tensor:
    """Mean cross-entropy of one batch, and the terms of regularisers."""
    if terms:
        assert not recipe.mixup, "maps are compared with those of the views as they are"
        maps = stage_maps(net, views)
        batch = Batch(views, labels, maps, pooled(net, maps[-1]))
        logits = net.classifier(batch.features)  # type: ignore[operator]
        own = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        return own + sum(term(batch) for term in terms)
    smoothing = recipe.label_smoothing
    if not recipe.mixup:
        return functional.cross_entropy(net(views), labels, label_smoothing=smoothing)
    share = float(draws.beta(recipe.mixup, recipe.mixup))
    others = torch.from_numpy(draws.permutation(len(labels)))
    logits = net(share * views + (1 - share) * views[others])
    ours = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    theirs = functional.cross_entropy(logits, labels[others], label_smoothing=smoothing)
    return share * ours + (1 - share) * theirs


def epoch_views(pixels: Tensor, resolution: int, seed: int, epoch: int) -> Tensor:
    views = training_views(
        pixels, resolution=resolution, strength=STRENGTH, flip=True, mean=NORMAL.mean, std=NORMAL.std,
        draws=epoch_draws(seed, epoch, len(pixels)),
    )  # fmt: skip
    return views.contiguous(memory_format=torch.channels_last)


@dataclass
class Run:
    """A network in training."""

    net: nn.Module
    recipe: Recipe
    kept: list[nn.BatchNorm2d]
    optimizer: torch.optim.Optimizer
    draws: np.random.Generator
    n_steps: int
    averages: dict[str, Average]
    terms: Sequence[Term]
    start_weights: StartingPoint
    step: int = 0

    @staticmethod
    def start(images: Images, recipe: Recipe, seed: int, *, averaged: bool) -> "Run":
        """A run before its first step; seeds torch's generator, which draws the head and its dropout."""
        own = seed_for("recipe", seed, recipe.order)
        torch.manual_seed(own)
        net = pretrained(images.n_classes, recipe)
        kept = prepare(net, recipe)
        start_head(net, images, recipe)
        terms = terms_of(net, images, recipe)
        averages = {f"EMA {decay}": Average(decay, copies(net)) for decay in DECAYS} if averaged else {}
        n_steps = recipe.epochs * -(-len(images.train.labels) // recipe.batch_size)
        return Run(
            net, recipe, kept, make_optimizer(net, recipe), np.random.default_rng(own), n_steps, averages,
            terms, StartingPoint.of(net, recipe.l2_sp),
        )  # fmt: skip

    def train_epoch(self, views: Tensor, labels: Tensor, epoch: int) -> None:
        self.net.train()
        for norm in self.kept:
            norm.eval()
        body = self.optimizer.param_groups[0]["params"]
        for tensor in body:
            tensor.requires_grad_(epoch >= self.recipe.head_first_epochs)
        for batch in split_rows(
            torch.from_numpy(self.draws.permutation(len(labels))), self.recipe.batch_size
        ):
            self.take_step(views[batch], labels[batch])
            for average in self.averages.values():
                average.add(self.net)

    def take_step(self, views: Tensor, labels: Tensor) -> None:
        recipe, share = self.recipe, factor(self.step, self.n_steps, self.recipe.warmup_fraction)
        for row, peak in zip(self.optimizer.param_groups, (recipe.body_lr, recipe.head_lr), strict=True):
            row["lr"] = peak * share
        self.optimizer.zero_grad()
        loss = batch_loss(self.net, views, labels, recipe, self.draws, self.terms)
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.grad_clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), recipe.grad_clip)
        self.start_weights.pull(recipe.body_lr * share)
        self.optimizer.step()
        self.step += 1


def fine_tune(images: Images, recipe: Recipe, seed: int, *, averaged: bool) -> dict[str, Scores]:
    """Scores by the weights that are scored: the last, and if `averaged` means of them and new statistics."""
    run = Run.start(images, recipe, seed, averaged=averaged)
    pixels, tail = images.train.training_pixels(recipe.resolution), Average(None, copies(run.net))
    for epoch in range(recipe.epochs):
        views = epoch_views(pixels, recipe.resolution, seed_for("views", seed, recipe.order), epoch)
        run.train_epoch(views, images.train.labels, epoch)
        if epoch >= recipe.epochs - TAIL_EPOCHS:
            tail.add(run.net)
    scores = {LAST: score(run.net, images, recipe.resolution)}
    if averaged:
        scores["statistics computed anew"] = with_new_statistics(run.net, views, images, recipe)
        for name, average in {**run.averages, "mean of the last three epochs": tail}.items():
            average.put(run.net)
            scores[name] = score(run.net, images, recipe.resolution)
    return scores


def with_new_statistics(net: nn.Module, views: Tensor, images: Images, recipe: Recipe) -> Scores:
    """Scores with the batch-norm statistics of the last epoch's views; `net` has its own again afterwards."""
    before = copies(net)
    update_bn(split_rows(views, recipe.batch_size), net)
    scores = score(net, images, recipe.resolution)
    torch._foreach_copy_(floating(net), before)
    return scores


def score(net: nn.Module, images: Images, resolution: int) -> Scores:
    """Accuracy, in [0, 1], and log-loss on validation and test images."""
    pairs = {"val": images.val, "test": images.test}
    return measures({k: (outputs(net, s, resolution), s.labels) for k, s in pairs.items()})


def measures(logits: Mapping[str, tuple[Tensor, Tensor]]) -> Scores:
    scores = {}
    for split, (rows, labels) in logits.items():
        scores[f"{split}_accuracy"] = float((rows.argmax(1) == labels).float().mean())
        scores[f"{split}_log_loss"] = float(functional.cross_entropy(rows, labels))
    return scores


@torch.no_grad()
def start_head(net: nn.Module, images: Images, recipe: Recipe) -> None:
    """Initialise the head as the recipe says; it already has timm's own initialisation."""
    head = net.classifier
    assert isinstance(head, nn.Linear)
    if recipe.head_start == "linear":
        head.reset_parameters()
    elif recipe.head_start == "zeros":
        nn.init.zeros_(head.weight)
    elif recipe.head_start == "probe":
        probe = fit_probe(images.train, recipe.resolution)
        head.weight.copy_(torch.from_numpy(probe.coef_))
        head.bias.copy_(torch.from_numpy(probe.intercept_))


def score_probe(images: Images, resolution: int) -> dict[str, Scores]:
    """Scores of logistic regression on pooled features."""
    probe = fit_probe(images.train, resolution)
    rows = {}
    for split, subset in {"val": images.val, "test": images.test}.items():
        logits = probe.decision_function(features(subset, resolution).numpy())
        rows[split] = (torch.from_numpy(logits), subset.labels)
    return {LAST: measures(rows)}
