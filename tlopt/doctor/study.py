"""Check a study on this machine: its file, images and weights, and the stored study."""

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage

from tlopt import spec
from tlopt.analysis.format import hours_sentence
from tlopt.analysis.snapshot import take_snapshot
from tlopt.cache.folder import cache_root
from tlopt.doctor.finding import Finding, Findings, guarded
from tlopt.doctor.weights import megabytes, unfetched
from tlopt.errors import NotReady, StudyChanged
from tlopt.spec import Study
from tlopt.spec.text import is_file, is_path, no_such_file
from tlopt.storage import studies
from tlopt.system.files import kind_at
from tlopt.system.words import counted

if TYPE_CHECKING:
    from tlopt.data.dataset import Data
    from tlopt.model.weights import Weights


def study(target: str, store: BaseStorage | None, *, progress: bool) -> Findings:
    """Findings on the study file or stored study `target`; nothing is downloaded.

    Args:
        store: storage with the stored studies, or None.
        progress: whether to show a progress bar on stderr while images are read.
    """
    wanted = _read(target, store)
    n = wanted.budget
    yield Finding("ok", "study", f"{wanted.name}, {n.trials_words} of at most {counted(n.epochs, 'epoch')}")
    data = yield from guarded("images", _images(wanted, progress=progress))
    weights = yield from guarded("weights", _weights(wanted))
    if data is not None and weights is not None:
        yield from guarded("study", _compared(wanted, data, weights, store))


def _read(target: str, store: BaseStorage | None) -> Study:
    if is_file(target):
        return spec.load(target)
    known = [] if store is None else optuna.get_all_study_names(store)
    if target not in known and (is_path(target) or kind_at(Path(target))):
        raise no_such_file(target)
    if store is None:
        raise NotReady(
            f"{target}: there is no such file, and no database in which a study could have this name"
        )
    return studies.stored_spec(studies.open_existing(store, target))


def _images(wanted: Study, *, progress: bool) -> "Generator[Finding, None, Data | None]":
    """Yield findings on the images; return the data, or None if they are not on this machine."""
    from tlopt.data.load import load_data

    source = wanted.data.source
    if source.startswith("torchvision:") and not listing_file(source).exists():
        yield Finding(
            "note",
            "images",
            f"{source} has not been read on this machine yet; the first command reads or downloads it",
            f"to do so now, run tlopt check; without a network, put its files under"
            f" {cache_root() / 'torchvision'}",
        )
        return None
    data = load_data(wanted.data, seed=wanted.seed, progress=progress)
    first = data.splits[0]
    yield Finding(
        "ok",
        "images",
        f"{source}: {len(first.train)} train, {len(first.val)} validation, {data.n_test} test,"
        f" {len(data.class_names)} classes",
    )
    for notice in data.notices:
        yield Finding("note", "images", notice)
    return data


def listing_file(source: str) -> Path:
    """The file with the labels and digests of a library's data set, written when it is first read."""
    return cache_root() / "listings" / f"{source.replace(':', '-')}.json"


def _weights(wanted: Study) -> "Generator[Finding, None, dict[str, Weights] | None]":
    """Yield findings on the weights; return them by backbone, or None if some are not on this machine."""
    from tlopt.model.weights import load_weights

    found = {}
    for backbone in wanted.model.backbones:
        absent = "" if wanted.weights_file else unfetched(backbone, wanted.model.weights)
        if absent:
            yield Finding(
                "note",
                "weights",
                f"{backbone}: {absent} is not on this machine; the first command downloads it,"
                f" about {megabytes(backbone)} MB",
                'to do so now, run tlopt check; without a network, write model.weights = "path/to/file.pth"',
            )
            continue
        found[backbone] = load_weights(backbone, wanted.model.weights)
        text = f"{backbone}: {found[backbone].label}, at {found[backbone].resolution} pixels"
        yield Finding("ok", "weights", text)
    return found if len(found) == len(wanted.model.backbones) else None


def _compared(
    wanted: Study, data: "Data", weights: "Mapping[str, Weights]", store: BaseStorage | None
) -> Findings:
    """Findings on whether the ranges fit the networks and the file matches the stored study."""
    from tlopt.search.space import check_depths
    from tlopt.training.devices import choose_device
    from tlopt.trial.workspace import Workspace

    workspace = Workspace(
        study=wanted, data=data, weights=weights, device=choose_device("cpu"), progress=False
    )
    check_depths(wanted, workspace.facts)
    workspace.check_resolutions()
    fits = "the ranges fit the networks"
    if store is None:
        yield Finding("ok", "study", f"{fits}; there is no database to compare with")
        return
    try:
        opened = studies.open_existing(store, wanted.name)
        studies.refuse_changes(opened, wanted, dict(workspace.fingerprints))
    except NotReady:
        yield Finding("ok", "study", f"{fits}; it is not in the database yet; start it with tlopt run")
        return
    except StudyChanged as error:
        detail, _, cure = str(error).rpartition("; ")
        lines = studies.follow_up_cure(opened, wanted)
        yield Finding("problem", "study", detail, "\n".join(filter(None, (cure, lines))))
    else:
        yield Finding("ok", "study", f"{fits}; images, weights and file are those of the stored study")
    if wanted.budget.hours and (late := hours_sentence(take_snapshot(wanted, store))):
        sentence, _, cure = late.rpartition("; ")
        yield Finding("note", "study", sentence, cure)
