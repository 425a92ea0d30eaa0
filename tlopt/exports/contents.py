"""Everything an export says, gathered from a study, its workspace and its verdict."""

import logging
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tlopt.analysis.cost import Cost
from tlopt.confirmation.held_out import WeightsFile, trained
from tlopt.confirmation.predictions import Predictions, Source, read_known
from tlopt.confirmation.verdict import Split, Verdict
from tlopt.errors import DataError, NotReady
from tlopt.exports.card import Findings, Images, Pretrained, Spend, Trained
from tlopt.storage.attributes import TrialRecord
from tlopt.trial.history import History, history_file
from tlopt.trial.workspace import Workspace

_logger = logging.getLogger(__name__)
_PACKAGES = ("tlopt", "torch", "torchvision", "optuna", "numpy", "pillow")


@dataclass(frozen=True)
class Chosen:
    """The network that goes into an export."""

    weights_file: Path
    trained: Trained
    predictions: (
        Predictions | None
    )  # on test where it was read, else on validation; None where none are known


def choose_network(workspace: Workspace, verdict: Verdict, weights_file: WeightsFile) -> Chosen:
    """Of the chosen point's runs the one with the best validation objective; trained again where it is lost.

    Raises:
        NotReady: no candidate ended with a value.
    """
    chosen = verdict.chosen
    if not chosen.val:
        raise NotReady(f"{verdict.study}: no candidate of the confirmation ended with a value")
    replicate = verdict.exported_replicate
    file = weights_file(chosen.number, replicate)
    trained(workspace, chosen.point, chosen.seeds[replicate], replicate, file)
    history = History.read(history_file(file))
    source = Source.of(chosen.point, chosen.seeds[replicate], workspace.facts)
    return Chosen(
        file,
        describe(history, chosen.seeds[replicate], "training images"),
        _known_predictions(file, verdict.split, source),
    )


def _known_predictions(weights_file: Path, split: Split, source: Source) -> Predictions | None:
    """The recorded predictions; None, with a warning where the file is damaged, if there are none."""
    try:
        return read_known(weights_file, split, source)
    except DataError as error:
        _logger.warning("%s; the card goes without what the network gets wrong", error)
        return None


def describe(history: History, seed: int, images: str) -> Trained:
    """A run's history as the card shows it."""
    return Trained(
        seed=seed,
        images=images,
        train_loss=history.train_loss,
        val={name: tuple(values) for name, values in history.curves().items()},
        confusion=history.confusion,
    )


def gather(
    workspace: Workspace,
    study_text: str,
    verdict: Verdict,
    trials: Sequence[TrialRecord],
    chosen: Trained,
    *,
    runs: Sequence[TrialRecord] = (),
    predictions: Predictions | None = None,
) -> Findings:
    """The findings of a finished study.

    Args:
        trials: of the search; none where a given config was trained.
        runs: of the confirmation.
        predictions: of the network that is exported, where they were recorded.
    """
    weights = workspace.weights[verdict.chosen.point.backbone]
    return Findings(
        study=workspace.study,
        study_text=study_text,
        verdict=verdict,
        images=Images(
            class_names=workspace.data.class_names,
            n_search=len(workspace.data.labels),
            n_test=workspace.data.n_test,
            fingerprint=workspace.data.fingerprint,
        ),
        pretrained=Pretrained(label=weights.label, digest=weights.digest, mean=weights.mean, std=weights.std),
        trained=chosen,
        spend=Spend(
            trials=Counter(trial.outcome.value for trial in trials if not trial.is_carried),
            search=Cost.of(trials, n_splits=len(workspace.data.splits)),
            confirmation=Cost.of(runs),
        ),
        versions={"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        created=datetime.now(UTC),
        predictions=predictions,
    )
