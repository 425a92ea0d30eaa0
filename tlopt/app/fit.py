"""The fit of pretrained networks to the training images of a study or a folder."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlopt.app.handle import Session, errors_of, open_session
from tlopt.app.workflow import prepare, renew_note
from tlopt.errors import NotReady, SpecError
from tlopt.insight.record import Comparison, Fit, fit_sentence
from tlopt.spec import PerOptimizer, Study
from tlopt.spec.dimensions import bounds
from tlopt.spec.search_keys import RULES
from tlopt.spec.sections import TABLE_SUFFIXES
from tlopt.storage import attributes

if TYPE_CHECKING:
    import torch

    from tlopt.insight.images import SourceImages, TrainingImages
    from tlopt.model.weights import Weights
    from tlopt.trial.workspace import Workspace

_FIGURES = (".png", ".svg", ".pdf")  # suffixes


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """Values requested by the user; empty or None leaves the choice to tlopt.

    Attributes:
        backbones: default: the study's, or for a folder the one that `tlopt init` proposes.
        measures: names of measures; default: all that can be computed.
        source: images that the networks were pretrained on, as for `tlopt init`.
        resolution: pixels per side; default: the study's highest, or the one that the weights expect.
        images_max: largest number of training images to use.
        figure: file for the figure; default: see `figure_file`.
        device: torch's name of the device, or "auto".
    """

    backbones: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    source: str | None = None
    resolution: int | None = None
    images_max: int | None = None
    figure: Path | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The images and networks for which fit is measured."""

    name: str
    images: "TrainingImages"
    weights: "tuple[Weights, ...]"
    device: "torch.device"
    resolution: int | None  # None: the one that each network's weights expect
    source: "SourceImages | None"
    study: "tuple[Session, Workspace] | None" = None  # None for a folder

    def resolution_for(self, weights: "Weights") -> int:
        """Pixels per side for the network of `weights`."""
        return self.resolution or weights.resolution


def is_images(target: str) -> bool:
    """Whether `target` names images, as for `tlopt init`, not a study."""
    named = target == "digits" or target.startswith("torchvision:")
    return named or Path(target).is_dir() or Path(target).suffix.lower() in TABLE_SUFFIXES


def open_subject(
    target: str, request: FitRequest, *, storage_url: str | None = None, progress: bool = False
) -> Subject:
    """The images and networks given by `target` and `request`.

    Raises:
        SpecError, DataError, WeightsError, MissingExtra, NotReady: the images, the networks or the study
            cannot be used, or the name of a measure is unknown.
    """
    from tlopt.insight.measures import chosen

    with_source = request.source is not None
    chosen(request.measures, with_source=with_source)  # raises for unknown names before images are read
    allowed = RULES["resolution"]
    if request.resolution is not None and allowed.refuse(request.resolution):
        raise SpecError(f"--resolution = {request.resolution} is not allowed: {allowed.allowed}")
    if request.figure is not None:
        _check_figure(request.figure)
    if is_images(target):
        return _of_images(target, request, progress=progress)
    session = open_session(target, storage_url=storage_url, create=False)
    return _of_study(session, request, progress=progress)


def _of_study(session: Session, request: FitRequest, *, progress: bool) -> Subject:
    from tlopt.insight.images import TrainingImages
    from tlopt.model.weights import load_weights

    workspace = prepare(session, device=request.device, progress=progress)
    names = request.backbones or tuple(workspace.weights)
    with errors_of(session.target):
        images = TrainingImages.of(workspace.data, workspace.study.data, images_max=request.images_max)
    return Subject(
        name=session.study.name,
        images=images,
        weights=tuple(workspace.weights.get(name) or load_weights(name, "default") for name in names),
        device=workspace.device,
        resolution=request.resolution or _highest_resolution(session.study),
        source=_source(request.source, progress=progress),
        study=(session, workspace),
    )


def _of_images(source: str, request: FitRequest, *, progress: bool) -> Subject:
    from tlopt.data.load import load_data
    from tlopt.insight.images import TrainingImages
    from tlopt.model.weights import load_weights
    from tlopt.propose.proposal import data_spec, proposed_backbone, study_name
    from tlopt.training.devices import choose_device
    from tlopt.training.timing import detect_machine

    spec = data_spec(source, {})
    names = request.backbones or (proposed_backbone(detect_machine()),)
    weights = tuple(load_weights(name, "default") for name in names)
    images = TrainingImages.of(
        load_data(spec, seed=0, progress=progress), spec, images_max=request.images_max
    )
    return Subject(
        name=study_name(source),
        images=images,
        weights=weights,
        device=choose_device(request.device),
        resolution=request.resolution,
        source=_source(request.source, progress=progress),
    )


def _source(source: str | None, *, progress: bool) -> "SourceImages | None":
    from tlopt.data.load import load_data
    from tlopt.insight.images import SourceImages
    from tlopt.propose.proposal import data_spec

    if source is None:
        return None
    with errors_of("--source"):
        spec = data_spec(source, {})
        return SourceImages.of(load_data(spec, seed=0, progress=progress), spec)


def _highest_resolution(study: Study) -> int | None:
    wanted = study.search.get("resolution")
    return None if wanted is None or isinstance(wanted, PerOptimizer) else int(max(bounds(wanted)))


def measure(subject: Subject, measures: Sequence[str], *, progress: bool = False) -> list[Fit]:
    """The fit of each network, sorted by the first measure, best first; stored with the study if it exists.

    Raises:
        SpecError: the name of a measure is unknown, or a network does not support the resolution.
        DataError: an image has changed or disappeared since it was first read.
    """
    from tlopt.insight.fit import measure_fit
    from tlopt.insight.measures import chosen
    from tlopt.insight.record import by_fit

    wanted = chosen(measures, with_source=subject.source is not None)
    fits = [
        measure_fit(
            weights,
            subject.images,
            wanted,
            resolution=subject.resolution_for(weights),
            device=subject.device,
            source=subject.source,
            progress=progress,
        )
        for weights in subject.weights
    ]
    ranked = by_fit(fits, wanted[0].name)
    if subject.study is not None:
        _store(*subject.study, ranked)
    return ranked


def compare_with_export(subject: Subject, export: Path) -> Comparison:
    """Comparison by block of the pretrained network with that of an export, on the subject's images.

    Raises:
        NotReady, DataError: `export` is not an export, or is damaged; or there are too few images.
    """
    from tlopt.exports.read import load_network, read_export
    from tlopt.insight import fit
    from tlopt.model.weights import load_weights

    other = read_export(export)
    known = {weights.backbone: weights for weights in subject.weights}
    weights = known.get(other.backbone) or load_weights(other.backbone, "default")
    rows, untrained = fit.compare(
        weights,
        load_network(other, subject.device),
        subject.images,
        resolution=other.resolution,
        device=subject.device,
    )
    same = weights.digest == other.weights_digest
    return Comparison(
        backbone=other.backbone,
        weights=weights.label,
        other=str(export),
        resolution=other.resolution,
        n_images=len(subject.images.indices),
        rows=rows,
        untrained=untrained,
        warnings=() if same else (f"the export was trained from other weights, {other.weights_label}",),
    )


def _store(session: Session, workspace: "Workspace", fits: Sequence[Fit]) -> None:
    """Store the fits with the study, if it is in the database."""
    with suppress(NotReady):
        found = {"summary": "; ".join(map(fit_sentence, fits)), "fits": [fit.as_dict() for fit in fits]}
        session.optuna_study().set_user_attr(attributes.FIT, found)
        renew_note(session, workspace)


def figure_file(subject: Subject) -> Path:
    """Default path of the figure."""
    return Path("exports") / f"{subject.name}.fit.png"


def _check_figure(path: Path) -> None:
    """Raise if no figure can be written to `path`, before anything is measured.

    Raises:
        SpecError: its name ends otherwise than a figure's, or something is in its way.
    """
    if path.suffix.lower() not in _FIGURES:
        raise SpecError(f"--figure {path}: the name of a figure ends in {', '.join(_FIGURES)}")
    above = next(each for each in path.absolute().parents if each.exists())
    if path.is_dir() or not above.is_dir():
        raise SpecError(
            f"--figure {path}: {path if path.is_dir() else above} is in the way; name another file"
        )


def draw_figure(fits: Sequence[Fit], path: Path, *, title: str) -> Path | None:
    """Draw the values by block to `path`; return it, or None if no measure has values by block.

    Raises:
        SpecError: it cannot be written.
    """
    from tlopt.plots.fit import MeasurePanel, NetworkLine, draw_fit

    panels = [
        MeasurePanel(
            heading=column.heading,
            scale=100.0 if column.unit == "%" else 1.0,
            lines=tuple(
                NetworkLine(fit.backbone, tuple(row.values.get(column.name) for row in fit.blocks))
                for fit in fits
            ),
        )
        for column in fits[0].block_columns
    ]
    try:
        return draw_fit(path, panels, title=title) if panels else None
    except OSError as error:
        raise SpecError(
            f"--figure {path}: cannot be written: {error.strerror or error}; name another file"
        ) from error
