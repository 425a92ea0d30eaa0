"""One trial's training: built, resumed, stepped, saved. Torch, and no word of Optuna."""

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from tlopt.cache.folder import complain
from tlopt.data.batches import Images, gather
from tlopt.errors import CheckpointUnreadable, TimedOut
from tlopt.spec import SEMANTICS_VERSION
from tlopt.spec.trial_spec import TrialSpec
from tlopt.training import metrics
from tlopt.training.checkpoint import Checkpoint, apply, pack
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.training.feature_cache import FeatureStore
from tlopt.training.loop import Epoch, Step, predict_logits, steps
from tlopt.training.numerics import circumstances
from tlopt.training.run import Run, memory_errors
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace

_SHARE_MAX = 0.05  # of the time that may go into checkpoints


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """Where one holder of one trial keeps its checkpoints."""

    store: CheckpointStore
    trial: int
    holder: str  # token
    seconds: float  # between two within an epoch; 0: only after epochs


@dataclass(kw_only=True)
class TrialRun:
    """The networks of one task side by side, and what they have come to; changed in place by `events`."""

    task: TrialSpec
    workspace: Workspace
    images: Images
    runs: Sequence[Run]
    kept: FeatureStore | None
    n_micro: int
    epochs: list[Epoch] = field(default_factory=list)  # means over the runs
    seconds_before: float = 0.0  # of work, by earlier holders up to their checkpoint
    processor_seconds_before: float = 0.0  # of processor time, by earlier holders up to their checkpoint
    began: float = field(default_factory=time.perf_counter)
    processor_began: float = field(default_factory=time.process_time)
    complaint: str = ""

    def new_complaints(self) -> str:
        """Why features are not kept any more, said once; it costs time and changes no number."""
        complaints = self.kept.complaints if self.kept is not None else []
        for each in complaints:
            complain(each)
        said = "; ".join(complaints)
        new, self.complaint = (said if said != self.complaint else ""), said
        return new

    @property
    def seconds(self) -> float:
        """Of work on the trial so far; what was done twice counts once."""
        return self.seconds_before + time.perf_counter() - self.began

    @property
    def processor_seconds(self) -> float:
        """Processor time of the processes that worked on the trial, all threads; load does not change it."""
        return self.processor_seconds_before + time.process_time() - self.processor_began

    @property
    def order(self) -> tuple[int, int]:
        """Epoch and step at which all runs stand."""
        return min((run.position.epoch, run.position.step) for run in self.runs)


def begin(task: TrialSpec, workspace: Workspace, *, n_micro: int, resides: bool = True) -> TrialRun:
    """The task at its start.

    Everything here may take long: images are decoded where nobody did before.

    Args:
        n_micro: pieces of a batch.
        resides: whether images and features may lie on the device, where there is room to spare.

    Raises:
        OutOfMemory: the networks do not fit the device.
    """
    workspace.forget_other_features(task.point)
    with memory_errors():
        images = workspace.images(task.point, resides=resides)
        runs = [
            workspace.start_run(
                task.point, seed=seed, train=workspace.data.splits[index].train, n_micro=n_micro
            )
            for seed, index in zip(task.seeds, task.splits, strict=True)
        ]
        kept = workspace.features(runs[0], images, resides=resides)
    return TrialRun(task=task, workspace=workspace, images=images, runs=runs, kept=kept, n_micro=n_micro)


def resume(
    task: TrialSpec,
    workspace: Workspace,
    keeper: Keeper | None,
    notes: list[str],
    *,
    n_micro_min: int = 1,
    resides: bool = True,
) -> TrialRun:
    """The task where its newest readable checkpoint left it, or at its start.

    Args:
        notes: what was found is said here.
        n_micro_min: pieces of a batch at least.
        resides: as `begin`.

    Raises:
        OutOfMemory: the networks do not fit the device.
    """
    if keeper is None:
        return begin(task, workspace, n_micro=n_micro_min, resides=resides)
    who = _rightful(workspace, task)
    for found in keeper.store.readable(keeper.trial, who):
        if isinstance(found, str):
            notes.append(found)
            continue
        n_micro = max(n_micro_min, int(found.facts["n_micro"]))
        at = begin(task, workspace, n_micro=n_micro, resides=resides)
        try:
            apply(found, at.runs)
        except CheckpointUnreadable as error:
            notes.append(f"a checkpoint does not fit: {error}")
            continue
        at.epochs = list(found.epochs)
        at.seconds_before = float(found.facts["seconds"])
        at.processor_seconds_before = float(found.facts.get("processor_seconds", 0.0))
        notes.append(_resumed(at, found))
        return at
    return begin(task, workspace, n_micro=n_micro_min, resides=resides)


def _rightful(workspace: Workspace, task: TrialSpec) -> str:
    """What a checkpoint has to be of: the task's run, begun with this version's meaning of it."""
    return f"{workspace.identity(task.point, task.seeds)}.{SEMANTICS_VERSION}"


def _resumed(at: TrialRun, found: Checkpoint) -> str:
    here = circumstances(at.workspace.device)
    other = [f"{name} {found.facts.get(name)} is {value} here" for name, value in here.items()
             if found.facts.get(name) != value]  # fmt: skip
    epoch, step = at.order
    at_step = f", step {step}" if step else ""
    exact = f"; last bits may differ: {', '.join(other)}" if other else ""
    return f"resumed at epoch {epoch + 1}{at_step}{exact}"


def events(at: TrialRun) -> Generator[Step | Epoch]:
    """Train in place to the last epoch: a `Step` after each step of all runs, the mean `Epoch` after it.

    After either the caller may save and stop. In the end the weights are written where the task wants them.

    Raises:
        Diverged, OutOfMemory: as `training.fit`.
    """
    with ExitStack() as stack:
        fits = [
            stack.enter_context(closing(steps(run, at.images, split.train, split.val, at.kept)))
            for run, split in zip(at.runs, (at.workspace.data.splits[i] for i in at.task.splits), strict=True)
        ]
        for event in _side_by_side(fits):
            if isinstance(event, Epoch):
                at.epochs.append(event)
            yield event
    if at.task.weights_file is not None:
        at.workspace.save_weights(at.runs[0], at.task.weights_file)
        History.of(at.epochs).write(history_file(at.task.weights_file))


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


def find_mistakes(at: TrialRun, n_max: int) -> Mistakes:
    """Up to `n_max` mistakes of the task's first network, which is trained to its end."""
    val = at.workspace.data.splits[at.task.splits[0]].val
    logits = torch.from_numpy(predict_logits(at.runs[0], at.images, val, at.kept))
    probability, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = np.flatnonzero(predicted.numpy() != at.images.labels[val])
    surest = wrong[np.argsort(-probability.numpy()[wrong], kind="stable")][:n_max]
    return Mistakes(
        pictures=gather(at.images.eval_pixels, val[surest], torch.device("cpu")).cpu().numpy(),
        labels=at.images.labels[val[surest]],
        predicted=predicted.numpy()[surest],
        probability=probability.numpy()[surest],
    )


def check_time(at: TrialRun, seconds_max: float) -> None:
    """Check that the trial may go on.

    Raises:
        TimedOut: it has worked for longer than `seconds_max`, unless that is 0.
    """
    if 0 < seconds_max < at.seconds:
        n = len(at.epochs)
        raise TimedOut(f"more than {seconds_max:g} s of work, after {n} epoch{'s' if n != 1 else ''}")


@dataclass
class Saving:
    """When a trial is saved, and what came of it; each complaint is made once."""

    keeper: Keeper
    seconds: float = 0.0  # that the last checkpoint took
    last: float = field(default_factory=time.perf_counter)
    complaint: str = ""

    def is_due(self, event: Step | Epoch) -> bool:
        """Whether to save now: after an epoch, and within one as often as wished for.

        Not sooner than nineteen times what the last took: at most a twentieth of the time goes into them.
        """
        since = time.perf_counter() - self.last
        if since < self.seconds * (1 / _SHARE_MAX - 1):
            return False
        return isinstance(event, Epoch) or 0 < self.keeper.seconds < since

    def save(self, at: TrialRun) -> str:
        """Write a checkpoint; returns what a person has to be told, or "". Nothing is lost by a full disk."""
        start = time.perf_counter()
        facts = {
            **circumstances(at.workspace.device),
            "seconds": at.seconds,
            "processor_seconds": at.processor_seconds,
            "n_micro": at.n_micro,
        }
        who = _rightful(at.workspace, at.task)
        said = ""
        try:
            data = pack(at.runs, at.epochs, identity=who, facts=facts)
            if not self.keeper.store.write(self.keeper.trial, self.keeper.holder, at.order, data):
                said = "no room for checkpoints within service.checkpoint_gb_max"
        except OSError as error:
            said = (
                f"checkpoints cannot be written: {error}; make room in {self.keeper.store.place}, or name"
                " another place with --checkpoints"
            )
        self.last = time.perf_counter()
        self.seconds = self.last - start
        new, self.complaint = (said if said != self.complaint else ""), said
        return new


def replay(task: TrialSpec, workspace: Workspace) -> list[Epoch]:
    """The task's epochs from its start to its end, undisturbed, without any study."""
    return [event for event in events(begin(task, workspace, n_micro=1)) if isinstance(event, Epoch)]
