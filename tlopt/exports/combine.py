"""The contents of the export of a soup or an ensemble: its tensors and its own numbers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from tlopt.confirmation.combined import Combined, Kind
from tlopt.confirmation.combining import CombinedNetwork, make_ensemble, make_soup
from tlopt.confirmation.held_out import WeightsFile, read_test_of, validate
from tlopt.confirmation.predictions import Predictions, Source
from tlopt.confirmation.verdict import Verdict
from tlopt.exports.card import Trained
from tlopt.exports.contents import known_predictions
from tlopt.training.metrics import confusion_matrix
from tlopt.trial.workspace import Workspace, save_tensors

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Combination:
    """What to combine, as the user asks for it."""

    kind: Kind
    n_points: int = 0  # confirmed points whose runs take part; 0: the default of the kind


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredNetwork:
    """A soup or an ensemble with its numbers, ready to be exported."""

    combined: Combined
    trained: Trained
    predictions: Predictions | None  # on test images if there are any, else on validation
    state: Mapping[str, Tensor]

    def save(self, path: Path) -> None:
        """Write its tensors atomically.

        Raises:
            Unwritable: the disk is full, or the folder may not be written to.
        """
        save_tensors(self.state, path, made_by=self.combined.name)


def make(
    workspace: Workspace, verdict: Verdict, wanted: Combination, weights_file: WeightsFile
) -> CombinedNetwork:
    """The soup or the ensemble of a finished confirmation, not measured yet.

    Raises:
        SpecError, NotReady: there are no two runs that go together; says why.
    """
    maker = {"soup": make_soup, "ensemble": make_ensemble}[wanted.kind]
    return maker(workspace, verdict, weights_file, n_points=wanted.n_points)


def measure(
    workspace: Workspace,
    found: CombinedNetwork,
    weights_file: WeightsFile,
    test: Metrics | None,
) -> MeasuredNetwork:
    """Measure a combined network on validation and, unless `test` has the metrics, on test images."""
    combined, first = found.combined, found.combined.members[0]
    source, file = _source(workspace, combined), _file(combined, weights_file)
    confusion = predictions = None
    if len(found.val):
        metrics, predictions = validate(workspace, found.net, first.point, source, found.val)
        confusion = confusion_matrix(predictions.labels, predictions.predicted, workspace.n_classes)
        combined = replace(combined, val=metrics.as_dict())
    if workspace.data.n_test:
        test = test or read_test_of(workspace, found.net, first.point, source, file)
        combined = replace(combined, test=test)
        predictions = known_predictions(file, "test", source)
    trained = Trained(seed=first.seed, images="training images", train_loss=(), val={}, confusion=confusion)
    return MeasuredNetwork(
        combined=combined, trained=trained, predictions=predictions, state=found.net.state_dict()
    )


def known_test(verdict: Verdict, combined: Combined, stored: Metrics | None) -> Metrics | None:
    """The test metrics of a combined network, if known; those of a single member are its run's."""
    if not combined.is_single:
        return stored
    test = verdict.chosen.test
    return test[combined.members[0].replicate] if test else None


def _source(workspace: Workspace, combined: Combined) -> Source:
    first = combined.members[0]
    if combined.is_single:
        return Source.of(first.point, first.seed, workspace.fingerprints)
    what = {"kind": combined.kind, "members": [member.as_dict() for member in combined.members]}
    return Source.made_of(what, first.seed, workspace.fingerprints)


def _file(combined: Combined, weights_file: WeightsFile) -> Path:
    """Beside which its predictions are kept, in the folder of the confirmation's weights."""
    first = combined.members[0]
    file = weights_file(first.number, first.replicate)
    if combined.is_single:
        return file
    digest = hashlib.sha256(combined.name.encode()).hexdigest()[:16]
    return file.with_name(f"{combined.kind}-{digest}.safetensors")
