"""A run resumed from a checkpoint equals an uninterrupted one, to the bit."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import Begin, MakePoint, coloured
from torch import Tensor

from tlopt.data.batches import Images
from tlopt.model.build import build
from tlopt.model.head import make_head
from tlopt.model.network import Network
from tlopt.model.weights import load_weights
from tlopt.spec.point import Point
from tlopt.training.checkpoint import apply, pack, unpack
from tlopt.training.loop import Epoch, Step, steps, train_epochs
from tlopt.training.run import Run, prepare_run

Outcome = tuple[dict[str, str], list[str]]
ID = "trial 3 of planted"


@dataclass(frozen=True)
class Course:
    """A run that can be begun again and again, and what it trains on."""

    begin: Callable[[], Run]
    images: Images
    train: np.ndarray
    val: np.ndarray | None

    def events(self, run: Run) -> Iterator[Step | Epoch]:
        return steps(run, self.images, self.train, self.val)


def outcome(run: Run, epochs: list[Epoch]) -> Outcome:
    """All that a run leaves: digests of tensors and moments, and the epochs but for their seconds."""
    tensors = dict(run.network.net.state_dict())
    for index, row in run.optimizer.state_dict()["state"].items():
        tensors |= {f"{key} of {index}": tensor for key, tensor in row.items()}
    return {name: digest(tensor) for name, tensor in tensors.items()}, [measured(epoch) for epoch in epochs]


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(-1).numpy().tobytes()).hexdigest()


def measured(epoch: Epoch) -> str:
    val = None if epoch.val is None else epoch.val.as_dict()
    counts = None if epoch.confusion is None else epoch.confusion.tolist()
    return json.dumps([epoch.index, epoch.train_loss, epoch.train_accuracy, val, counts])


def undisturbed(course: Course) -> tuple[Outcome, int]:
    """The outcome of an uninterrupted run, and its number of yields."""
    run = course.begin()
    events = list(course.events(run))
    return outcome(run, [event for event in events if isinstance(event, Epoch)]), len(events)


def interrupted(course: Course, after: Collection[int]) -> Outcome:
    """The outcome of a run that is resumed from a checkpoint after each of these yields."""
    run, epochs, count = course.begin(), list[Epoch](), 0
    events = course.events(run)
    while (event := next(events, None)) is not None:
        epochs += [event] if isinstance(event, Epoch) else []
        if count in after:
            data = pack([run], epochs, identity=ID, facts={})
            run = course.begin()
            torch.rand(1 + count)  # the global generator is nobody's business
            checkpoint = unpack(data, identity=ID)
            apply(checkpoint, [run])
            epochs, events = list(checkpoint.epochs), course.events(run)
        count += 1
    return outcome(run, epochs)


SGD: dict[str, object] = {
    "l2_sp": 0.1,
    "l2": 0.01,
    "l2_anchored": 0.02,
    "anchor_depth": 2,
    "grad_clip": 0.5,
    "schedule": "cosine",
    "warmup_fraction": 0.2,
}
ADAMW = {**SGD, "optimizer": "adamw", "lr": 0.01}
COURSES: dict[str, dict[str, object]] = {
    "sgd": SGD,
    "sgd without momentum": {**SGD, "momentum": 0.0},
    "adamw": ADAMW,
    "head first": {**SGD, "epochs": 3, "head_first_epochs": 1},
    "head first, adamw": {**ADAMW, "epochs": 3, "head_first_epochs": 2},
    "mixup": {"mixup": 0.3},
    "mixup in pieces": {"mixup": 0.3, "n_micro_batches": 3},
    "dropout": {"dropout": 0.5},
    "dropout in pieces": {"dropout": 0.5, "n_micro_batches": 2},
    "dropout in the head": {"head_layers": 2, "head_width": 8, "head_dropout": 0.5},
    "frozen": {**SGD, "freeze_depth": 1},
    "kept statistics": {**ADAMW, "freeze_depth": 1, "norm_depth": 3},
    "kept batch-norm layers": {**SGD, "norm_depth": 2, "norm_affine": "keep"},
    "head first, kept statistics": {**ADAMW, "epochs": 3, "head_first_epochs": 1, "norm_depth": 3},
    "frozen but for the head": {**SGD, "freeze_depth": 3},
    "fresh": {**SGD, "transfer_depth": 1, "anchor_depth": 1, "lr_ratio": 0.1, "lr_decay": 0.5},
    "balanced": {"class_weights": "balanced", "label_smoothing": 0.1, "n_micro_batches": 2},
    "without validation": {"validated": False},
    "strong views": {"augmentation": 1.0, "batch_size": 5},
}


@pytest.fixture(scope="session")
def course(
    begin: Begin,
    point: MakePoint,
    tiny: Callable[..., Network],
    images: Images,
    train: np.ndarray,
    val: np.ndarray,
) -> Callable[..., Course]:
    """A course of a point on the tiny network; takes its dropout and the number of pieces as well."""

    def make(
        *, dropout: float = 0.0, n_micro_batches: int = 1, validated: bool = True, **keys: object
    ) -> Course:
        at = point(**keys)

        def start() -> Run:
            network = tiny(dropout=dropout)
            if at.head_layers:
                network.net.set_submodule("head", new_head(at))
            return begin(at, network=network, n_micro_batches=n_micro_batches)

        return Course(start, images, train, val if validated else None)

    return make


def new_head(at: Point) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        return make_head(16, 3, layers=at.head_layers, hidden_width=at.head_width, dropout=at.head_dropout)


@pytest.mark.parametrize("name", COURSES)
def test_a_run_interrupted_once_anywhere_ends_as_the_undisturbed_one(
    course: Callable[..., Course], name: str
) -> None:
    there = course(**COURSES[name])
    wanted, n_events = undisturbed(there)

    assert n_events >= 8
    for position in range(n_events):
        assert interrupted(there, {position}) == wanted, f"after yield {position}"


@pytest.mark.parametrize("name", COURSES)
def test_a_run_interrupted_after_every_step_ends_as_the_undisturbed_one(
    course: Callable[..., Course], name: str
) -> None:
    there = course(**COURSES[name])
    wanted, n_events = undisturbed(there)

    assert interrupted(there, range(n_events)) == wanted


@settings(max_examples=25, deadline=None)
@given(
    after=st.sets(st.integers(0, 15)),
    optimizer=st.sampled_from(["sgd", "adamw"]),
    batch_size=st.integers(4, 30),
    n_micro_batches=st.integers(1, 3),
)
def test_however_often_a_run_is_interrupted_it_ends_the_same(
    course: Callable[..., Course], after: set[int], optimizer: str, batch_size: int, n_micro_batches: int
) -> None:
    keys = {**ADAMW, "optimizer": optimizer, "mixup": 0.2, "batch_size": batch_size}
    there = course(dropout=0.3, n_micro_batches=n_micro_batches, **keys)

    assert interrupted(there, after) == undisturbed(there)[0]


def test_one_checkpoint_serves_two_runs(course: Callable[..., Course]) -> None:
    there = course(**ADAMW)
    run = there.begin()
    events = there.events(run)
    next(events)
    checkpoint = unpack(pack([run], [], identity=ID, facts={}), identity=ID)

    ends = []
    for _ in range(2):
        again = there.begin()
        apply(checkpoint, [again])
        ends.append(outcome(again, [e for e in there.events(again) if isinstance(e, Epoch)]))

    assert ends[0] == ends[1] == undisturbed(there)[0]


def test_runs_side_by_side_go_on_each_from_where_it_stood(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    def start() -> list[Run]:
        return [begin(point(**SGD), seed=seed) for seed in (1, 2)]

    wanted = [outcome(run, list(train_epochs(run, images, train, val))) for run in start()]
    runs, epochs = start(), [list[Epoch](), list[Epoch]()]
    next(steps(runs[0], images, train, val))
    data = pack(runs, [], identity=ID, facts={})

    moved = start()
    apply(unpack(data, identity=ID), moved)
    for run, row in zip(moved, epochs, strict=True):
        row.extend(train_epochs(run, images, train, val))

    assert [outcome(run, row) for run, row in zip(moved, epochs, strict=True)] == wanted


def library_course(at: Point) -> Course:
    """A course of a library's network, built anew each time, on 18 images of 36 x 36 pixels."""
    images = coloured(np.arange(18) % 3, 36)

    def start() -> Run:
        network = build(at, n_classes=3, weights=load_weights(at.backbone, "none"), seed=1)
        return prepare_run(
            network,
            at,
            pretrained={name: tensor.clone() for name, tensor in network.net.state_dict().items()},
            labels=images.labels,
            seed=4,
            device=torch.device("cpu"),
            n_classes=3,
        )

    return Course(start, images, np.arange(12), np.arange(12, 18))


# blocks, and how many of them are frozen; dropout and stochastic depth as the library has them
LIBRARY: dict[str, tuple[str, int, int, dict[str, object]]] = {
    "resnet": ("resnet18", 9, 0, SGD),
    "frozen resnet": ("resnet18", 9, 5, {**ADAMW, "mixup": 0.2, "class_weights": "balanced"}),
    "mobilenet": ("mobilenet_v3_small", 12, 0, ADAMW),
    "frozen mobilenet": ("mobilenet_v3_small", 12, 4, {**SGD, "head_first_epochs": 1, "head_layers": 1}),
    "efficientnet": ("efficientnet_b0", 17, 0, SGD),
    "frozen convnext": ("convnext_tiny", 19, 17, SGD),
}
QUICK = ("mobilenet", "frozen mobilenet", "efficientnet")


@pytest.fixture(scope="session")
def library(point: MakePoint) -> Callable[[str], Course]:
    """The course of that name: two epochs of two steps."""

    def make(name: str) -> Course:
        backbone, blocks, frozen, keys = LIBRARY[name]
        at = point(
            backbone=backbone,
            resolution=32,
            batch_size=6,
            transfer_depth=blocks,
            freeze_depth=frozen,
            **{**keys, "anchor_depth": blocks, "head_dropout": 0.3},
        )
        return library_course(at)

    return make


@pytest.mark.parametrize("name", LIBRARY)
def test_a_librarys_network_interrupted_after_every_step_ends_as_the_undisturbed_one(
    library: Callable[[str], Course], name: str
) -> None:
    there = library(name)
    wanted, n_events = undisturbed(there)

    assert n_events == 6
    assert interrupted(there, range(n_events)) == wanted


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LIBRARY]
)
def test_a_librarys_network_interrupted_once_anywhere_ends_as_the_undisturbed_one(
    library: Callable[[str], Course], name: str
) -> None:
    there = library(name)
    wanted, n_events = undisturbed(there)

    for position in range(n_events):
        assert interrupted(there, {position}) == wanted, f"after yield {position}"


def test_a_run_goes_on_in_another_process(point: MakePoint, tmp_path: Path) -> None:
    at = point(
        backbone="mobilenet_v3_small", transfer_depth=12, freeze_depth=3, batch_size=6, resolution=32, **ADAMW
    )
    there = library_course(at)
    run = there.begin()
    events = there.events(run)
    for _ in range(2):  # behind the first epoch's last step, before its evaluation
        next(events)
    (tmp_path / "half.ckpt").write_bytes(
        pack([run], [], identity=ID, facts={"point": json.dumps(at.as_dict())})
    )
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import test_resume; test_resume.go_on({str(tmp_path / 'half.ckpt')!r})"
    )

    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )

    assert tuple(json.loads(found.stdout)) == undisturbed(there)[0]


def go_on(file: str) -> None:
    """Continue the run of a checkpoint to its end, and print what it leaves."""
    torch.set_num_threads(1)
    checkpoint = unpack(Path(file).read_bytes(), identity=ID)
    there = library_course(Point.from_dict(json.loads(str(checkpoint.facts["point"]))))
    run = there.begin()
    apply(checkpoint, [run])
    epochs = [*checkpoint.epochs, *(event for event in there.events(run) if isinstance(event, Epoch))]
    print(json.dumps(outcome(run, epochs)))
