"""A first study file for a user's images, adapted to them, to the machine and to the time limit."""

import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from tlopt import spec
from tlopt.errors import MissingExtra, SpecError, WeightsError
from tlopt.model.build import check_resolution, n_blocks
from tlopt.model.families.table import LITE0
from tlopt.model.rates import has_batch_norm, usual_lr
from tlopt.model.weights import Weights, load_weights
from tlopt.propose import budget, study_file
from tlopt.propose.budget import Size, Terms, choose_size
from tlopt.propose.dataset import ImageSummary, summarize
from tlopt.propose.study_file import Choices, write_study
from tlopt.spec import messages
from tlopt.spec.search_keys import RULES
from tlopt.spec.sections import TABLE_SUFFIXES, DataSpec
from tlopt.system.words import as_sentence, counted, duration_words, joined
from tlopt.training.timing import Machine, TrainingCost, measure_costs

CPU_MINUTES = 30.0  # default time limit of a whole study on CPUs
RESOLUTIONS = (64, 96, 128, 160, 224)  # pixels per side
_ENLARGED = 3  # enlargement up to which larger inputs still helped (28-pixel clothing: 96, not 128)
_CLASSES_NAMED = 20
_NAME_CHARACTERS_MAX = 60
_DIVISIONS = {"folds", "fold_column", "repeats"}  # keys of [data] that ask for splits
_FIRST_CHOICE = {False: ("resnet50", LITE0), True: (LITE0, "mobilenet_v3_large")}  # key: on a CPU
_PLAIN_BUILD = {False: "resnet50", True: "mobilenet_v3_large"}  # if no weights are available


@dataclass(frozen=True, kw_only=True)
class ProposalRequest:
    """Values requested by the user; None leaves the choice to the proposal."""

    backbone: str | None = None
    trials: int | None = None
    epochs: int | None = None
    resolution: int | None = None
    minutes: float | None = None  # time limit of the whole study
    name: str | None = None
    skip_unreadable: bool = False  # leave out images that cannot be decoded, instead of refusing
    data: Mapping[str, object] = field(default_factory=dict)  # other keys of [data], with their values


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A proposed study file, with notes for the user."""

    text: str
    notes: tuple[str, ...]  # sentences for the user
    minutes: float  # expected, on this machine with its default workers


def propose(source: str, request: ProposalRequest, machine: Machine, *, progress: bool = False) -> Proposal:
    """A study file for the images in `source` that fits the requested values, the machine and the time limit.

    Reads every image, loads weights and measures a few training steps: seconds to a minute.

    Args:
        source: value for `[data] source`.
        progress: whether to show a progress bar on stderr while files are read.

    Raises:
        DataError: the images cannot be used as they are.
        SpecError: a requested value is not possible; the message says which values are.
        MissingExtra: the source or the requested backbone needs an optional package.
    """
    if request.minutes is not None and not 0 < request.minutes < math.inf:
        raise SpecError(f"--minutes {request.minutes:g} is not allowed: above 0, finite")
    given = {"unreadable": "skip"} | dict(request.data) if request.skip_unreadable else dict(request.data)
    data = data_spec(source, given)
    summary = summarize(data, seed=0, progress=progress)
    weights, backbone_notes = _choose_weights(request.backbone, machine)
    resolutions = _resolutions(weights, summary, request, machine)
    terms = _terms(weights, resolutions, summary, request, machine)
    size = choose_size(
        resolutions,
        summary.repeats,
        terms,
        trials=request.trials,
        epochs=request.epochs,
        insists=bool(_DIVISIONS & given.keys()),
    )
    minutes = budget.minutes(size, terms)
    estimate = _estimate(minutes, machine, terms.costs[size.resolution], size)
    text = write_study(
        Choices(
            name=study_name(source) if request.name is None else request.name,
            source=source,
            backbone=weights.backbone,
            weights_available=bool(weights.state),
            resolution_expected=weights.resolution,
            n_blocks=n_blocks(weights.backbone),
            batch_norm=has_batch_norm(weights.backbone),
            plain_lr=usual_lr(weights.backbone)["adamw"],
            summary=summary,
            data={key: getattr(data, key) for key in given},
            size=size,
            n_train=terms.used(size).train,
            batch_size=study_file.batch_size(terms.used(size).train, size.epochs),
            estimate=estimate,
        )
    )
    spec.loads(text, "the proposed study")
    notes = (
        *_image_notes(summary),
        *backbone_notes,
        *_size_notes(size, terms, summary, request, resolutions),
        f"Expected: {estimate}.",
    )
    return Proposal(text=text, notes=notes, minutes=minutes)


def data_spec(source: str, given: Mapping[str, object]) -> DataSpec:
    """The `[data]` table of a study file with these keys.

    Raises:
        SpecError: a key or a value is not allowed.
    """
    try:
        return DataSpec.model_validate({"source": source, **given})
    except ValidationError as error:
        raise SpecError("\n".join(f"[data] {line}" for line in messages.lines(error, DataSpec))) from error


def study_name(source: str) -> str:
    """A study name made from the name of the folder or data set, with allowed characters only."""
    folder = source.removeprefix("torchvision:")
    if folder == source:
        folder = os.path.basename(os.path.abspath(os.path.expanduser(source)))
        folder, suffix = os.path.splitext(folder)
        folder += "" if suffix.lower() in TABLE_SUFFIXES else suffix
    # names that end in .confirm are reserved for confirmations
    return re.sub(r"(\.confirm)+$", "", _plain(folder)[:_NAME_CHARACTERS_MAX]) or "images"


def _plain(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_text).strip("._-")


def _terms(
    weights: Weights,
    resolutions: list[int],
    summary: ImageSummary,
    request: ProposalRequest,
    machine: Machine,
) -> Terms:
    costs = measure_costs(
        weights,
        resolutions,
        n_classes=len(summary.class_names),
        batch_size=study_file.batch_size(summary.counts.train, request.epochs or budget.COMFORTABLE[1]),
        device=machine.device,
    )
    return Terms(
        costs=costs,
        counts=summary.counts,
        n_workers=machine.n_workers,
        n_classes=len(summary.class_names),
        n_trained_defaults=1 + has_batch_norm(weights.backbone),
        minutes_max=_minutes_max(request, machine),
        n_linear=study_file.n_linear(summary),
    )


def _minutes_max(request: ProposalRequest, machine: Machine) -> float:
    if request.minutes is not None:
        return request.minutes
    return CPU_MINUTES if machine.on_cpu else float("inf")


def _choose_weights(asked_for: str | None, machine: Machine) -> tuple[Weights, list[str]]:
    """Weights of the given backbone, else of the first available one, else none; and notes on the choice."""
    names = (asked_for,) if asked_for else _FIRST_CHOICE[machine.on_cpu]
    notes = []
    for name in names:
        try:
            weights = load_weights(name, "default")
        except (WeightsError, MissingExtra) as error:
            notes.append(f"No weights for {name} here. {error}")
        else:
            why = "as requested" if asked_for else _reason(name, machine)
            return weights, [*notes, f"Backbone: {weights.backbone} with {weights.label}, {why}."]
    name = asked_for or _PLAIN_BUILD[machine.on_cpu]
    notes.append(f'Backbone: {name}; the file has weights = "default", and no trial can start without them.')
    if asked_for and asked_for != LITE0 and _is_available(LITE0):
        notes.append(f"{LITE0} is available: choose it with --backbone {LITE0}.")
    return load_weights(name, "none"), notes


def proposed_backbone(machine: Machine) -> str:
    """The backbone that `propose` chooses by default: the first whose weights are available."""
    return _choose_weights(None, machine)[0].backbone


def _reason(name: str, machine: Machine) -> str:
    if not machine.on_cpu:
        return "a usual choice on a GPU" if name != LITE0 else "which needs no download"
    return "which trains fast on a CPU"


def _is_available(backbone: str) -> bool:
    try:
        load_weights(backbone, "default")
    except (WeightsError, MissingExtra):
        return False
    return True


def _resolutions(
    weights: Weights, summary: ImageSummary, request: ProposalRequest, machine: Machine
) -> list[int]:
    """Candidate resolutions in pixels per side, ascending; without a time limit only the best."""
    if request.resolution is not None:
        _check_wished_resolution(request.resolution)
        check_resolution(weights, request.resolution)
        return [request.resolution]
    if weights.resolution_step > 1:  # how interpolated position embeddings transfer was not measured
        return [weights.resolution]
    known = RESOLUTIONS if machine.on_cpu else tuple(sorted({*RESOLUTIONS, weights.resolution}))
    allowed = [r for r in known if weights.resolution_min <= r <= weights.resolution] or [weights.resolution]
    best = next((r for r in allowed if r >= _ENLARGED * summary.side), allowed[-1])
    if machine.on_cpu or request.minutes is not None:
        return [r for r in allowed if r <= best]
    return [best]


def _check_wished_resolution(resolution: int) -> None:
    rule = RULES["resolution"]
    if rule.refuse(resolution):
        raise SpecError(f"--resolution {resolution} is not allowed: {rule.allowed} pixels a side")


def _estimate(minutes: float, machine: Machine, cost: TrainingCost, size: Size) -> str:
    gpus = f"{machine.n_devices} x {machine.device_name}"
    processors = counted(machine.n_cores, "core") if machine.on_cpu else gpus
    ms = float(f"{cost.full * 1000:.2g}")
    rate = f"{ms:g} ms an image at {size.resolution} pixels"
    workers = counted(machine.n_workers, "worker")
    free = "this machine if nothing else runs"
    return f"{_duration(minutes)} on {free}: {processors}, {workers}, measured {rate}"


def _duration(minutes: float) -> str:
    return f"about {duration_words(60 * minutes, digits=0)}" if minutes >= 2 else "a minute or two"


def _image_notes(summary: ImageSummary) -> Iterator[str]:
    kind = "grey images" if summary.grey else "images"
    counts = summary.counts
    yield f"Classes: {joined(summary.class_names, _CLASSES_NAMED)}."
    yield (
        f"{counts.all} {kind} of {len(summary.class_names)} classes: {counts.train} to train,"
        f" {counts.val} to validate, {counts.test} held out for the test; the shorter side has"
        f" {summary.side} pixels."
    )
    yield from map(as_sentence, summary.notices)
    if summary.imbalanced:
        yield (
            f"With {counted(summary.largest_class, 'image')} in the largest class and"
            f" {summary.smallest_class} in the smallest the objective is balanced accuracy, and class_weights"
            " is searched."
        )
    if summary.are_signs:
        yield "The classes are digits or letters: images are not mirrored."


def _size_notes(
    size: Size, terms: Terms, summary: ImageSummary, request: ProposalRequest, resolutions: list[int]
) -> Iterator[str]:
    """Notes on the size of the study: resolution, trials and epochs that the time limit reduced."""
    limit = _duration(terms.minutes_max) if terms.minutes_max < float("inf") else ""
    if size.resolution < resolutions[-1]:
        yield (
            f"Resolution {size.resolution} pixels and not {resolutions[-1]}, to fit into {limit}"
            f" (--resolution {resolutions[-1]} insists)."
        )
    elif request.resolution is None and size.resolution < RESOLUTIONS[-1] and summary.side < size.resolution:
        yield f"Resolution {size.resolution} pixels: the images are small, and more would only cost time."
    if size.repeats > 1 and _DIVISIONS & request.data.keys():
        yield f"Every trial trains on {size.repeats} splits, as asked, and costs {size.repeats} trainings."
    elif size.repeats > 1:
        yield (
            f"With {summary.n_seen} images a single split is too noisy: every trial trains on"
            f" {size.repeats} splits and costs {size.repeats} trainings."
        )
    elif summary.repeats > 1:
        yield (
            f"With {summary.n_seen} images a single split is too noisy, but {summary.repeats} splits do not"
            f" fit into {limit}: repeats = 1, and the seeds of the confirmation validate on"
            f" {budget.SEEDS} other splits."
        )
    busy = budget.busy_sentence(terms.costs[size.resolution].load_factor, budget.minutes(size, terms))
    if busy:
        yield as_sentence(busy)
    if size.images_max:
        yield f"Only {size.images_max} of {terms.counts.all} images are used, to fit into {limit}."
    if budget.minutes(size, terms) > terms.minutes_max:
        yield f"This does not fit into {limit}, and nothing more can be reduced: allow more --minutes."
