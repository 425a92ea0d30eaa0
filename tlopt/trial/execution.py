"""The training of one trial: begun, resumed, stepped and saved. Torch, without Optuna."""

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from tlopt.cache.folder import warn_once
from tlopt.data.batches import Images, gather
from tlopt.errors import CheckpointUnreadable, TimedOut
from tlopt.spec import SEMANTICS_VERSION
from tlopt.spec.trial_spec import TrialSpec
from tlopt.system.words import counted
from tlopt.training import metrics
from tlopt.training.checkpoint import Checkpoint, apply, pack
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.loop import Epoch, Step, predict_logits, steps
from tlopt.training.numerics import computing_environment
from tlopt.training.run import Run, memory_errors
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace

_SHARE_MAX = 0.05  # of the time that may go into checkpoints


@dataclass(kw_only=True)
class TrialRun:
    """The networks of one trial side by side, and their epochs so far; `training_events` changes them."""

    spec: TrialSpec
    workspace: Workspace
    images: Images
    runs: Sequence[Run]
    features: FeatureStore | None
    n_micro: int
    epochs: list[Epoch] = field(default_factory=list)  # means over the runs
    seconds_before: float = 0.0  # of work by earlier holders, up to their checkpoint
    processor_seconds_before: float = 0.0  # by earlier holders, up to their checkpoint
    began: float = field(default_factory=time.perf_counter)
    processor_began: float = field(default_factory=time.process_time)
    cache_warning: str = ""

    def new_cache_warning(self) -> str:
        """Why features are no longer cached, told once; it costs time and changes no number."""
        messages = self.features.write_warnings if self.features is not None else []
        for each in messages:
            warn_once(each)
        said = "; ".join(messages)
        new, self.cache_warning = (said if said != self.cache_warning else ""), said
        return new

    @property
    def seconds(self) -> float:
        """Seconds of work on the trial so far; what was done twice counts once."""
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def processor_seconds(self) -> float:
        """Processor time of the processes that worked on the trial, all threads; load does not change it."""
        return self.processor_seconds_before + time.process_time() - self.processor_began

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and step at which all runs stand."""
        return min((run.position.epoch, run.position.step) for run in self.runs)


@dataclass(kw_only=True)
class TrialCheckpoints:
    """One holder's checkpoints of one trial: where they lie and when the next is due."""

    store: CheckpointStore
    trial: int
    holder: str  # token of the lease
    seconds: float  # between two within an epoch; 0: only after epochs
    cost_seconds: float = 0.0  # that the last one took
    _last: float = field(default_factory=time.perf_counter)
    _complaint: str = ""

    def restart_timer(self) -> None:
        """Count the time to the next one from now."""
        self._last = time.perf_counter()

    def is_due(self, event: Step | Epoch) -> bool:
        """Whether to save now: after an epoch, and within one as often as wished for.

        Not sooner than nineteen times what the last took: at most a twentieth of the time goes into them.
        """
        since = time.perf_counter() - self._last
        if since < self.cost_seconds * (1 / _SHARE_MAX - 1):
            return False
        return isinstance(event, Epoch) or 0 < self.seconds < since

    def save(self, training: TrialRun) -> str:
        """Write a checkpoint; returns a complaint for people, once, or "". A full disk loses nothing."""
        start = time.perf_counter()
        facts = {
            **computing_environment(training.workspace.device),
            "seconds": training.seconds,
            "processor_seconds": training.processor_seconds,
            "n_micro": training.n_micro,
        }
        identity = _identity(training.workspace, training.spec)
        complaint = ""
        try:
            data = pack(training.runs, training.epochs, identity=identity, facts=facts)
            if not self.store.write(self.trial, self.holder, training.position, data):
                complaint = "no room for checkpoints within service.checkpoint_gb_max"
        except OSError as error:
            complaint = (
                f"checkpoints cannot be written: {error}; make room in {self.store.location}, or name another"
                " place with --checkpoints"
            )
        self._last = time.perf_counter()
        self.cost_seconds = self._last - start
        new, self._complaint = (complaint if complaint != self._complaint else ""), complaint
        return new


def begin_training(
    spec: TrialSpec, workspace: Workspace, *, n_micro: int, allow_resident: bool = True
) -> TrialRun:
    """The trial at its start.

    Everything here may take long: images are decoded where nobody did before.

    Args:
        n_micro: pieces of a batch.
        allow_resident: whether images and features may lie on the device, where there is room to spare.

    Raises:
        OutOfMemory: the networks do not fit the device.
    """
    workspace.close_other_feature_stores(spec.point)
    with memory_errors():
        images = workspace.images(spec.point, allow_resident=allow_resident)
        runs = [
            workspace.start_run(
                spec.point, seed=seed, train=workspace.data.splits[index].train, n_micro=n_micro
            )
            for seed, index in zip(spec.seeds, spec.splits, strict=True)
        ]
        features = workspace.feature_store(runs[0], images, allow_resident=allow_resident)
    return TrialRun(
        spec=spec, workspace=workspace, images=images, runs=runs, features=features, n_micro=n_micro
    )


def resume_training(
    spec: TrialSpec,
    workspace: Workspace,
    checkpoints: TrialCheckpoints | None,
    notes: list[str],
    *,
    n_micro_min: int = 1,
    allow_resident: bool = True,
) -> TrialRun:
    """The trial where its newest readable checkpoint left it, or at its start.

    Args:
        notes: sentences on what was found are added.
        n_micro_min: pieces of a batch at least.
        allow_resident: as `begin_training`.

    Raises:
        OutOfMemory: the networks do not fit the device.
    """
    if checkpoints is None:
        return begin_training(spec, workspace, n_micro=n_micro_min, allow_resident=allow_resident)
    identity = _identity(workspace, spec)
    for found in checkpoints.store.newest_first(checkpoints.trial, identity):
        if isinstance(found, str):
            notes.append(found)
            continue
        n_micro = max(n_micro_min, int(found.facts["n_micro"]))
        training = begin_training(spec, workspace, n_micro=n_micro, allow_resident=allow_resident)
        try:
            apply(found, training.runs)
        except CheckpointUnreadable as error:
            notes.append(f"a checkpoint does not fit: {error}")
            continue
        training.epochs = list(found.epochs)
        training.seconds_before = float(found.facts["seconds"])
        training.processor_seconds_before = float(found.facts.get("processor_seconds", 0.0))
        notes.append(_resumed(training, found))
        return training
    return begin_training(spec, workspace, n_micro=n_micro_min, allow_resident=allow_resident)


def _identity(workspace: Workspace, spec: TrialSpec) -> str:
    """What a checkpoint must be of: this trial, in this version's meaning of it."""
    return f"{workspace.identity(spec.point, spec.seeds)}.{SEMANTICS_VERSION}"


def _resumed(training: TrialRun, found: Checkpoint) -> str:
    here = computing_environment(training.workspace.device)
    other = [f"{name} {found.facts.get(name)} is {value} here" for name, value in here.items()
             if found.facts.get(name) != value]  # fmt: skip
    epoch, step = training.position
    at_step = f", step {step}" if step else ""
    exact = f"; last bits may differ: {', '.join(other)}" if other else ""
    return f"resumed at epoch {epoch + 1}{at_step}{exact}"


def training_events(training: TrialRun) -> Generator[Step | Epoch]:
    """Train in place to the last epoch: a `Step` after each step of all runs, the mean `Epoch` after it.

    After either the caller may save and stop. At the end the weights are written where the trial's spec says.

    Raises:
        Diverged, OutOfMemory: as `training.fit`.
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
    """One step of each in turn; where some have ended their epoch before the others, nothing is yielded."""
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
    """One epoch for several runs: means, the sum of their confusions and seconds."""
    return Epoch(
        index=rows[0].index,
        train_loss=float(np.mean([row.train_loss for row in rows])),
        train_accuracy=float(np.mean([row.train_accuracy for row in rows])),
        val=metrics.mean([row.val for row in rows if row.val is not None]),
        confusion=np.sum([row.confusion for row in rows if row.confusion is not None], axis=0),
        seconds=sum(row.seconds for row in rows),
    )


@dataclass(frozen=True)
class Mistakes:
    """Validation images that a network is wrong about, surest first; arrays over images."""

    pictures: NDArray[np.uint8]  # (n, S, S, 3)
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float32]  # of the predicted class


def find_mistakes(training: TrialRun, n_max: int) -> Mistakes:
    """Up to `n_max` mistakes of the trial's first network, which is trained to its end."""
    val = training.workspace.data.splits[training.spec.splits[0]].val
    logits = torch.from_numpy(predict_logits(training.runs[0], training.images, val, training.features))
    probability, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = np.flatnonzero(predicted.numpy() != training.images.labels[val])
    surest = wrong[np.argsort(-probability.numpy()[wrong], kind="stable")][:n_max]
    return Mistakes(
        pictures=gather(training.images.eval_pixels, val[surest], torch.device("cpu")).cpu().numpy(),
        labels=training.images.labels[val[surest]],
        predicted=predicted.numpy()[surest],
        probability=probability.numpy()[surest],
    )


def check_trial_time(training: TrialRun, seconds_max: float) -> None:
    """Check that the trial may go on.

    Raises:
        TimedOut: it has worked for longer than `seconds_max`, unless that is 0.
    """
    if 0 < seconds_max < training.seconds:
        n = len(training.epochs)
        raise TimedOut(f"more than {seconds_max:g} s of work, after {counted(n, 'epoch')}")


def train_to_end(spec: TrialSpec, workspace: Workspace) -> list[Epoch]:
    """The trial's epochs from its start to its end, undisturbed, without any study."""
    return [
        event
        for event in training_events(begin_training(spec, workspace, n_micro=1))
        if isinstance(event, Epoch)
    ]
