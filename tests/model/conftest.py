"""Points, and planted weights: a random network plus noise on every tensor."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tlopt.model.network import Network
from tlopt.model.weights import Weights, digest, load_weights
from tlopt.spec.point import Point


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def point() -> Callable[..., Point]:
    def make(
        backbone: str,
        *,
        resolution: int = 32,
        transfer_depth: int = 0,
        head_layers: int = 0,
        head_dropout: float = 0.0,
    ) -> Point:
        return Point(
            backbone=backbone,
            resolution=resolution,
            transfer_depth=transfer_depth,
            freeze_depth=0,
            anchor_depth=transfer_depth,
            lr=0.01,
            lr_ratio=1.0,
            lr_decay=1.0,
            l2_sp=0.0,
            l2=0.0,
            l2_anchored=0.0,
            optimizer="sgd",
            momentum=0.9,
            batch_size=2,
            epochs=1,
            warmup_fraction=0.0,
            schedule="constant",
            label_smoothing=0.0,
            class_weights="none",
            grad_clip=0.0,
            augmentation=0.0,
            mixup=0.0,
            head_layers=head_layers,
            head_width=16,
            head_dropout=head_dropout,
            head_first_epochs=0,
        )

    return make


@pytest.fixture(scope="session")
def planted_weights() -> Callable[[str, Network], Weights]:
    """Weights that differ from `network` in every tensor, norms, statistics and counters included."""

    def make(backbone: str, network: Network) -> Weights:
        generator = torch.Generator().manual_seed(11)

        def moved(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor + 1
            # Between 0.5 and 1: variances stay positive.
            return tensor + 0.5 + 0.5 * torch.rand(tensor.shape, generator=generator)

        head = f"{network.head_name}."
        state = {
            name: moved(tensor)
            for name, tensor in network.net.state_dict().items()
            if not name.startswith(head)
        }
        none = load_weights(backbone, "none")
        return Weights(
            backbone=backbone,
            label="planted",
            state=state,
            digest=digest(state),
            mean=none.mean,
            std=none.std,
            resolution=none.resolution,
            resolution_step=none.resolution_step,
            resolution_min=none.resolution_min,
        )

    return make
