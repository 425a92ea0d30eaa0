"""Checkpoints of a pruning: the last network within the bound, the training under way, and the rounds before.

What is left of the pretrained weights is not stored: removing the same channels from them gives it again.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from tlopt.compact.cost import InferenceCost
from tlopt.compact.groups import channel_groups
from tlopt.compact.prune import Pruning, PruningRound
from tlopt.compact.surgery import remaining, resized, without
from tlopt.errors import CheckpointUnreadable
from tlopt.model.network import Network
from tlopt.training.checkpoint import CONTENT_ERRORS, Checkpoint, Fact, apply, pack
from tlopt.training.loop import Epoch
from tlopt.training.metrics import Metrics


def pack_pruning(pruning: Pruning, *, identity: str, facts: Mapping[str, Fact]) -> bytes:
    """Serialise `pruning`, suspended between two yields of `pruning_events`, for `restore_pruning`.

    Args:
        identity: string that only prunings of the same network by the same recipe to the same goal share.
        facts: plain values for the reader.
    """
    further = {
        "network": {name: tensor.cpu() for name, tensor in pruning.network.net.state_dict().items()},
        "removals": [
            [[name, dim, indices] for (name, dim), indices in each.items()] for each in pruning.removals
        ],
        "rounds": json.dumps([asdict(replace(each, trained=None)) for each in pruning.rounds]),
        "n_epochs": pruning.n_epochs,
        "diverged": pruning.diverged,
        "history": None if pruning.history is None else pruning.history.state(),
    }
    runs = [] if pruning.run is None else [pruning.run]
    trained = [*(each.trained for each in pruning.rounds), pruning.trained]
    epochs = [each for each in trained if each is not None]
    return pack(runs, epochs, identity=identity, facts=facts, further=further)


def restore_pruning(checkpoint: Checkpoint, begun: Pruning) -> Pruning:
    """The pruning that `checkpoint` is of.

    Args:
        begun: the same pruning at its start, from `begin_pruning`; not changed.

    Raises:
        CheckpointUnreadable: the checkpoint is of another network, or its content has another form.
        OutOfMemory: the training under way does not fit on the device.
    """
    try:
        return _restored(checkpoint, begun)
    except CONTENT_ERRORS as error:
        raise CheckpointUnreadable(f"its content has another form: {error!r}") from error


def _restored(checkpoint: Checkpoint, begun: Pruning) -> Pruning:
    stored, resolution = checkpoint.further, begun.recipe.point.resolution
    network = _network(stored["network"], begun.network)
    found = replace(
        begun,
        network=network,
        groups=channel_groups(network.net, resolution),
        rounds=_rounds(json.loads(stored["rounds"]), checkpoint.epochs),
        removals=[{(name, dim): indices for name, dim, indices in rows} for rows in stored["removals"]],
        n_epochs=int(stored["n_epochs"]),
        trained=checkpoint.epochs[-1] if checkpoint.epochs else None,
        diverged=str(stored["diverged"]),
    )
    _check_counts(found, len(checkpoint.states))
    for removed in found.removals:
        found.pretrained = remaining(found.pretrained, removed)
    if checkpoint.states:
        found.train(_network_in_training(found))
        assert found.run is not None
        apply(checkpoint, [found.run])
    elif stored["history"] is not None:
        found.history = found.new_history()
    if found.history is not None:
        found.history.load(stored["history"])
    return found


def _network_in_training(found: Pruning) -> Network:
    """A network of the structure that is trained; sets the groups to its own."""
    if not found.is_in_round:
        return copy.deepcopy(found.network)
    smaller = without(found.network, found.removals[-1])
    found.groups = channel_groups(smaller.net, found.recipe.point.resolution)
    return smaller


def _check_counts(found: Pruning, n_runs: int) -> None:
    """Raise ValueError unless a training is under way where a removal has no measured round yet."""
    expected = len(found.removals) + (not found.is_in_round)
    if not found.rounds or n_runs > 1 or len(found.rounds) != expected or found.is_in_round > n_runs:
        raise ValueError(
            f"{len(found.rounds)} rounds, {len(found.removals)} removals and {n_runs} trainings under way"
        )


def _network(state: Mapping[str, Tensor], whole: Network) -> Network:
    network = resized(whole, {name: tensor.shape for name, tensor in state.items()})
    network.net.load_state_dict(state)
    return network.eval()


def _rounds(rows: Sequence[dict[str, Any]], trained: Sequence[Epoch]) -> list[PruningRound]:
    """The rounds in `rows`, the first of which was not trained."""
    return [
        PruningRound(**row | {"cost": InferenceCost(**row["cost"]), "val": Metrics(**row["val"])} | last)
        for row, last in zip(
            rows, [{}, *({"trained": each} for each in trained[: len(rows) - 1])], strict=True
        )
    ]
