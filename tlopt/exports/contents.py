"""The contents of an export, from a study, its workspace and its verdict."""

import logging
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tlopt.analysis.cost import Cost
from tlopt.confirmation.combined import Combined
from tlopt.confirmation.held_out import WeightsFile, trained
from tlopt.confirmation.predictions import Predictions, Source, read_known
from tlopt.confirmation.verdict import SplitName, Verdict
from tlopt.errors import DataError, NotReady
from tlopt.exports.card import DatasetSummary, ExportContents, Pretrained, Spend, Trained
from tlopt.storage.attributes import TrialRecord
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace

_logger = logging.getLogger(__name__)
_PACKAGES = ("tlopt", "torch", "torchvision", "optuna", "numpy", "pillow")


@dataclass(frozen=True)
class Chosen:
    """The network to export."""

    weights_file: Path
    trained: Trained
    predictions: Predictions | None  # on test images if evaluated, else on validation; None if not recorded


def choose_network(workspace: Workspace, verdict: Verdict, weights_file: WeightsFile) -> Chosen:
    """The run of the chosen point with the best validation objective; trained again if its weights are lost.

    Raises:
        NotReady: no candidate of the confirmation completed.
    """
    chosen = verdict.chosen
    if not chosen.val:
        raise NotReady(
            f"{verdict.study}: no candidate of the confirmation completed, so there is no network to export"
        )
    replicate = verdict.exported_replicate
    file = weights_file(chosen.number, replicate)
    trained(workspace, chosen.point, chosen.seeds[replicate], replicate, file)
    history = History.read(history_file(file))
    source = Source.of(chosen.point, chosen.seeds[replicate], workspace.fingerprints)
    return Chosen(
        file,
        trained_of(history, chosen.seeds[replicate], "training images"),
        known_predictions(file, verdict.split, source),
    )


def known_predictions(weights_file: Path, split: SplitName, source: Source) -> Predictions | None:
    """The recorded predictions; None if there are none or their file is damaged.

    Warns of a damaged file, and where predictions were made on test images but elsewhere.
    """
    try:
        found = read_known(weights_file, split, source)
    except DataError as error:
        _logger.warning("%s; the model card will not list mistakes", error)
        return None
    if found is None and split == "test":
        _logger.warning(
            "predictions on test images are not on this machine; the model card will not list mistakes"
        )
    return found


def trained_of(history: History, seed: int, images: str) -> Trained:
    """The summary of a run for the model card."""
    return Trained(
        seed=seed,
        images=images,
        train_loss=history.train_loss,
        val={name: tuple(values) for name, values in history.curves().items()},
        confusion=history.confusion,
    )


def collect_contents(
    workspace: Workspace,
    study_text: str,
    verdict: Verdict,
    trials: Sequence[TrialRecord],
    chosen: Trained,
    *,
    runs: Sequence[TrialRecord] = (),
    predictions: Predictions | None = None,
    combined: Combined | None = None,
) -> ExportContents:
    """The contents of the export of a finished study.

    Args:
        trials: trials of the search; empty for a config that was not searched for.
        runs: trials of the confirmation.
        predictions: those of the exported network; None if not recorded.
        combined: the runs that the exported network is made of; None: it is that of one run.
    """
    weights = workspace.weights[verdict.chosen.point.backbone]
    return ExportContents(
        study=workspace.study,
        study_text=study_text,
        verdict=verdict,
        images=DatasetSummary(
            class_names=workspace.data.class_names,
            n_search=len(workspace.data.labels),
            n_test=workspace.data.n_test,
            fingerprint=workspace.data.fingerprint,
        ),
        pretrained=Pretrained(label=weights.label, digest=weights.digest, mean=weights.mean, std=weights.std),
        trained=chosen,
        spend=Spend(
            trials=Counter(trial.outcome.value for trial in trials if not trial.is_carried),
            search=Cost.of(trials, n_splits=1 if workspace.study.is_grid else workspace.data.n_trial_splits),
            confirmation=Cost.of(runs),
            n_carried=sum(trial.is_carried for trial in trials),
        ),
        versions={"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        created=datetime.now(UTC),
        predictions=predictions,
        combined=combined,
    )
