"""Single steps, and batches that are split into micro-batches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import Begin, MakePoint, changed, state
from torch import Tensor, nn

from tlopt.data.batches import Images
from tlopt.errors import OutOfMemory
from tlopt.model.network import Network
from tlopt.spec.point import Point
from tlopt.training import run as run_module
from tlopt.training import step as step_module
from tlopt.training.loop import Epoch, Step, steps, train_epochs
from tlopt.training.optim import ParameterGroup
from tlopt.training.run import Run


def test_each_step_is_yielded_and_behind_the_last_the_epoch(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    run, found, positions = begin(point()), list[object](), list[tuple[int, int, bool]]()

    for event in steps(run, images, train, val):
        found.append(event.index if isinstance(event, Epoch) else event)
        positions.append((run.position.epoch, run.position.step, run.position.sums is None))

    # 25 images in batches of 8: the last batch has 9
    epochs = [[Step(epoch, step, 3) for step in range(3)] for epoch in range(2)]
    assert found == [*epochs[0], 0, *epochs[1], 1]
    assert positions == [
        *[(0, 1, False), (0, 2, False), (0, 3, False), (1, 0, True)],
        *[(1, 1, False), (1, 2, False), (1, 3, False), (2, 0, True)],
    ]


def test_between_two_steps_the_optimiser_steps_once(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, taken = begin(point(), n_micro_batches=3), list[int]()
    step = run.optimizer.step

    def spy() -> None:
        taken[-1] += 1
        step()

    monkeypatch.setattr(run.optimizer, "step", spy)
    events = steps(run, images, train, None)
    for _ in range(8):
        taken.append(0)
        next(events)

    assert taken == [1, 1, 1, 0, 1, 1, 1, 0]


def test_fit_gives_the_epochs_of_steps(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    one, other = begin(point()), begin(point())

    epochs = [replace(epoch, seconds=0, confusion=None) for epoch in train_epochs(one, images, train, val)]
    events = [event for event in steps(other, images, train, val) if isinstance(event, Epoch)]

    assert epochs == [replace(epoch, seconds=0, confusion=None) for epoch in events]
    assert changed(state(one), state(other)) == set()


@pytest.mark.parametrize("n_events", range(9))
def test_a_loop_closed_anywhere_goes_on_in_another_to_the_same_bits(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray, n_events: int
) -> None:
    closed, whole = begin(point(mixup=0.2)), begin(point(mixup=0.2))
    events = steps(closed, images, train, val)
    for _ in range(n_events):
        next(events, None)
    events.close()

    list(train_epochs(closed, images, train, val))
    list(train_epochs(whole, images, train, val))

    assert changed(state(closed), state(whole)) == set()


def test_a_finished_run_yields_nothing_more(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    run = begin(point())
    list(train_epochs(run, images, train, None))

    assert list(steps(run, images, train, None)) == []


def test_the_global_generator_is_the_callers_between_two_steps(
    begin: Begin, point: MakePoint, tiny: Callable[..., Network], images: Images, train: np.ndarray
) -> None:
    run = begin(point(mixup=0.3), network=tiny(dropout=0.5))
    before = torch.get_rng_state()

    for _ in steps(run, images, train, None):
        assert torch.equal(torch.get_rng_state(), before)


def test_two_steps_draw_other_dropouts_and_the_same_step_the_same(
    begin: Begin, point: MakePoint, tiny: Callable[..., Network], images: Images, train: np.ndarray
) -> None:
    def masks() -> list[Tensor]:
        network, found = tiny(dropout=0.5), list[Tensor]()
        network.net.get_submodule("middle.3").register_forward_hook(
            lambda _module, given, out: found.append((out[:8] != 0) | (given[0][:8] == 0))
        )
        list(train_epochs(begin(point(lr=1e-9, epochs=1), network=network), images, train, None))
        return found

    first, again = masks(), masks()

    assert len(first) == 3
    assert not torch.equal(first[0], first[1])
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_step_reads_a_value_back_from_the_device(
    tiny: Callable[..., Network],
    point: MakePoint,
    images: Images,
    train: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    optimizer: str,
) -> None:
    def unfused(
        parameters: dict[str, Tensor], groups: tuple[ParameterGroup, ...], at: Point
    ) -> torch.optim.Optimizer:
        kind = torch.optim.SGD if at.optimizer == "sgd" else torch.optim.AdamW
        return kind([{"params": [parameters[name] for name in group.names]} for group in groups], lr=at.lr)

    # a device without values, for which there are no fused optimisers
    monkeypatch.setattr(run_module, "make_optimizer", unfused)
    keys = {"grad_clip": 0.1, "l2_sp": 0.1, "l2": 0.1, "class_weights": "balanced", "label_smoothing": 0.1}
    network = tiny(dropout=0.5)
    run = run_module.prepare_run(
        network,
        point(optimizer=optimizer, **keys),
        pretrained={name: tensor.clone() for name, tensor in network.net.state_dict().items()},
        labels=images.labels,
        seed=1,
        device=torch.device("meta"),
        n_classes=3,
        n_micro_batches=2,
    )

    events = steps(run, images, train, None)
    for _ in range(3):
        assert isinstance(next(events), Step)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        next(events)  # the epoch's loss is read


PLAIN: dict[str, object] = {"epochs": 1, "momentum": 0.0, "lr": 0.1, "batch_size": 12}
KNOBS: list[dict[str, object]] = [
    {},
    {"class_weights": "balanced"},
    {"label_smoothing": 0.2},
    {"class_weights": "balanced", "label_smoothing": 0.2},
    {"grad_clip": 0.01},
    {"l2_sp": 0.1, "l2": 0.1, "optimizer": "adamw", "lr": 0.01},
]


def without_norms(network: Network) -> Network:
    """The network with nothing that joins the images of a batch."""
    for name in ("stem.1", "middle.1", "top.1"):
        network.net.set_submodule(name, nn.Identity())
    return network


@pytest.mark.parametrize("n_micro_batches", [2, 3, 5, 100])
@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_pieces_train_as_the_whole_batch_where_no_norm_joins_the_images(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    train: np.ndarray,
    knob: dict[str, object],
    n_micro_batches: int,
) -> None:
    at = point(**(PLAIN | knob))
    whole, pieces = (
        begin(at, network=without_norms(tiny()), n_micro_batches=n) for n in (1, n_micro_batches)
    )
    start = state(whole)

    (wanted,), (found,) = (list(train_epochs(run, images, train, None)) for run in (whole, pieces))

    assert found.train_loss == pytest.approx(wanted.train_loss, rel=1e-6)
    assert found.train_accuracy == wanted.train_accuracy
    for name, tensor in state(whole).items():
        moved = (tensor - start[name]).abs().max()
        assert moved > 0
        # AdamW divides by the gradient's size: the last bits of a small one count
        limit = (1e-2 if at.optimizer == "adamw" else 2e-5) * moved + 6e-8
        assert (state(pieces)[name] - tensor).abs().max() <= limit, name


@pytest.mark.parametrize("knob", KNOBS, ids=str)
def test_the_gradient_of_pieces_is_that_of_the_batch(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    train: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    knob: dict[str, object],
) -> None:
    def gradients(n_micro_batches: int) -> dict[str, Tensor]:
        run = begin(point(**(PLAIN | knob)), network=without_norms(tiny()), n_micro_batches=n_micro_batches)
        next(steps(run, images, train, None))
        return {name: p.grad.clone() for name, p in run.network.net.named_parameters() if p.grad is not None}

    monkeypatch.setattr(step_module, "_pull", lambda run: None)
    wanted, found = gradients(1), gradients(5)

    assert set(wanted) == {f"{part}.0.weight" for part in ("stem", "middle", "top")} | {
        "head.weight",
        "head.bias",
    }
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-6 * gradient.norm(), name


@given(n_images=st.integers(2, 40), batch_size=st.integers(2, 40), n_micro_batches=st.integers(1, 50))
def test_every_image_is_in_one_piece_with_its_label_and_no_piece_is_of_one_image(
    begin: Begin, point: MakePoint, images: Images, n_images: int, batch_size: int, n_micro_batches: int
) -> None:
    numbered = replace(
        images,
        eval_pixels=np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 16, 16, 3)),
        labels=np.arange(40) % 3,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        flip=False,
    )
    run = begin(point(augmentation=0.0, batch_size=batch_size, epochs=1), n_micro_batches=n_micro_batches)
    pieces = []

    def spy(_run: Run, views: Tensor, labels: Tensor, *_: object) -> Tensor:
        pieces.append((views[:, 0, 0, 0].mul(255).round().int(), labels))
        return torch.zeros(2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module, "_backward", spy)
        n_steps = sum(isinstance(event, Step) for event in steps(run, numbered, np.arange(n_images), None))

    sizes = [len(labels) for _, labels in pieces]
    assert min(sizes) >= 2
    assert len(pieces) <= n_steps * n_micro_batches
    assert max(sizes) - min(sizes[:1]) <= batch_size
    assert sorted(torch.cat([indices for indices, _ in pieces]).tolist()) == list(range(n_images))
    assert all(torch.equal(indices % 3, labels) for indices, labels in pieces)


@pytest.mark.parametrize(
    ("batch_size", "n_micro_batches", "wanted"), [(12, 5, [3, 3, 2, 2, 2]), (12, 7, [2] * 6)]
)
def test_pieces_are_as_many_as_asked_for_while_each_has_two_images(
    begin: Begin,
    point: MakePoint,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    n_micro_batches: int,
    wanted: list[int],
) -> None:
    sizes, backward = list[int](), step_module._backward

    def spy(run: Run, views: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(views))
        return backward(run, views, *rest)

    monkeypatch.setattr(step_module, "_backward", spy)
    next(
        steps(
            begin(point(batch_size=batch_size), n_micro_batches=n_micro_batches), images, np.arange(24), None
        )
    )

    assert sizes == wanted


def test_a_batch_of_one_image_alone_is_one_piece(
    begin: Begin, point: MakePoint, tiny: Callable[..., Network], images: Images
) -> None:
    run = begin(point(epochs=1), network=without_norms(tiny()), n_micro_batches=4)

    assert len(list(steps(run, images, np.array([5]), None))) == 2


@pytest.mark.parametrize(
    "refusal",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes\nmore"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
@pytest.mark.parametrize("planted_in", ["forward", "backward", "step"])
def test_a_refusal_of_memory_amid_the_pieces_is_out_of_memory(
    begin: Begin,
    point: MakePoint,
    images: Images,
    train: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Exception,
    planted_in: str,
) -> None:
    run = begin(point(), n_micro_batches=4)
    calls = []

    def refuse(*_: object) -> None:
        calls.append(1)
        # the third piece of the second step, or the second step
        if len(calls) == (2 if planted_in == "step" else 7):
            raise refusal

    match planted_in:
        case "forward":
            run.network.head.register_forward_pre_hook(refuse)
        case "backward":
            run.network.head.register_full_backward_hook(refuse)
        case "step":
            monkeypatch.setattr(run.optimizer, "step", refuse)
    events = steps(run, images, train, None)
    next(events)

    with pytest.raises(OutOfMemory) as caught:
        next(events)
    assert "\n" not in str(caught.value)


def test_an_error_of_the_callers_between_two_steps_stays_what_it_is(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    def caller() -> Iterator[None]:
        for _ in steps(begin(point()), images, train, None):
            raise RuntimeError("the caller's GPU is out of memory")
            yield

    with pytest.raises(RuntimeError, match="the caller's"):
        next(caller())
