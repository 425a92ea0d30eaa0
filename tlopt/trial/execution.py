"""Training of one trial: starting, resuming, stepping and checkpointing."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tlopt.cache.folder import warn_once
from tlopt.data.batches import Images, gather_pixels
from tlopt.errors import CheckpointUnreadable, TimedOut
from tlopt.spec import SEMANTICS_VERSION
from tlopt.spec.trial_spec import TrialSpec
from tlopt.system.words import counted
from tlopt.training import metrics
from tlopt.training.checkpoint import Checkpoint, Fact, apply, pack
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.loop import Epoch, Step, predict_logits, steps
from tlopt.training.numerics import computing_environment, other_environment
from tlopt.training.run import Run, memory_errors
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace

_SHARE_MAX = 0.05  # largest share of the time spent on checkpoints


@dataclass(kw_only=True)
class TrialWork:
    """A trial under way, with the epochs that it reports and its time; advanced by `training_events`."""

    spec: TrialSpec
    workspace: Workspace
    n_micro_batches: int
    epochs: list[Epoch] = field(default_factory=list)  # means over the runs
    seconds_before: float = 0.0  # spent by earlier holders up to the checkpoint
    processor_seconds_before: float = 0.0  # spent by earlier holders up to the checkpoint
    began: float = field(default_factory=time.perf_counter)
    processor_began: float = field(default_factory=time.process_time)

    @property
    def seconds(self) -> float:
        """Seconds of work on the trial so far; work lost and repeated counts once."""
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def processor_seconds(self) -> float:
        """Processor time spent on the trial over all threads; independent of other programs' load."""
        return self.processor_seconds_before + time.process_time() - self.processor_began

    @property
    def facts(self) -> dict[str, Fact]:
        """What a checkpoint says about the work so far, for `take_facts`."""
        return {
            **computing_environment(self.workspace.device),
            "seconds": self.seconds,
            "processor_seconds": self.processor_seconds,
            "n_micro": self.n_micro_batches,
        }

    def take_facts(self, facts: Mapping[str, Fact]) -> None:
        """Count the time of earlier holders, as a checkpoint says it."""
        self.seconds_before = float(facts["seconds"])
        self.processor_seconds_before = float(facts.get("processor_seconds", 0.0))


@dataclass(kw_only=True)
class TrialRun(TrialWork):
    """The runs of one trial, one per split."""

    images: Images
    runs: Sequence[Run]
    features: FeatureStore | None
    cache_warning: str = ""

    def new_cache_warning(self) -> str:
        """The reason why features are no longer cached, or "" if unchanged; results do not depend on it."""
        messages = self.features.write_warnings if self.features is not None else []
        for each in messages:
            warn_once(each)
        said = "; ".join(messages)
        new, self.cache_warning = (said if said != self.cache_warning else ""), said
        return new

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, step) reached by all runs."""
        return min((run.position.epoch, run.position.step) for run in self.runs)

    def packed(self) -> bytes:
        """A checkpoint of the trial."""
        return pack(self.runs, self.epochs, identity=_identity(self.workspace, self.spec), facts=self.facts)


class Saved(Protocol):
    """A trial that checkpoints are made of."""

    @property
    def position(self) -> tuple[int, int]: ...
    def packed(self) -> bytes: ...


@dataclass(kw_only=True)
class TrialCheckpoints:
    """Checkpoints of one trial by one holder: the store, and when the next is due."""

    store: CheckpointStore
    trial: int
    holder: str  # token of the lease
    seconds: float  # interval within an epoch; 0: only after epochs
    cost_seconds: float = 0.0  # time that the last one took
    _last: float = field(default_factory=time.perf_counter)
    _complaint: str = ""

    def restart_timer(self) -> None:
        """Start the interval to the next checkpoint now."""
        self._last = time.perf_counter()

    def is_due(self, event: Step | Epoch) -> bool:
        """Return whether to save after `event`: at the end of an epoch, or after `seconds` within one.

        Never within 19 times the duration of the last one, so that checkpoints take at most 5 % of the time.
        """
        since = time.perf_counter() - self._last
        if since < self.cost_seconds * (1 / _SHARE_MAX - 1):
            return False
        return isinstance(event, Epoch) or 0 < self.seconds < since

    def save(self, training: "Saved") -> str:
        """Write a checkpoint; return why that failed, or "" on success or for the same reason as before."""
        start = time.perf_counter()
        complaint = ""
        try:
            data = training.packed()
            if not self.store.write(self.trial, self.holder, training.position, data):
                complaint = "no room for checkpoints within service.checkpoint_gb_max"
        except OSError as error:
            complaint = (
                f"checkpoints cannot be written: {error}; free disk space in {self.store.location}, or choose"
                " another place with --checkpoints"
            )
        self._last = time.perf_counter()
        self.cost_seconds = self._last - start
        new, self._complaint = (complaint if complaint != self._complaint else ""), complaint
        return new


def begin_training(
    spec: TrialSpec, workspace: Workspace, *, n_micro_batches: int, allow_resident: bool = True
) -> TrialRun:
    """Start a trial; may take long where images are not decoded yet.

    Args:
        n_micro_batches: maximum number of micro-batches per batch.
        allow_resident: whether images and features may be kept on the device if there is room.

    Raises:
        OutOfMemory: the networks do not fit on the device.
    """
    workspace.close_other_feature_stores(spec.point)
    with memory_errors():
        images = workspace.images(spec.point, allow_resident=allow_resident)
        runs = [
            workspace.start_run(
                spec.point,
                seed=seed,
                train=workspace.data.splits[index].train,
                n_micro_batches=n_micro_batches,
            )
            for seed, index in zip(spec.seeds, spec.splits, strict=True)
        ]
        features = workspace.feature_store(runs[0], images, allow_resident=allow_resident)
    return TrialRun(
        spec=spec,
        workspace=workspace,
        images=images,
        runs=runs,
        features=features,
        n_micro_batches=n_micro_batches,
    )


def resume_training(
    spec: TrialSpec,
    workspace: Workspace,
    checkpoints: TrialCheckpoints | None,
    notes: list[str],
    *,
    n_micro_batches_min: int = 1,
    allow_resident: bool = True,
) -> TrialRun:
    """Resume a trial from its newest readable checkpoint, or start it.

    Args:
        notes: notes on checkpoints that were found are appended.
        n_micro_batches_min: lower bound for the maximum number of micro-batches per batch.
        allow_resident: as in `begin_training`.

    Raises:
        OutOfMemory: the networks do not fit on the device.
    """
    if checkpoints is None:
        return begin_training(
            spec, workspace, n_micro_batches=n_micro_batches_min, allow_resident=allow_resident
        )
    identity = _identity(workspace, spec)
    for found in checkpoints.store.newest_first(checkpoints.trial, identity):
        if isinstance(found, str):
            notes.append(found)
            continue
        n_micro_batches = max(n_micro_batches_min, int(found.facts["n_micro"]))
        training = begin_training(
            spec, workspace, n_micro_batches=n_micro_batches, allow_resident=allow_resident
        )
        try:
            apply(found, training.runs)
        except CheckpointUnreadable as error:
            notes.append(f"a checkpoint does not fit: {error}")
            continue
        training.epochs = list(found.epochs)
        training.take_facts(found.facts)
        notes.append(_resumed(training, found))
        return training
    return begin_training(spec, workspace, n_micro_batches=n_micro_batches_min, allow_resident=allow_resident)


def _identity(workspace: Workspace, spec: TrialSpec) -> str:
    """Identity that a checkpoint must have: the trial's, under this semantics version."""
    return f"{workspace.identity(spec.point, spec.seeds)}.{SEMANTICS_VERSION}"


def _resumed(training: TrialRun, found: Checkpoint) -> str:
    epoch, step = training.position
    at_step = f", step {step}" if step else ""
    exact = other_environment(found.facts, training.workspace.device)
    return f"resumed at epoch {epoch + 1}{at_step}{exact}"


def training_events(training: TrialRun) -> Generator[Step | Epoch]:
    """Train to the last epoch; yield a `Step` after each step of all runs, and the mean `Epoch` at its end.

    The caller may save and stop after each event. The final weights are written to the spec's file, if any.

    Raises:
        Diverged, OutOfMemory: as `loop.train_epochs`.
    """
    splits = [training.workspace.data.splits[index] for index in training.spec.splits]
    with ExitStack() as stack:
        fits = [
            stack.enter_context(
                closing(steps(run, training.images, split.train, split.val, training.features))
            )
            for run, split in zip(training.runs, splits, strict=True)
        ]
        for event in _side_by_side(fits):
            if isinstance(event, Epoch):
                training.epochs.append(event)
            yield event
    if training.spec.weights_file is not None:
        training.workspace.save_weights(training.runs[0], training.spec.weights_file)
        History.of(training.epochs).write(history_file(training.spec.weights_file))


def _side_by_side(fits: Sequence[Generator[Step | Epoch]]) -> Generator[Step | Epoch]:
    """Step all runs in turn; while some have finished their epoch and others have not, yield nothing."""
    while True:
        ended: dict[int, Epoch] = {}
        while len(ended) < len(fits):
            for index in (i for i in range(len(fits)) if i not in ended):
                event = next(fits[index], None)
                if event is None:
                    return
                if isinstance(event, Epoch):
                    ended[index] = event
            if not ended:
                assert isinstance(event, Step)
                yield event
        yield _mean([ended[index] for index in range(len(fits))])


def _mean(rows: Sequence[Epoch]) -> Epoch:
    """The epoch of several runs: mean metrics, summed confusion matrices and seconds."""
    return Epoch(
        index=rows[0].index,
        train_loss=float(np.mean([row.train_loss for row in rows])),
        train_accuracy=float(np.mean([row.train_accuracy for row in rows])),
        val=metrics.mean([row.val for row in rows if row.val is not None]),
        confusion=np.sum([row.confusion for row in rows if row.confusion is not None], axis=0),
        seconds=sum(row.seconds for row in rows),
        linear=tuple(fit for row in rows for fit in row.linear),
    )


@dataclass(frozen=True)
class Mistakes:
    """Misclassified validation images, most confident first."""

    pictures: NDArray[np.uint8]  # (n, S, S, 3)
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float32]  # probability of the predicted class


def find_mistakes(training: TrialRun, n_max: int) -> Mistakes:
    """Up to `n_max` mistakes of the trial's first run, which must be finished."""
    val = training.workspace.data.splits[training.spec.splits[0]].val
    logits = torch.from_numpy(predict_logits(training.runs[0], training.images, val, training.features))
    probability, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = np.flatnonzero(predicted.numpy() != training.images.labels[val])
    surest = wrong[np.argsort(-probability.numpy()[wrong], kind="stable")][:n_max]
    return Mistakes(
        pictures=gather_pixels(training.images.eval_pixels, val[surest], torch.device("cpu")).cpu().numpy(),
        labels=training.images.labels[val[surest]],
        predicted=predicted.numpy()[surest],
        probability=probability.numpy()[surest],
    )


def check_trial_time(training: TrialWork, seconds_max: float) -> None:
    """Check a trial against its time limit.

    Raises:
        TimedOut: it has taken more than `seconds_max` seconds of work; 0: no limit.
    """
    if 0 < seconds_max < training.seconds:
        n = len(training.epochs)
        raise TimedOut(f"more than {seconds_max:g} s of work, after {counted(n, 'epoch')}")


def train_to_end(spec: TrialSpec, workspace: Workspace) -> list[Epoch]:
    """Train a trial from start to end outside of any study, and return its epochs."""
    return [
        event
        for event in training_events(begin_training(spec, workspace, n_micro_batches=1))
        if isinstance(event, Epoch)
    ]
