"""Recorded courses with costs: of heads at three resolutions, and of networks with planted costs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.defaults.replay import Floats, Recording, read

CURVES = Path(__file__).parents[1] / "defaults" / "curves"
HEADS = Path(__file__).with_name("curves")  # of `benchmarks.front.live`, unpruned, with the sampler "random"
LEVELS = (1.0, 2.0, 4.0, 8.0)  # planted costs
_PAID = (0.12, 0.06, 0.02, 0.0)  # accuracy that the cheaper networks lack where it is paid for


@dataclass(frozen=True, kw_only=True)
class Planting:
    """How costs are given to the recorded points."""

    name: str
    paid: bool  # whether cheaper networks are less accurate, by `_PAID`
    levels: bool  # four costs, as of four resolutions; otherwise each point has its own

    def apply(self, recording: Recording, seed: int) -> tuple[Floats, Floats]:
        """Curves (points, epochs) and costs (points,)."""
        random = np.random.default_rng(seed)
        n = len(recording.curves)
        place: Floats = (
            random.integers(0, 4, n).astype(np.float64) if self.levels else random.uniform(0, 3, n)
        )
        lacking = np.interp(place, range(4), _PAID) if self.paid else np.zeros(n)
        return np.clip(recording.curves - lacking[:, None], 0, 1), np.exp2(place)


PLANTINGS = (
    Planting(name="paid for, four costs", paid=True, levels=True),
    Planting(name="paid for, own costs", paid=True, levels=False),
    Planting(name="for nothing, four costs", paid=False, levels=True),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Points that are searched in an order of their own."""

    data: str
    curves: Floats  # (points, epochs): accuracy
    costs: Floats  # (points,): at most the last of `LEVELS`
    seed: int


def planted(planting: Planting, orders: int) -> Iterator[Case]:
    """The recorded networks with planted costs."""
    for file in sorted(CURVES.glob("*.json")):
        recording = read(file)
        for seed in range(orders):
            curves, costs = planting.apply(recording, seed)
            yield Case(data=recording.name, curves=curves, costs=costs, seed=seed)


def heads(orders: int) -> Iterator[Case]:
    """The heads, with their multiply-adds."""
    for file in sorted(HEADS.glob("*.json")):
        raw = json.loads(file.read_text())
        costs = np.array(raw["costs"], dtype=float)
        for seed in range(orders):
            yield Case(
                data=raw["data"],
                curves=np.array(raw["curves"]),
                costs=LEVELS[-1] * costs / costs.max(),
                seed=seed,
            )
