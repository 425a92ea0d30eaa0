"""Small studies: planted facts for tests without images, and a workspace that trains in a second."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from tlopt import spec
from tlopt.model.facts import BackboneFacts
from tlopt.plots import confusion, effects, training
from tlopt.search.plan import StudyPlan, search_plan
from tlopt.search.samplers import InitialPointsSampler, make_pruner
from tlopt.spec import Study
from tlopt.spec.folders import Folders
from tlopt.spec.point import Point, seed_for
from tlopt.storage import studies, workers
from tlopt.training.checkpoint_store import CheckpointStore
from tlopt.training.loop import Epoch
from tlopt.training.metrics import Metrics
from tlopt.trial import execution
from tlopt.trial.workspace import Workspace
from tlopt.worker import loop, objective
from tlopt.worker.claim import StudyWork, claim
from tlopt.worker.objective import TrialContext
from tlopt.worker.shutdown import Interrupt
from tlopt.worker.trial_log import TrialLog

NO_MISTAKES = execution.Mistakes(
    pictures=np.empty((0, 8, 8, 3), np.uint8),
    labels=np.empty(0, np.int64),
    predicted=np.empty(0, np.int64),
    probability=np.empty(0, np.float32),
)
BLOCKS = {"small": 9, "large": 17}
RESOLUTION = {"small": 96, "large": 224}
PLAIN_LR = {"sgd": 0.0125, "adamw": 0.00125}


def facts(*, transferable: bool = True, batch_norm: bool = True) -> BackboneFacts:
    """Two backbones of 9 and 17 blocks."""
    return BackboneFacts(
        n_blocks=BLOCKS,
        transferable=transferable,
        resolution=RESOLUTION,
        batch_norm=dict.fromkeys(BLOCKS, batch_norm),
        plain_lr=dict.fromkeys(BLOCKS, PLAIN_LR),
    )


def text(search: str, *, backbone: str = '"large"', trials: int = 60, more: str = "") -> str:
    """A study file on a backbone of `facts` with these lines of [search] and further tables."""
    return (
        f'name = "planted"\nseed = 7\n[data]\nsource = "images"\n[model]\nbackbone = {backbone}\n'
        f"[budget]\ntrials = {trials}\nepochs = 30\n[search]\n{search}\n{more}"
    )


def study(search: str, *, backbone: str = '"large"', trials: int = 60, more: str = "") -> Study:
    """`text`, decoded."""
    return spec.loads(text(search, backbone=backbone, trials=trials, more=more), "planted.toml")


def lighter(file_text: str, *, head: str = "") -> str:
    """The study file with a quick network, one split instead of three, and the lines `head` at its top."""
    quick = file_text.replace("resnet18", "mobilenet_v3_small").replace("batch_size = 8", "batch_size = 16")
    return head + "\n" + quick.replace("[model]", "repeats = 1\n[model]")


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """A workspace and a database for studies on the same images and network."""

    workspace: Workspace
    facts: BackboneFacts
    store: BaseStorage


def workshop(file_text: str, url: str) -> Workshop:
    """A workshop on the CPU for the study file `file_text`."""
    workspace = Workspace.open(spec.loads(file_text, "tiny.toml"), torch.device("cpu"))
    return Workshop(workspace=workspace, facts=workspace.facts, store=studies.open_storage(url))


@dataclass(frozen=True, kw_only=True)
class Place:
    """A study with its workspace, its database and its folders, for a worker in this process."""

    study: Study
    workspace: Workspace
    store: BaseStorage
    opened: optuna.Study
    plan: StudyPlan
    folders: Folders

    def study_work(self, checkpoints: CheckpointStore | None = None) -> StudyWork:
        """The study as a worker serves it."""
        return StudyWork(
            optuna_study=self.opened,
            plan=self.plan,
            workspace=self.workspace,
            folders=self.folders,
            service=self.study.service,
            checkpoints=checkpoints,
        )

    def work(self, interrupt: Interrupt | None = None, checkpoints: CheckpointStore | None = None) -> int:
        """Trials that a worker finishes here until it ends."""
        service = studies.service_of(self.store)
        return loop.run_worker([self.study_work(checkpoints)], service, interrupt or Interrupt())

    def claim(self) -> optuna.Trial | None:
        """A trial that another worker of this process holds from now on, and never goes on with."""
        service = studies.service_of(self.store)
        found = claim(
            self.study_work(), service, replace(workers.this_process(), worker_id="another"), has_waiting=True
        )
        return None if found is None else found.trial

    def requeue(self, trial: optuna.Trial) -> None:
        """Make a claimed trial wait."""
        studies.service_of(self.store).set_trial_state_values(trial._trial_id, TrialState.WAITING)

    @property
    def trials(self) -> Sequence[optuna.trial.FrozenTrial]:
        """The study's trials by number."""
        return self.opened.get_trials(deepcopy=False)


def place(file_text: str, shop: Workshop, runs: Path) -> Place:
    """A place for the study file `file_text` in a workshop for the same images and network."""
    decoded = spec.loads(file_text, "tiny.toml")
    plan = search_plan(decoded, shop.facts, len(shop.workspace.data.splits))
    opened = studies.create_or_open(
        shop.store,
        decoded,
        file_text=file_text,
        fingerprints=dict(shop.workspace.fingerprints),
        sampler=InitialPointsSampler(
            plan.initial_points,
            decoded.sampler,
            seed=seed_for(decoded.seed, decoded.name),
            transform=plan.sampler_trials,
        ),
        pruner=make_pruner(decoded.pruner, epochs_max=decoded.budget.epochs),
    )
    return Place(
        study=decoded,
        workspace=replace(shop.workspace, study=decoded),
        store=shop.store,
        opened=opened,
        plan=plan,
        folders=Folders(root=runs, study=decoded.name),
    )


def context(
    *, log: Path | None = None, notes: list[str] | None = None, trial_seconds_max: float = 0.0
) -> TrialContext:
    """A trial without checkpoints or limits, whose study's pruner is asked after every epoch."""
    return TrialContext(
        interrupt=Interrupt(),
        on_step=lambda event, seconds: None,
        checkpoints=None,
        should_prune=lambda trial: trial.should_prune(),
        trial_seconds_max=trial_seconds_max,
        wants_pictures=lambda value: False,
        notes=[] if notes is None else notes,
        log=TrialLog(log or Path(os.devnull)),
    )


def metrics(value: float) -> Metrics:
    """Every fraction is `value`, the log-loss 1 - `value`."""
    return Metrics(accuracy=value, balanced_accuracy=value, macro_f1=value, log_loss=1 - value)


def plant(patch: pytest.MonkeyPatch, curve: Callable[[Point], Iterable[float]]) -> None:
    """From here on trials train nothing: their epochs have the values of `curve`; pictures are empty."""

    def start_run(
        workspace: Workspace, point: Point, *, seed: int, train: object, n_micro_batches: int = 1
    ) -> Point:
        return point

    def steps(point: Point, images: object, train: object, val: object, kept: None) -> Iterator[Epoch]:
        yield from (epoch(index, value) for index, value in enumerate(curve(point)))

    patch.setattr(Workspace, "start_run", start_run)
    patch.setattr(Workspace, "feature_store", lambda *_, **__: None)
    patch.setattr(execution, "steps", steps)
    patch.setattr(execution.TrialCheckpoints, "save", lambda checkpoints, training: "")
    patch.setattr(objective, "find_mistakes", lambda *_: NO_MISTAKES)
    draw_nothing(patch)


def epoch(index: int, value: float) -> Epoch:
    """An epoch with a planted validation value."""
    return Epoch(
        index=index,
        train_loss=0.5,
        train_accuracy=0.75,
        val=metrics(value),
        confusion=np.eye(3, dtype=np.int64),
        seconds=0.25,
    )


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Pictures of trials are empty files from here on."""

    def draw(path: Path, **_: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    patch.setattr(training, "draw_learning_curves", draw)
    patch.setattr(confusion, "draw_confusion", draw)
    patch.setattr(training, "draw_mistakes", draw)
    patch.setattr(effects, "draw_dependences", draw)
