"""Warnings about combinations of keys that probably do not have the intended effect."""

from collections.abc import Iterator

from tlopt.model.facts import BackboneFacts
from tlopt.search.repeated_views import dimension_of, n_repeated_views
from tlopt.search.space import classifiers, idle_structure_keys
from tlopt.spec import PerOptimizer, Study, dimensions
from tlopt.spec.dimensions import Fixed
from tlopt.spec.objectives import percent_words
from tlopt.spec.search_keys import DEFAULT_L2, LINEAR_KEYS, NECK_KEYS, RULES
from tlopt.spec.trial_spec import PruneSpec
from tlopt.system.words import counted


def study_warnings(study: Study, facts: BackboneFacts) -> Iterator[str]:
    """Warn about combinations of keys; of linear classifiers alone, about keys without effect."""
    yield from noise_warnings(study)
    yield from prune_warnings(study)
    if "network" not in classifiers(study):
        yield from linear_warnings(study)
        return
    if "classifier" in study.search and not facts.transferable:
        yield "classifier is not drawn: linear classifiers need features of pretrained weights"
    yield from epoch_warnings(study)
    yield from pull_warnings(study, facts)
    yield from norm_warnings(study, facts)
    yield from structure_warnings(study, facts)
    yield from view_warnings(study)


def prune_warnings(study: Study) -> Iterator[str]:
    """Warn about a table `[prune]` that asks for no pruning."""
    if not study.prune.goals and study.prune != PruneSpec():
        yield "[prune] has no effect: name the shares to keep, such as multiply_adds = [0.5]"


def linear_warnings(study: Study) -> Iterator[str]:
    """Warn about keys that a study of linear classifiers alone does not use."""
    idle = [name for name in study.search if name not in LINEAR_KEYS]
    if idle:
        has = "has" if len(idle) == 1 else "have"
        yield (
            f"{', '.join(idle)} {has} no effect: every trial is a linear classifier on frozen features; leave"
            ' them out, or add "network" to the choices of classifier'
        )


def epoch_warnings(study: Study) -> Iterator[str]:
    """Warn about numbers of epochs with which another key has no effect."""
    epochs = study.budget.epochs
    min_epochs = getattr(study.pruner, "min_epochs", 0)
    if min_epochs >= epochs:
        yield (
            f"pruner.min_epochs = {min_epochs} leaves nothing to prune, since trials end after budget.epochs"
            f' = {epochs}; lower it, or set pruner.kind = "none"'
        )
    head_first = max(map(int, dimensions.bounds(_dimension(study, "head_first_epochs", 0))))
    shortest = min(map(int, dimensions.bounds(_dimension(study, "epochs", epochs))))
    if head_first >= shortest:
        yield (
            f"head_first_epochs = {head_first} covers all {counted(shortest, 'epoch')} of a trial: such"
            " trials train the head only"
        )


def _dimension(study: Study, name: str, default: int) -> dimensions.Dimension:
    found = study.search.get(name, Fixed(default))
    assert not isinstance(found, PerOptimizer), f"{name} has one range"
    return found


def pull_warnings(study: Study, facts: BackboneFacts) -> Iterator[str]:
    """Warn, per optimiser and penalty, if the largest lr·λ in the ranges makes training diverge.

    Anchored weights have the rate lr·lr_ratio and the strength l2_sp + l2_anchored; others have a rate up to
    lr·max(1, lr_ratio) and the strength l2. lr_decay only lowers rates.
    """
    optimizers = study.search.get("optimizer", Fixed(RULES["optimizer"].default or "adamw"))
    assert not isinstance(optimizers, PerOptimizer), "the optimizer has one range"
    for optimizer in map(str, dimensions.bounds(optimizers)):
        high = {name: _highest(study, facts, name, optimizer) for name in _KEYS}
        bound = stability_bound(optimizer, high["momentum"])
        pulls = {
            "l2_sp": high["lr"] * high["lr_ratio"] * (high["l2_sp"] + high["l2_anchored"]),
            "l2": high["lr"] * max(1.0, high["lr_ratio"]) * high["l2"],
        }
        for name, reached in pulls.items():
            if reached >= bound:
                yield (
                    f"with {optimizer}, learning rate times {name} reaches {reached:.2g}, but training"
                    f" diverges from {bound:.2g} on: lower one of the ranges"
                )


_KEYS = ("lr", "lr_ratio", "l2_sp", "l2_anchored", "l2", "momentum")


def _highest(study: Study, facts: BackboneFacts, name: str, optimizer: str) -> float:
    """The highest value of a key for `optimizer`, or its default if the study file lacks it."""
    usual = {
        "lr": max(rates[optimizer] for rates in facts.plain_lr.values()),
        "l2": DEFAULT_L2[optimizer],
    }
    dimension = study.search.get(name, Fixed(usual.get(name, RULES[name].default or 0.0)))
    one = getattr(dimension, optimizer) if isinstance(dimension, PerOptimizer) else dimension
    return max(float(value) for value in dimensions.bounds(one))


def stability_bound(optimizer: str, momentum: float) -> float:
    """The smallest lr·λ at which a pull diverges: 2 for AdamW, 2(1 + m)/(1 + 2m) for SGD with Nesterov m.

    The latter is where a root of z² − (1 + m)(1 − x)z + m(1 − x) reaches −1, with x = lr·λ.
    """
    if optimizer == "adamw":
        return 2.0
    return 2 * (1 + momentum) / (1 + 2 * momentum)


def norm_warnings(study: Study, facts: BackboneFacts) -> Iterator[str]:
    """Warn if norm_depth or norm_affine is searched or set without effect."""
    depths = dimensions.bounds(dimension_of(study, "norm_depth"))
    backbones = study.model.backbones
    without = [backbone for backbone in backbones if not facts.batch_norm[backbone]]
    if depths == (0,):
        if "norm_affine" in study.search:
            yield "norm_affine has no effect without norm_depth: no batch-norm layer keeps its statistics"
    elif without:
        effect = "is not drawn" if len(without) == len(backbones) else "comes to 0 there"
        yield f"{', '.join(without)}: there are no batch-norm layers, and norm_depth {effect}"


def structure_warnings(study: Study, facts: BackboneFacts) -> Iterator[str]:
    """Warn about keys of network structure without effect in any trial."""
    idle = idle_structure_keys(study, facts)
    reasons = dict.fromkeys(NECK_KEYS, "no trial has a neck; set or search neck_layers")
    if "neck_layers" in idle:
        reasons = dict.fromkeys(NECK_KEYS, "no trial shortens the backbone; set or search backbone_depth")
    reasons["activation"] = "there is no layer with one; set or search neck_layers or head_layers"
    for name, reason in reasons.items():
        if name in idle & study.search.keys():
            yield f"{name} has no effect: {reason}"


def noise_warnings(study: Study) -> Iterator[str]:
    """Warn if training labels are made false."""
    most = max(map(float, dimensions.bounds(dimension_of(study, "label_noise"))))
    if most:
        yield (
            f"label_noise: up to {percent_words(most)} of the training images get a FALSE LABEL on purpose;"
            " for experiments, never for a network that is to be used"
        )


def view_warnings(study: Study) -> Iterator[str]:
    """Warn about keys that make fixed views useless, because their features cannot be cached."""
    if study.data.views == 0:
        return
    vain = f"data.views = {study.data.views} then only limits the views, whose features cannot be cached"
    if n_repeated_views(study) == 0:
        yield f"augmentation has a range, so no strength is drawn twice: {vain}; list strengths with choice"
    if min(map(float, dimensions.bounds(dimension_of(study, "mixup")))) > 0:
        yield f"mixup blends different images in each step: {vain}; set data.views = 0 or mixup = 0"
