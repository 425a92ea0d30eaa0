"""A grid in a database whose runs have planted values, without images or training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import tiny
from optuna.trial import TrialState, create_trial

from tlopt import spec
from tlopt.app.handle import Session, open_session
from tlopt.model.facts import BackboneFacts
from tlopt.search.plan import search_plan
from tlopt.spec.point import Point
from tlopt.spec.trial_spec import curve_epochs
from tlopt.storage import attributes, studies

N_VAL = 200
TRAIN_LEAD = 0.125  # of accuracy in training over the run's value, at every epoch
Value = Callable[[Point, int], float | None]  # of a point and a replicate; None: the run diverged


def build(
    folder: Path,
    search: str,
    more: str,
    value: Value,
    *,
    trials: int,
    epochs: int = 4,
    name: str = "planted",
    backbone: str = '"large"',
    facts: BackboneFacts | None = None,
) -> tuple[Session, optuna.Study]:
    """The grid, all of whose runs have ended; epoch e of E of a run has e/E of its value.

    Args:
        facts: of the backbones; default: `tiny.facts`.
    """
    text = tiny.text(search, more=more, trials=trials, backbone=backbone)
    text = text.replace("epochs = 30", f"epochs = {epochs}").replace('"planted"', f'"{name}"')
    file = folder / f"{name}.toml"
    file.write_text(text)
    session = open_session(file, storage_url=f"sqlite:///{folder}/grid.db")
    study = spec.loads(text, f"{name}.toml")
    opened = studies.create_or_open(session.store, study, file_text=text, fingerprints={"data": "0a"})
    opened.set_user_attr(
        attributes.IMAGES,
        {
            "class_names": ["a", "b"],
            "n_classes": 2,
            "n_train": 400,
            "n_val": N_VAL,
            "n_splits": 1,
            "n_test": 9,
        },
    )
    plan = search_plan(study, facts or tiny.facts(), 1)
    for number, params in enumerate(plan.initial_points([])):
        known = plan.trial_spec(number, params)
        found = value(known.point, params["replicate"])
        outcome = "diverged" if found is None else "complete"
        curve = {} if found is None else {e: found * (e + 1) / epochs for e in range(epochs)}
        opened.add_trial(
            create_trial(
                state=TrialState.PRUNED if found is None else TrialState.COMPLETE,
                value=found,
                params=params,
                distributions={name: plan.space[name] for name in params},
                intermediate_values=curve,
                user_attrs={
                    attributes.POINT: known.point.as_dict(),
                    attributes.RECIPES: list(known.recipes),
                    attributes.TRIAL_RESULT: {
                        "outcome": outcome,
                        "metrics": {} if found is None else {"accuracy": found, "log_loss": 1 - found},
                        "train_accuracies": {
                            str(e): curve[e - 1] + TRAIN_LEAD for e in curve_epochs(epochs) if curve
                        },
                    },
                },
            )
        )
    return session, opened


def noise(seed: int, size: float) -> Callable[[int, int], float]:
    """Noise of a run by two whole numbers, the same at every call."""
    return lambda one, other: float(np.random.default_rng([seed, one, other]).normal(0, size))
