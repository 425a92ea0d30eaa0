"""The images of a study: listed by `[data]` of its file, checked and divided."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tlopt.data.dataset import Data, File, Image, Listing, TestSplit, Unreadable
from tlopt.data.decode import Reading
from tlopt.data.digest import Inspection, inspect
from tlopt.data.overlap import (
    check_groups,
    drop_conflicts,
    drop_leaks,
    near_duplicate_notices,
    with_shared_pixels,
    with_units,
)
from tlopt.data.sources.builtin import list_samples
from tlopt.data.sources.entry import Entries, Entry, below
from tlopt.data.sources.folder import list_folder
from tlopt.data.sources.table import list_table
from tlopt.data.split import FEW, Division, divide, draws_confirm, subset
from tlopt.errors import DataError
from tlopt.spec.sections import DataSpec
from tlopt.spec.text import user_path
from tlopt.system.words import counted, joined, natural_order

IMBALANCE = 3  # ratio of largest to smallest class from which accuracy is misleading
_FEW_PER_CLASS = 10
_DIM = 1 << 13  # an eighth of the range of 16 bits


def load_data(spec: DataSpec, *, seed: int, progress: bool = False) -> Data:
    """The images for a search, training and validation, with the splits of `spec` and `seed`.

    The first call reads and decodes every file; later calls compare names, sizes and times of modification.
    Equal images give an equal `Data` on every machine, whatever their paths and their order.

    Args:
        progress: whether to show a progress bar on stderr while files are read.

    Raises:
        DataError: the images cannot be used; the message says what to do.
        MissingExtra: the source needs an optional package.
    """
    prepared = _prepare(spec, seed=seed, progress=progress)
    division = prepared.division
    return Data(
        class_names=prepared.class_names,
        images=division.trainval,
        labels=_labels(division.trainval),
        splits=(*division.splits, *division.confirm_splits),
        n_trial_splits=len(division.splits),
        fingerprint=fingerprint(prepared.fingerprint_names, [*division.trainval, *division.test]),
        skipped=prepared.skipped,
        notices=prepared.notices,
        n_test=len(division.test),
    )


def test_split(spec: DataSpec, *, seed: int) -> TestSplit:
    """The held-out images. Only the confirmation may call this.

    Raises:
        DataError: there are none, or as `load_data`.
    """
    prepared = _prepare(spec, seed=seed, progress=False)
    images = prepared.division.test
    if not images:
        raise DataError(f"{spec.source} has no test images and data.test_fraction is 0: nothing is held out")
    return TestSplit(class_names=prepared.class_names, images=images, labels=_labels(images))


def fingerprint(class_names: Sequence[str], images: Sequence[Image]) -> str:
    """Sixteen hex digits of class names and of the label, content and source split of every image.

    Includes folds, and which images stay together if that affects the division. Independent of paths, order,
    machine, fractions and seed.
    """
    rows = sorted([image.label, image.digest, image.split] for image in images)
    canonical = [list(class_names), rows]
    divides = any(image.split == "trainval" for image in images) or all(i.split != "test" for i in images)
    together = sorted([i.digest, i.unit] for i in images if i.unit != i.digest)
    if divides and together:
        canonical.append(together)
    if folds := sorted([i.digest, i.fold] for i in images if i.fold):
        canonical.append(folds)
    return hashlib.sha256(json.dumps(canonical).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    class_names: tuple[str, ...]
    fingerprint_names: tuple[str, ...]
    division: Division
    skipped: tuple[str, ...]
    notices: tuple[str, ...]


def _prepare(spec: DataSpec, *, seed: int, progress: bool) -> _Prepared:
    listing = _list(spec, progress=progress)
    skipped = _refuse_or_skip(listing.unreadable, spec)
    agreed, conflicts = drop_conflicts(listing, spec)
    protected, leaks = drop_leaks(agreed)
    check_groups(protected)
    used = subset(with_units(protected), spec.images_max)
    division = divide(used, spec, seed=seed, class_names=listing.class_names)
    notices = [*listing.notices, *conflicts, *leaks]
    if skipped:
        notices.append(f"{_skipped_words(len(skipped))}: {joined(skipped)}")
    notices += _size_notices(listing.class_names, division, spec)
    notices += near_duplicate_notices(division)
    return _Prepared(
        class_names=listing.class_names,
        fingerprint_names=listing.former_names or listing.class_names,
        division=division,
        skipped=skipped,
        notices=tuple(notices),
    )


def _list(spec: DataSpec, *, progress: bool) -> Listing:
    if spec.source == "digits" or spec.source.startswith("torchvision:"):
        if spec.group_folder or spec.group_pattern:
            raise DataError(
                f"{spec.source} has no files: data.group_folder and data.group_pattern are not for it"
            )
        return list_samples(spec.source, progress=progress)
    given = user_path(spec.source)
    root = given.absolute()
    if not given.is_absolute() and not spec.is_table and not os.path.exists(root):
        raise DataError(
            f"data.source = {spec.source!r}: there is no such folder {root}; a relative path starts from the"
            " folder in which the command runs"
        )
    entries = list_table(spec) if spec.is_table and not os.path.isdir(root) else list_folder(root)
    return _read(_with_groups(entries, spec), spec, progress=progress)


def _read(found: Entries, spec: DataSpec, *, progress: bool) -> Listing:
    """The listing of the files, each inspected."""
    reading = Reading.of(spec)
    inspections = inspect(found.root, [entry.path for entry in found.entries], reading, progress=progress)
    labels = {name: label for label, name in enumerate(found.class_names)}
    images, unreadable = [], []
    for entry, inspection in zip(found.entries, inspections, strict=True):
        if inspection.problem:
            unreadable.append(Unreadable(origin=File(entry.path), problem=inspection.problem))
        else:
            images.append(
                Image(
                    origin=File(entry.path),
                    label=labels[entry.class_name],
                    digest=inspection.digest,
                    split=entry.split,
                    sketch=inspection.sketch,
                    group=entry.group,
                    fold=entry.fold,
                )
            )
    if spec.copies == "pixels":
        images = with_shared_pixels(found.root, images, reading, progress=progress)
    return Listing(
        class_names=found.class_names,
        images=tuple(images),
        unreadable=tuple(unreadable),
        notices=(*found.notices, *_group_notices(found.entries), *_dim_notices(inspections, spec)),
    )


def _with_groups(found: Entries, spec: DataSpec) -> Entries:
    """The entries with the groups in their paths, if the study defines groups by paths."""
    if not (spec.group_folder or spec.group_pattern):
        return found
    groups = [_group_of(entry, found.root, spec) for entry in found.entries]
    if without := [entry for entry, group in zip(found.entries, groups, strict=True) if not group]:
        key = "group_pattern" if spec.group_pattern else "group_folder"
        wanted = spec.group_pattern or f"a folder {spec.group_folder} above the file"
        raise DataError(
            f"{len(without)} of {counted(len(groups), 'image has', 'images have')} no group: data.{key} needs"
            f" {wanted}, below {found.root}; for"
            f" example {below(found.root, [entry.path for entry in without])}"
        )
    entries = tuple(replace(e, group=g) for e, g in zip(found.entries, groups, strict=True))
    return replace(found, entries=entries)


def _group_notices(entries: Sequence[Entry]) -> Iterator[str]:
    names = natural_order({entry.group for entry in entries if entry.group})
    if names:
        yield (
            f"{counted(len(names), 'group of images stays', 'groups of images stay')} on one side of every"
            f" split: {joined(names)}"
        )


def _group_of(entry: Entry, root: Path, spec: DataSpec) -> str:
    """The group in the file's path below `root`, "" if there is none."""
    path = Path(os.path.relpath(entry.path, root))
    if spec.group_folder:
        folders = path.parts[:-1]
        return folders[-spec.group_folder] if spec.group_folder <= len(folders) else ""
    match = re.search(spec.group_pattern, path.as_posix())
    if match is None:
        return ""
    return "/".join(part or "" for part in match.groups()) if match.groups() else match[0]


def _dim_notices(inspections: Sequence[Inspection], spec: DataSpec) -> Iterator[str]:
    peaks = [inspection.peak for inspection in inspections if inspection.peak >= 0]
    if peaks and max(peaks) < _DIM and not spec.bits:
        n, bits = len(peaks), max(8, max(peaks).bit_length())
        yield (
            f"{counted(n, 'image has', 'images have')} 16 bits but use less than an eighth of their range"
            f" (the largest value is {max(peaks)} of 65535): they appear almost black; data.bits = {bits}"
            f" takes {2**bits - 1} as white"
        )


def _refuse_or_skip(unreadable: Sequence[Unreadable], spec: DataSpec) -> tuple[str, ...]:
    if unreadable and spec.unreadable == "error":
        lines = joined([f"{bad.origin}: {bad.problem}" for bad in unreadable], separator="\n")
        raise DataError(
            f"{counted(len(unreadable), 'image')} of {spec.source} cannot be decoded:\n{lines}"
            '\nrepair or remove them, or leave them out: data.unreadable = "skip" in a study file,'
            " --skip-unreadable for tlopt init"
        )
    return tuple(sorted(str(bad.origin) for bad in unreadable))


def _skipped_words(n: int) -> str:
    return counted(n, "image cannot be decoded and is skipped", "images cannot be decoded and are skipped")


def _size_notices(class_names: Sequence[str], division: Division, spec: DataSpec) -> Iterator[str]:
    seen, splits = division.trainval, division.splits
    counts = Counter(seen[i].label for i in splits[0].train)
    least, most = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    own_val = any(image.split == "val" for image in seen)
    if counts[least] < _FEW_PER_CLASS:
        yield f'few images: "{class_names[least]}" has {counts[least]} to train with'
    if counts[most] >= IMBALANCE * counts[least]:
        yield (
            f'unequal classes: "{class_names[most]}" has {counted(counts[most], "image")} to train with,'
            f' "{class_names[least]}" {counts[least]}; consider objective = "balanced_accuracy"'
        )
    if own_val and (spec.folds or spec.fold_column):
        yield "folds have no effect: the source has a validation split of its own"
    if spec.confirm_splits and not draws_confirm(seen, spec):
        why = "the source has a validation split of its own" if own_val else "folds validate on all images"
        yield f"confirm_splits = {spec.confirm_splits} has no effect: {why}"
    if own_val and spec.repeats > 1:
        yield f"repeats = {spec.repeats} has no effect: the source has a validation split of its own"
    elif own_val and len(seen) < FEW:
        yield (
            f"val has {counted(len(splits[0].val), 'image')}: its values are noisy; without a folder for val,"
            " repeated splits would be drawn from train"
        )
    if not division.test:
        yield "no test images are held out: confirm can report validation only"


def _labels(images: Sequence[Image]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([image.label for image in images], dtype=np.int64)
