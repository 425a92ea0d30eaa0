"""A network of three blocks, images whose colour tells the class, and runs on both."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_runs import coloured
from torch import Tensor, nn

from tlopt.data.batches import Images
from tlopt.model.network import Network, block
from tlopt.spec.point import Point
from tlopt.training.run import Run, prepare_run

N_CLASSES = 3
N_BLOCKS = 3
SIDE = 12  # pixels
CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Tiny(nn.Module):
    """Three blocks of convolution, batch-norm and ReLU, the second with dropout, and a linear head."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.middle = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout)
        )
        self.top = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head: nn.Module = nn.Linear(16, N_CLASSES)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Network]:
    """A network of three blocks: `stem`, `middle`, `top`, and `head`; the same bits at every call."""

    def make(*, dropout: float = 0.0) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(3)
            net = Tiny(dropout)
        blocks = tuple(block(net, name, name) for name in ("stem", "middle", "top"))
        return Network(net, blocks, "head", 16)

    return make


@pytest.fixture(scope="session")
def point() -> Callable[..., Point]:
    """A point of plain fine-tuning of the whole tiny network; any key may be given."""

    def make(**changes: object) -> Point:
        values: dict[str, object] = {
            "backbone": "tiny",
            "resolution": SIDE,
            "transfer_depth": N_BLOCKS,
            "freeze_depth": 0,
            "anchor_depth": changes.get("transfer_depth", N_BLOCKS),
            "lr": 0.05,
            "lr_ratio": 1.0,
            "lr_decay": 1.0,
            "l2_sp": 0.0,
            "l2": 0.0,
            "l2_anchored": 0.0,
            "optimizer": "sgd",
            "momentum": 0.9,
            "batch_size": 8,
            "epochs": 2,
            "warmup_fraction": 0.0,
            "schedule": "constant",
            "label_smoothing": 0.0,
            "class_weights": "none",
            "grad_clip": 0.0,
            "augmentation": 0.5,
            "mixup": 0.0,
            "head_layers": 0,
            "head_width": 16,
            "head_dropout": 0.0,
            "head_first_epochs": 0,
        }
        return Point.from_dict(values | changes)

    return make


@pytest.fixture(scope="session")
def images() -> Images:
    """36 images of 16 x 16 pixels: noise under a colour that tells the class; unequal classes."""
    return coloured(np.array([0] * 18 + [1] * 12 + [2] * 6), 16)


@pytest.fixture(scope="session")
def train() -> np.ndarray:
    """Indices of 25 of the images: batches of 8 leave one image over."""
    return np.array([i for i in range(36) if i % 3 != 0 or i == 0])


@pytest.fixture(scope="session")
def val() -> np.ndarray:
    """Indices of the other 11."""
    return np.arange(3, 36, 3)


@pytest.fixture(scope="session")
def begin(tiny: Callable[..., Network], images: Images) -> Callable[..., Run]:
    """A run of a point at its start, by default on the tiny network and anchored where that starts."""

    def make(
        point: Point,
        *,
        seed: int = 1,
        network: Network | None = None,
        pretrained: dict[str, Tensor] | None = None,
        n_micro_batches: int = 1,
    ) -> Run:
        network = network or tiny()
        state = {name: tensor.clone() for name, tensor in network.net.state_dict().items()}
        return prepare_run(
            network,
            point,
            pretrained=state if pretrained is None else pretrained,
            labels=images.labels,
            seed=seed,
            device=CPU,
            n_classes=N_CLASSES,
            n_micro_batches=n_micro_batches,
        )

    return make
