"""Planted trials that pause, and whole searches of them without training."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from optuna.trial import FrozenTrial, TrialState, create_trial
from study_workers import TASK

from tlopt.search.promotion import Decision, Pauses
from tlopt.storage import attributes

EPOCHS = 8
Train = Callable[[FrozenTrial, Sequence[FrozenTrial]], Decision | Literal["complete"]]


def trial(
    number: int,
    *values: float,
    costs: Sequence[float] = (),
    state: TrialState = TrialState.RUNNING,
    paused: int = 0,
    epochs: int = EPOCHS,
    classifier: str = "network",
) -> FrozenTrial:
    """A trial of this study with these values after its first epochs.

    Args:
        costs: the other objectives, if there are several.
        paused: number of epochs after which it has paused; 0: it has not.
    """
    point = replace(TASK.point, epochs=epochs, classifier=classifier)  # type: ignore[arg-type]
    known = {attributes.POINT: point.as_dict()}
    if costs:
        known |= {attributes.COSTS: list(costs), attributes.VALUES: list(values)}
    found = create_trial(
        state=state,
        values=[values[-1], *costs] if state == TrialState.COMPLETE else None,
        intermediate_values={} if costs else dict(enumerate(values)),
        user_attrs=known,
    )
    found.number = number
    if state.is_finished():
        end(found, state)
    if paused:
        pause(found, paused)
    return found


def end(one: FrozenTrial, state: TrialState) -> None:
    """End the trial."""
    one.state, one.user_attrs[attributes.TRIAL_RESULT] = state, {"outcome": state.name.lower()}
    one.user_attrs.pop(attributes.PROMOTION, None)


def pause(one: FrozenTrial, n_epochs: int) -> None:
    """Let the trial wait after `n_epochs` epochs."""
    one.state, one.user_attrs[attributes.PROMOTION] = TrialState.WAITING, {"paused": n_epochs}


def numbers(trials: Sequence[FrozenTrial]) -> list[int]:
    """The numbers of the trials."""
    return [each.number for each in trials]


def search(
    pauses: Pauses,
    begin: Callable[[int], FrozenTrial],
    train: Train,
    *,
    n_trials: int,
    n_workers: int,
    draws: random.Random,
) -> list[FrozenTrial]:
    """The trials of a search at its end, whose workers train one epoch at a time in a random order.

    Args:
        begin: makes the trial of a number.
        train: adds an epoch to one of all trials, and says what becomes of it then.
    """
    trials: list[FrozenTrial] = []
    busy: list[FrozenTrial] = []
    while True:
        following = pauses.next_trial(trials, n_trials=n_trials, may_begin=True)
        if following is None or len(busy) == n_workers:
            if not busy:
                return trials
            one = draws.choice(busy)
            if (decision := train(one, trials)) != "continue":
                busy.remove(one)
                leave(one, decision)
        elif not following.trials:
            trials.append(begin(len(trials)))
            busy.append(trials[-1])
        else:
            one = following.trials[0]
            assert one.state == TrialState.WAITING
            if following.ends:
                end(one, TrialState.PRUNED)
            else:
                one.state = TrialState.RUNNING
                busy.append(one)


def leave(one: FrozenTrial, decision: str) -> None:
    """End or pause the trial."""
    if decision == "pause":
        pause(one, len(attributes.curve_of(one)))
    else:
        end(one, TrialState.COMPLETE if decision == "complete" else TrialState.PRUNED)
