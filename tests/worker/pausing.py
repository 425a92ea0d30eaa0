"""Studies whose trials pause: with one objective by promotion, with several by the front."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import tiny
import torch

from tlopt.spec.point import Point
from tlopt.storage import attributes
from tlopt.storage.attributes import TrialRecord
from tlopt.worker import claim

EPOCHS = 8
SIDES = "resolution = { choice = [32, 48, 64] }\nlr = { log = [1e-4, 1e-2] }\n"
RANDOM = '[sampler]\nkind = "random"\n'


@dataclass(frozen=True, kw_only=True)
class Pausing:
    """A study whose trials pause.

    Args:
        head: lines at the top of the study file.
        search: lines of [search].
        tables: whole tables of the study file.
        curve: planted values of a point, one an epoch.
        told: objectives of a trial that other software ran.
    """

    head: str = ""
    search: str
    tables: str = RANDOM
    curve: Callable[[Point], Sequence[float]]
    told: tuple[float, ...]


def flat_by_rate(point: Point) -> Sequence[float]:
    """The lower the rate, the better, from the first epoch on."""
    return [1 - point.lr * 50] * point.epochs


def larger_is_better(point: Point) -> Sequence[float]:
    """Three points more at each resolution, and less for a rate further from 0.001; all gain equally."""
    end = 0.6 + point.resolution / 500 - 0.1 * abs(torch.tensor(point.lr).log10().item() + 3)
    return [end - 0.05 * (point.epochs - 1 - epoch) for epoch in range(point.epochs)]


PROMOTION = Pausing(
    search="lr = { log = [1e-4, 1e-2] }\n",
    tables=f'[pruner]\nkind = "promotion"\n{RANDOM}',
    curve=flat_by_rate,
    told=(0.5,),
)
FRONT = Pausing(
    head='objectives = ["accuracy", "multiply_adds"]',
    search=SIDES,
    curve=larger_is_better,
    told=(0.5, 1e6),
)


def records(here: tiny.Place) -> list[TrialRecord]:
    """The study's trials by number."""
    return [TrialRecord.from_frozen(trial) for trial in here.trials]


def n_epochs(here: tiny.Place) -> list[int]:
    """Number of epochs that each trial has reported."""
    return [len(attributes.curve_of(trial)) for trial in here.trials]


def let_time_pass(patch: pytest.MonkeyPatch, here: tiny.Place) -> None:
    """From here on, six minutes pass each time that a worker looks whether the study's hours are over."""
    began, clock = here.opened.user_attrs[attributes.BEGAN], itertools.count(step=360.0)
    patch.setattr(claim, "epoch_seconds", lambda *_: began + next(clock))
