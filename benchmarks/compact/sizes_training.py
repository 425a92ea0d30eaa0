"""Changes of pruning and training for `benchmarks.compact.sizes`, and the latency of its networks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from tlopt.compact.cost import measure_latency
from tlopt.model.network import Network
from tlopt.training import step
from tlopt.training.run import Run

DISTILLATION, _TEMPERATURE = 0.5, 2.0
_LATENCY_BATCH, _LATENCY_ROUNDS = 16, 9


@contextmanager
def taught_by(teacher: Network) -> Iterator[None]:
    """Training steps learn half from `teacher` within the block, both at temperature 2 (Hinton et al. 2015).

    For points without frozen blocks, whose steps begin with the views.
    """
    expected: list[Tensor] = []
    logits_of, cross_entropy = step._logits, functional.cross_entropy

    def logits(run: Run, features: Tensor, freeze_depth: int) -> Tensor:
        with torch.no_grad():
            expected[:] = [teacher.suffix(features, freeze_depth)]
        return logits_of(run, features, freeze_depth)

    def loss(found: Tensor, *args: Any, **options: Any) -> Tensor:
        own, its = (functional.log_softmax(each / _TEMPERATURE, dim=1) for each in (found, *expected))
        taught = functional.kl_div(own, its, reduction="batchmean", log_target=True)
        mean = cross_entropy(found, *args, **options)
        return (1 - DISTILLATION) * mean + DISTILLATION * _TEMPERATURE**2 * taught

    teacher.eval()
    losses = SimpleNamespace(cross_entropy=loss, one_hot=functional.one_hot)
    with patch.object(step, "_logits", logits), patch.object(step, "F", losses):
        yield


def latencies(networks: Mapping[str, tuple[nn.Module, int]]) -> dict[str, dict[str, float]]:
    """Latencies relative to the whole network, by batch size and network.

    Args:
        networks: each with its resolution; the whole one first.
    """
    nets = {name: net.eval().requires_grad_(False) for name, (net, _) in networks.items()}
    found: dict[str, dict[str, float]] = {}
    for size in (1, _LATENCY_BATCH):
        images = {name: torch.rand(size, 3, side, side) for name, (_, side) in networks.items()}
        rows = measure_latency(nets, images, n_rounds=_LATENCY_ROUNDS * (4 if size == 1 else 1))
        found[str(size)] = {name: round(row.ratio, 3) for name, row in rows.items()}
    return found
