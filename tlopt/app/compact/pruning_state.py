"""The saved state of a pruning: a hidden folder beside its result, held by one process at a time.

    .NAME.pruning/lock          held by the process that prunes
    .NAME.pruning/IDENTITY/     checkpoints of the pruning with this identity

It is removed once the result is written.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from tlopt.compact.prune import Pruning
from tlopt.compact.saved import pack_pruning, restore_pruning
from tlopt.errors import CheckpointUnreadable, DataError
from tlopt.exports.read import WEIGHTS, Export
from tlopt.exports.result import RESULT, read_result
from tlopt.spec import SEMANTICS_VERSION
from tlopt.system.locks import only_process
from tlopt.system.words import counted
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.training.numerics import computing_environment, other_environment

_TRIAL, _HOLDER = 0, "0"  # the store is made for trials of several workers; this is one of one process
_logger = logging.getLogger(__name__)


def state_folder(target: Path) -> Path:
    """The folder of the state while `target` is made."""
    target = target.absolute()
    return target.with_name(f".{target.name}.pruning")


def interrupted_result(target: Path) -> str:
    """The identity of the pruning that wrote `target`, if its state is still there; else ""."""
    if not state_folder(target).is_dir() or not (target / RESULT).is_file():
        return ""
    with suppress(DataError):
        identity = str(read_result(target).get("pruned", {}).get("identity", ""))
        if identity and (state_folder(target) / identity).is_dir():
            return identity
    return ""


@contextmanager
def sole_pruning(target: Path) -> Iterator[None]:
    """Keep other processes from pruning to `target` within the block.

    Raises:
        DataError: one does already, or nothing can be written beside `target`.
    """
    folder = state_folder(target)
    try:
        with only_process(folder / "lock"):
            yield
            return
    except BlockingIOError:
        raise DataError(
            f"{target}: another process is pruning to this folder; wait for it, or name another folder"
        ) from None
    finally:
        with suppress(OSError):
            folder.rmdir()  # unless a state is left


def pruning_identity(export: Export, pruning: Pruning, made_by: str) -> str:
    """Digest of all that determines the result: the network, the recipe and the goal.

    Args:
        made_by: digest of the recipe's point, seed, images and pretrained weights.
    """
    recipe = pruning.recipe
    what = {
        "made_by": made_by,
        "weights": hashlib.sha256((export.folder / WEIGHTS).read_bytes()).hexdigest(),
        "goal": asdict(pruning.goal),
        "numerics": str(recipe.numerics),
        "images": [hashlib.sha256(each.tobytes()).hexdigest() for each in (recipe.train, recipe.val)],
        "version": SEMANTICS_VERSION,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


class PruningState:
    """The saved state of the pruning `identity` to `target`; the caller holds `sole_pruning`."""

    def __init__(self, target: Path, identity: str) -> None:
        self.identity = identity
        self._folder = state_folder(target)
        self._complaint = ""

    @cached_property
    def _store(self) -> CheckpointStore:
        return CheckpointStore(str(self._folder / self.identity))

    def resumed(self, begun: Pruning) -> Pruning:
        """The pruning from its newest readable state; `begun` if there is none."""
        self._drop_others()
        found_any = False
        for found in self._store.newest_first(_TRIAL, self.identity):
            found_any = True
            try:
                if isinstance(found, str):
                    raise CheckpointUnreadable(found)
                pruning = restore_pruning(found, begun)
            except CheckpointUnreadable as error:
                _logger.warning("a saved state of the pruning is left out: %s", error)
                continue
            _logger.warning("%s%s", _place(pruning), other_environment(found.facts, pruning.recipe.device))
            return pruning
        if found_any:
            _logger.warning("no saved state can be read: the pruning begins anew")
        return begun

    def save(self, pruning: Pruning) -> None:
        """Save the state; if that fails, warn once, and go on without."""
        facts = computing_environment(pruning.recipe.device)
        data = pack_pruning(pruning, identity=self.identity, facts=facts)
        complaint = ""
        try:
            self._store.write(_TRIAL, _HOLDER, pruning.position, data)
        except OSError as error:
            complaint = (
                f"the state of the pruning cannot be written to {self._folder}: {error.strerror or error};"
                " pruning goes on, and if it is stopped, it resumes from an earlier state"
            )
        if complaint and complaint != self._complaint:
            _logger.warning("%s", complaint)
        self._complaint = complaint

    def remove(self) -> None:
        """Remove what was saved."""
        shutil.rmtree(self._folder / self.identity, ignore_errors=True)

    def _drop_others(self) -> None:
        """Remove states of other prunings to the same target."""
        others = [each for each in self._folder.iterdir() if each.is_dir() and each.name != self.identity]
        for each in others:
            _logger.warning(
                "the saved state of an unfinished pruning of another export, or with other arguments, is"
                " removed: this pruning begins anew"
            )
            shutil.rmtree(each, ignore_errors=True)


def _place(pruning: Pruning) -> str:
    """As in "pruning goes on after round 1 and 3 epochs"."""
    epochs = counted(pruning.n_epochs, "epoch")
    return f"pruning goes on after round {pruning.rounds[-1].index} and {epochs} in all"
