"""The training loop is repeatable to the bit, equals plain torch, and reports how it ends."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import Begin, MakePoint, changed, state
from torch import Tensor

from tlopt.data import batches as images_module
from tlopt.data.batches import Images, batches
from tlopt.data.views import epoch_draws, training_views
from tlopt.model.network import Network
from tlopt.spec.point import Point, seed_for
from tlopt.training import loop as loop
from tlopt.training import penalty
from tlopt.training.loop import Epoch, predict_logits, train_epochs
from tlopt.training.run import Run


def measured(epochs: Iterator[Epoch]) -> list[tuple[object, ...]]:
    """Everything of some epochs but their seconds, as values that compare."""
    return [(e.index, e.train_loss, e.train_accuracy, e.val, np.array(e.confusion).tolist()) for e in epochs]


BUSY = {"mixup": 0.3, "l2_sp": 0.1, "l2": 0.01, "schedule": "cosine", "warmup_fraction": 0.2}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_same_seed_gives_the_same_epochs_and_weights_to_the_bit(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    train: np.ndarray,
    val: np.ndarray,
    optimizer: str,
) -> None:
    at = point(optimizer=optimizer, lr=0.01, **BUSY)
    first, second = (begin(at, seed=4, network=tiny(dropout=0.3)) for _ in range(2))

    found = measured(train_epochs(first, images, train, val))
    torch.rand(7)  # what happens to the global generator between two runs is nobody's business
    again = measured(train_epochs(second, images, train, val))

    assert again == found
    assert changed(state(first), state(second)) == set()


def test_another_seed_gives_other_epochs(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    losses = [next(train_epochs(begin(point(), seed=seed), images, train, val)).train_loss for seed in (1, 2)]

    assert losses[0] != losses[1]


def test_without_strength_training_is_plain_torch_to_the_bit(
    begin: Begin, point: MakePoint, tiny: Callable[..., Network], images: Images, train: np.ndarray
) -> None:
    run = begin(point(), seed=4)
    list(train_epochs(run, images, train, None))

    plain = tiny()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, nesterov=True, fused=True)
    plain_epochs(plain, optimizer, images, train, run)

    assert changed(state(run), plain.net.state_dict()) == set()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_pull_to_zero_is_torchs_weight_decay(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    train: np.ndarray,
    optimizer: str,
) -> None:
    run = begin(point(optimizer=optimizer, lr=0.01, l2=0.2, transfer_depth=0), seed=4)
    list(train_epochs(run, images, train, None))

    plain = tiny()
    matrices = [p for p in plain.parameters() if p.dim() > 1]
    others = [p for p in plain.parameters() if p.dim() == 1]
    rows = [{"params": matrices, "weight_decay": 0.2}, {"params": others, "weight_decay": 0.0}]
    reference: torch.optim.Optimizer
    if optimizer == "sgd":
        reference = torch.optim.SGD(rows, lr=0.01, momentum=0.9, nesterov=True)
    else:
        reference = torch.optim.AdamW(rows, lr=0.01, betas=(0.9, 0.999))
    plain_epochs(plain, reference, images, train, run)

    for name, tensor in plain.net.state_dict().items():
        torch.testing.assert_close(run.network.net.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def plain_epochs(
    network: Network, optimizer: torch.optim.Optimizer, images: Images, train: np.ndarray, run: Run
) -> None:
    """The epochs of `run` on `network` in place, as a plain script would write them."""
    network.train()
    for epoch in range(run.point.epochs):
        order = np.random.default_rng(seed_for(run.seed, "order", epoch)).permutation(train)
        draws = epoch_draws(seed_for(run.seed, "views"), epoch, len(images.labels))
        for indices in batches(order, run.point.batch_size):
            views = training_views(
                torch.from_numpy(images.training_pixels[indices]),
                resolution=run.point.resolution,
                strength=run.point.augmentation,
                flip=images.flip,
                mean=images.mean,
                std=images.std,
                draws=draws[indices],
            )
            optimizer.zero_grad()
            F.cross_entropy(network(views), torch.from_numpy(images.labels[indices])).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def test_the_loss_falls_and_validation_becomes_better_than_guessing(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    epochs = list(train_epochs(begin(point(epochs=8)), images, train, val))

    assert [epoch.index for epoch in epochs] == list(range(8))
    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss
    assert epochs[-1].val is not None
    assert epochs[-1].val.accuracy > 0.8


def test_the_confusion_counts_every_validation_image_under_its_class(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    epoch = next(train_epochs(begin(point()), images, train, val))

    assert epoch.confusion is not None
    assert epoch.confusion.sum(axis=1).tolist() == np.bincount(images.labels[val], minlength=3).tolist()


def test_the_training_loss_is_the_mean_over_images_also_with_an_uneven_last_batch(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    # a rate too small to move anything: every image is judged by the same network in eval mode but the head
    run = begin(point(lr=1e-8, momentum=0.0, augmentation=0.0, freeze_depth=3, epochs=1))
    unmirrored = replace(images, flip=False)

    epoch = next(train_epochs(run, unmirrored, train, None))

    logits = torch.from_numpy(predict_logits(run, unmirrored, train))
    wanted = F.cross_entropy(logits, torch.from_numpy(images.labels[train])).item()
    assert epoch.train_loss == pytest.approx(wanted, rel=1e-5)
    hits = (logits.argmax(dim=1).numpy() == images.labels[train]).mean()
    assert epoch.train_accuracy == pytest.approx(hits)


def test_validation_does_not_change_the_training(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    with_val, without = begin(point()), begin(point())

    list(train_epochs(with_val, images, train, val))
    epochs = list(train_epochs(without, images, train, None))

    assert [(epoch.val, epoch.confusion) for epoch in epochs] == [(None, None)] * 2
    assert changed(state(with_val), state(without)) == set()


KNOBS = [
    {"mixup": 0.4},
    {"label_smoothing": 0.1},
    {"class_weights": "balanced"},
    {"class_weights": "balanced", "mixup": 0.4, "label_smoothing": 0.1},
    {"grad_clip": 0.01},
    {"optimizer": "adamw"},
    {"momentum": 0.0},
    {"optimizer": "adamw", "momentum": 0.0},
    {"schedule": "linear"},
    {"warmup_fraction": 0.5},
    {"augmentation": 0.0},
    {"augmentation": 1.0},
    {"l2_sp": 0.5},
    {"l2": 0.5},
    {"l2_anchored": 0.5},
    {"lr_ratio": 0.1},
    {"lr_decay": 0.5},
    {"lr_ratio": 0.0},
    {"freeze_depth": 1},
    {"anchor_depth": 1, "l2_sp": 0.5},
    {"batch_size": 5},
    {"head_first_epochs": 1},
]


@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_every_knob_trains_and_changes_the_weights(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, knob: dict[str, object]
) -> None:
    run, plain = begin(point(**knob)), begin(point())

    losses = [epoch.train_loss for epoch in train_epochs(run, images, train, None)]
    list(train_epochs(plain, images, train, None))

    assert np.isfinite(losses).all()
    assert "head.weight" in changed(state(run), state(plain))


def test_mixup_of_one_kind_of_image_with_itself_changes_only_the_views(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    same = replace(
        images, eval_pixels=np.full_like(images.eval_pixels, 90), labels=np.zeros_like(images.labels)
    )
    mixed, plain = (begin(point(mixup=mixup, augmentation=0.0)) for mixup in (0.4, 0.0))

    losses = [[epoch.train_loss for epoch in train_epochs(run, same, train, None)] for run in (mixed, plain)]

    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_network_on_its_anchors_with_a_frozen_rate_stays_there_to_the_bit(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    run = begin(point(optimizer="adamw", l2_sp=0.3, lr_ratio=0.0))
    before = state(run)

    list(train_epochs(run, images, train, None))

    moved = changed(before, state(run))
    assert {name for name in moved if not name.startswith("head.")} == {
        name for name in before if "running" in name or "num_batches" in name
    }


def test_an_epoch_leaves_the_global_generators_as_they_were(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    train: np.ndarray,
    val: np.ndarray,
) -> None:
    epochs = train_epochs(begin(point(mixup=0.3), network=tiny(dropout=0.5)), images, train, val)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]

    next(epochs)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert random.getstate() == before[2]


def test_a_run_closed_early_has_trained_only_the_epochs_it_gave(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    closed, whole = begin(point(epochs=3)), begin(point(epochs=3))
    epochs, reference = train_epochs(closed, images, train, val), train_epochs(whole, images, train, val)

    next(epochs)
    next(reference)
    epochs.close()

    assert list(epochs) == []
    assert changed(state(closed), state(whole)) == set()


def test_order_and_views_of_an_epoch_depend_on_seed_and_epoch_alone(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def spy(pixels: Tensor, **rest: object) -> Tensor:
        views = training_views(pixels, **rest)  # type: ignore[arg-type]
        seen.append(views.clone())
        return views

    monkeypatch.setattr(images_module, "training_views", spy)

    def views_of_epoch_1(at: Point, seed: int) -> Tensor:
        seen.clear()
        epochs = train_epochs(begin(at, seed=seed), images, train, None)
        next(epochs)
        seen.clear()
        next(epochs)
        return torch.cat(seen)

    first = views_of_epoch_1(point(epochs=2), 1)
    other_run = point(epochs=5, lr=0.001, mixup=0.5, freeze_depth=2, head_first_epochs=1, optimizer="adamw")
    assert torch.equal(views_of_epoch_1(other_run, 1), first)
    assert not torch.equal(views_of_epoch_1(point(epochs=2), 2), first)


def test_two_epochs_see_other_orders_and_other_views(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def spy(pixels: Tensor, *, draws: Tensor, **rest: object) -> Tensor:
        seen.append(draws)
        return training_views(pixels, draws=draws, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(images_module, "training_views", spy)

    list(train_epochs(begin(point()), images, train, None))

    first, second = torch.cat(seen).chunk(2)
    assert not set(first[:, 0].tolist()) & set(second[:, 0].tolist())


def test_rates_follow_the_schedule_step_by_step(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 25 images in batches of 8 are 3 steps an epoch, 6 in all; the first third is warm-up
    run = begin(point(schedule="linear", warmup_fraction=1 / 3, lr=0.4, lr_ratio=0.5))
    rates = []
    step = run.optimizer.step

    def spy() -> None:
        rates.append([group["lr"] for group in run.optimizer.param_groups])
        step()

    monkeypatch.setattr(run.optimizer, "step", spy)

    list(train_epochs(run, images, train, None))

    factors = [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4]
    assert [row[0] for row in rates] == pytest.approx([0.4 * factor for factor in factors])
    assert [row[1] for row in rates] == pytest.approx([0.2 * factor for factor in factors])


def test_the_clipped_gradient_has_the_norm_asked_for_before_the_pull(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(point(grad_clip=1e-3, l2_sp=0.5, epochs=1))
    norms = []

    def spy(pulls: object) -> None:
        gradients = [p.grad for p in run.network.parameters() if p.grad is not None]
        norms.append(torch.stack([g.norm() for g in gradients]).norm().item())

    monkeypatch.setattr(penalty, "add_to_gradients", spy)

    list(train_epochs(run, images, train, None))

    assert norms == pytest.approx([1e-3] * 3, rel=1e-3)


def test_balanced_weights_make_every_class_count_the_same(begin: Begin, point: MakePoint) -> None:
    # 18, 12 and 6 images of three classes
    weights = begin(point(class_weights="balanced")).class_weights

    assert weights is not None
    assert weights.tolist() == pytest.approx([36 / (3 * 18), 36 / (3 * 12), 36 / (3 * 6)])


def test_logits_come_in_the_order_asked_for_whatever_the_chunks(
    begin: Begin, point: MakePoint, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(point())
    indices = np.array([30, 2, 17, 5, 9])
    whole = predict_logits(run, images, indices)

    monkeypatch.setattr(loop, "EVAL_BATCH_SIZE", 2)
    pieces = predict_logits(run, images, indices)

    assert whole.shape == (5, 3)
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    np.testing.assert_allclose(predict_logits(run, images, indices[::-1].copy()), whole[::-1], atol=1e-6)
