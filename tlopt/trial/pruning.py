"""A trial that prunes the network of a confirmed run, and reports the metric after each epoch."""

import hashlib
import json
import logging
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from safetensors import SafetensorError

from tlopt.compact.prune import Pruning, Recipe, begin_pruning, pruning_events
from tlopt.compact.saved import pack_pruning, restore_pruning
from tlopt.errors import CheckpointUnreadable, OutOfReach, SpecError, Unwritable
from tlopt.spec import SEMANTICS_VERSION
from tlopt.spec.objectives import percent_words
from tlopt.spec.trial_spec import PrunedRun, TrialSpec
from tlopt.system.atomic import write_atomically
from tlopt.training.checkpoint import unpack
from tlopt.training.loop import Epoch, Step, steps
from tlopt.training.numerics import other_environment
from tlopt.training.run import Run, memory_errors
from tlopt.trial.execution import TrialCheckpoints, TrialWork
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace

_logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class PruningRun(TrialWork):
    """The pruning of one trial; `epochs` are those of all its trainings, since it was resumed."""

    pruning: Pruning
    source: Run | None  # the run whose network is pruned, as long as its tensors are not known
    ending: str = field(default="")  # why it ended before its goal

    @property
    def position(self) -> tuple[int, int]:
        """(epochs of all rounds, steps in the one under way)."""
        return self.pruning.position

    def packed(self) -> bytes:
        """A checkpoint of the trial."""
        return pack_pruning(
            self.pruning, identity=pruning_identity(self.workspace, self.spec), facts=self.facts
        )

    def new_cache_warning(self) -> str:
        """Nothing: no features are cached."""
        return ""


def pruned_run(spec: TrialSpec) -> PrunedRun:
    """The run that the trial prunes, which it must have."""
    assert spec.pruned is not None
    return spec.pruned


def pruning_identity(workspace: Workspace, spec: TrialSpec) -> str:
    """Digest of all that determines the result."""
    source = pruned_run(spec)
    what = {
        "recipe": workspace.identity(spec.point, spec.seeds),
        "network": workspace.identity(source.point, spec.seeds),
        "goal": asdict(source.goal),
        "splits": list(spec.splits),
        "version": SEMANTICS_VERSION,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def begin_pruning_run(
    spec: TrialSpec, workspace: Workspace, *, n_micro_batches: int = 1, allow_resident: bool = True
) -> PruningRun:
    """Start the pruning of a trial; its network is read, or trained again, with the first event.

    Raises:
        OutOfReach: the network has no channels that can be removed.
        OutOfMemory: the network does not fit on the device.
    """
    source, split = pruned_run(spec), workspace.data.splits[spec.splits[0]]
    workspace.close_other_feature_stores(spec.point)
    with memory_errors():
        run = workspace.start_run(
            source.point, seed=spec.seeds[0], train=split.train, n_micro_batches=n_micro_batches
        )
        recipe = Recipe(
            point=spec.point,
            images=workspace.images(spec.point, allow_resident=allow_resident),
            train=split.train,
            val=split.val,
            pretrained=workspace.weights[spec.point.backbone].state,
            n_classes=workspace.n_classes,
            seed=spec.seeds[0],
            device=workspace.device,
            numerics=run.numerics,
            n_micro_batches=n_micro_batches,
            validates=True,
        )
        try:
            pruning = begin_pruning(run.network, recipe, source.goal)
        except SpecError as error:
            raise OutOfReach(str(error)) from error
    return PruningRun(
        spec=spec, workspace=workspace, n_micro_batches=n_micro_batches, pruning=pruning, source=run
    )


def resume_pruning_run(
    spec: TrialSpec,
    workspace: Workspace,
    checkpoints: TrialCheckpoints | None,
    notes: list[str],
    *,
    n_micro_batches_min: int = 1,
    allow_resident: bool = True,
) -> PruningRun:
    """Resume the pruning of a trial from its newest readable checkpoint, or start it.

    Args and raises: as `execution.resume_training` and `begin_pruning_run`.
    """
    if checkpoints is not None:
        identity = pruning_identity(workspace, spec)
        for found in checkpoints.store.newest_first(checkpoints.trial, identity):
            if isinstance(found, str):
                notes.append(found)
                continue
            work = begin_pruning_run(
                spec,
                workspace,
                n_micro_batches=max(n_micro_batches_min, int(found.facts["n_micro"])),
                allow_resident=allow_resident,
            )
            try:
                work.pruning = restore_pruning(found, work.pruning)
            except CheckpointUnreadable as error:
                notes.append(f"a checkpoint does not fit: {error}")
                continue
            work.source, work.epochs = None, _last_epoch(work.pruning)
            work.take_facts(found.facts)
            place = f"resumed after round {work.pruning.rounds[-1].index}, epoch {work.pruning.n_epochs}"
            notes.append(place + other_environment(found.facts, workspace.device))
            return work
    return begin_pruning_run(
        spec, workspace, n_micro_batches=n_micro_batches_min, allow_resident=allow_resident
    )


def pruning_run_events(work: PruningRun) -> Generator[Step | Epoch]:
    """Prune to the end; yield a `Step` after each step, and an `Epoch` after each epoch of a round.

    The result is written to the spec's file, from which `read_pruning` takes it.

    Raises:
        OutOfReach: the network cannot be pruned as far as wanted.
        Diverged, OutOfMemory: as training does.
        Unwritable: the result cannot be written.
    """
    if work.source is not None:
        yield from _source_events(work, work.source)
        work.source = None
    pruning = work.pruning
    try:
        for event in pruning_events(pruning):
            if isinstance(event, Epoch):
                work.epochs += _last_epoch(pruning)
                yield work.epochs[-1]
            elif isinstance(event, Step):
                yield Step(pruning.n_epochs, event.index, event.n_steps)
    except SpecError as error:
        raise OutOfReach(str(error)) from error
    work.ending = _ending(pruning)
    if pruning.kept.index:
        _write(work)


def read_pruning(spec: TrialSpec, workspace: Workspace) -> Pruning:
    """The finished pruning of a trial: from its file, or else done again in this process."""
    begun = begin_pruning_run(spec, workspace)
    assert spec.weights_file is not None
    try:
        data = spec.weights_file.read_bytes()
        found = restore_pruning(unpack(data, identity=pruning_identity(workspace, spec)), begun.pruning)
    except (OSError, CheckpointUnreadable) as error:
        _logger.warning("%s: the network is pruned again: %s", spec.weights_file, error)
    else:
        return found
    for _ in pruning_run_events(begun):
        pass
    return begun.pruning


def _source_events(work: PruningRun, run: Run) -> Generator[Step]:
    """Give `run` its trained tensors: from their file, or else by training again."""
    file, split = pruned_run(work.spec).weights_file, work.workspace.data.splits[work.spec.splits[0]]
    with suppress(OSError, SafetensorError, RuntimeError):  # damaged, or of other shapes
        if work.workspace.load_trained(run, file):
            run.network.eval()
            return
    epochs = []
    for event in steps(run, work.workspace.images(run.point), split.train, split.val):
        if isinstance(event, Step):
            yield Step(0, event.index, event.n_steps)
        else:
            epochs.append(event)
    work.workspace.save_weights(run, file)
    History.of(epochs).write(history_file(file))
    run.network.eval()


def _last_epoch(pruning: Pruning) -> list[Epoch]:
    """The last epoch of all trainings, counted over all of them, if there is one."""
    last = pruning.trained
    return [] if last is None else [replace(last, index=pruning.n_epochs - 1)]


def _ending(pruning: Pruning) -> str:
    """Why the pruning ended before its goal; "" if it reached it."""
    last = pruning.rounds[-1]
    if pruning.diverged:
        return (
            f"round {last.index + 1} diverged ({pruning.diverged}): the network of round {last.index} is kept"
        )
    if last.within:
        return ""
    lost = (
        f"round {last.index} lost {100 * last.loss:.1f} points of validation accuracy"
        f" ({percent_words(last.val.accuracy)} left), more than {100 * pruning.goal.loss_max:.1f}"
    )
    return f"{lost}: the network of round {last.index - 1} is kept" if last.index > 1 else lost


def _write(work: PruningRun) -> None:
    file = work.spec.weights_file
    assert file is not None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, work.packed())
    except OSError as error:
        raise Unwritable(
            f"{file} cannot be written ({error.strerror or error}): free disk space there, or choose another"
            " folder with --runs"
        ) from error
