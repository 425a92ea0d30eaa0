"""What the networks of a study cost in use, measured once per structure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from tlopt.compact.cost import count, measure_latency
from tlopt.model.build import blueprint, build, structure_of, untrained_network
from tlopt.model.network import Network
from tlopt.model.weights import Weights
from tlopt.spec.point import Point

_ROUNDS = 25  # runs of each network, of which the median counts
_REFERENCE, _NETWORK = "reference", "network"

Structure = tuple[str | int | float, ...]


@dataclass(kw_only=True, eq=False)
class CostMeter:
    """Inference costs of the networks that one process trains.

    Latency is that of one image in float32 on this device, with the threads of this process. It is measured
    in turns with the first backbone, and is the backbone's first latency times the ratio of the two: a load
    that slows both changes it little. It differs between machines, and by some per cent between processes.
    """

    weights: Mapping[str, Weights]  # by backbone
    n_classes: int
    device: torch.device
    _counts: dict[Structure, dict[str, float]] = field(init=False, default_factory=dict)
    _latencies: dict[Structure, float] = field(init=False, default_factory=dict)  # milliseconds
    _reference_seconds: float = field(init=False, default=0.0)  # 0 before the first measurement

    def measure(self, point: Point, *, with_latency: bool) -> dict[str, float]:
        """Parameters, multiply-adds, bytes and, if asked for, the latency of the network of `point`."""
        structure = structure_of(point)
        if structure not in self._counts:
            network = blueprint(point, n_classes=self.n_classes)
            self._counts[structure] = count(network.net, point.resolution).as_dict()
        if not with_latency:
            return dict(self._counts[structure])
        if structure not in self._latencies:
            self._latencies[structure] = round(self._latency_ms(point), 4)
        return self._counts[structure] | {"latency_ms": self._latencies[structure]}

    def _latency_ms(self, point: Point) -> float:
        first = next(iter(self.weights.values()))
        reference = untrained_network(first, first.resolution, seed=0)
        blank = replace(self.weights[point.backbone], state={})
        network = build(point, n_classes=self.n_classes, weights=blank, seed=0)
        found = measure_latency(
            {_REFERENCE: self._ready(reference), _NETWORK: self._ready(network)},
            {_REFERENCE: self._image(first.resolution), _NETWORK: self._image(point.resolution)},
            n_rounds=_ROUNDS,
        )
        self._reference_seconds = self._reference_seconds or found[_REFERENCE].seconds
        return 1e3 * self._reference_seconds * found[_NETWORK].ratio

    def _ready(self, network: Network) -> Network:
        return network.to(self.device).eval()

    def _image(self, resolution: int) -> torch.Tensor:
        return torch.rand(1, 3, resolution, resolution, device=self.device)
