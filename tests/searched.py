"""Planted searches: trials drawn from a study's own space, whose values a function of the point decides."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from reported import IMAGES

from tlopt.app.handle import Session, open_session
from tlopt.model.facts import BackboneFacts
from tlopt.search.space import decode_params, search_space
from tlopt.spec import Study
from tlopt.spec.point import Point
from tlopt.storage import attributes, studies

Worth = Callable[[Point], float]


def trials(
    study: Study,
    facts: BackboneFacts,
    worth: Worth,
    *,
    n: int = 60,
    noise: float = 0.005,
    seed: int = 0,
    pruned: Callable[[Point], bool] = lambda point: False,
) -> list[FrozenTrial]:
    """Trials with random points, numbered from 0; values are `worth` with normal noise.

    Args:
        pruned: whether the trial of a point was pruned, with its value as the last report.
    """
    random = np.random.default_rng(seed)
    space = search_space(study)
    found = []
    for number in range(n):
        params = {name: _drawn(distribution, random) for name, distribution in space.items()}
        point = decode_params(params, study, facts)
        value = float(worth(point) + noise * random.standard_normal())
        found.append(
            trial(point, value, params, space, number, complete=not pruned(point), epochs=point.epochs)
        )
    return found


def trial(
    point: Point,
    value: float,
    params: dict[str, Any],
    space: dict[str, BaseDistribution],
    number: int,
    *,
    complete: bool = True,
    epochs: int = 1,
) -> FrozenTrial:
    """A trial as a worker leaves it."""
    planted = optuna.trial.create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=value if complete else None,
        params=params,
        distributions=space,
        intermediate_values={epochs - 1 if complete else 0: value},
        user_attrs={
            attributes.POINT: point.as_dict(),
            attributes.TRIAL_RESULT: {
                "outcome": "complete" if complete else "pruned",
                "metrics": {"log_loss": 1 - value},
                "seconds": 10.0,
            },
        },
        constraints={attributes.OUTCOME_CONSTRAINT: -1.0},
    )
    planted.number = number
    return planted


def _drawn(distribution: BaseDistribution, random: np.random.Generator) -> Any:
    match distribution:
        case IntDistribution(low=low, high=high):
            return int(random.integers(low, high + 1))
        case FloatDistribution(low=low, high=high, log=True):
            return float(np.exp(random.uniform(np.log(low), np.log(high))))
        case FloatDistribution(low=low, high=high):
            return float(random.uniform(low, high))
        case CategoricalDistribution(choices=choices):
            return choices[int(random.integers(len(choices)))]
    raise TypeError(distribution)


def stored(found: Sequence[FrozenTrial], file: Path, file_text: str, url: str) -> Session:
    """The session of a study file with these trials in the database."""
    file.write_text(file_text)
    session = open_session(file, storage_url=url)
    opened = studies.create_or_open(
        session.store, session.study, file_text=file_text, fingerprints={"data": "0a", "weights": "0b"}
    )
    opened.set_user_attr(attributes.IMAGES, IMAGES)
    opened.add_trials(found)
    return session
