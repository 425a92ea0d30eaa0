"""`[data]` of a study file to what is known of its images: listed, read once, checked and divided."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tlopt.data.dataset import Data, File, Image, Listing, TestSplit, Unreadable
from tlopt.data.digest import inspect
from tlopt.data.sources.builtin import list_samples
from tlopt.data.sources.folder import list_folder
from tlopt.data.split import FEW, Division, divide, subset
from tlopt.errors import DataError
from tlopt.spec.sections import DataSpec
from tlopt.spec.text import user_path

IMBALANCE = 3  # largest over smallest class from which plain accuracy misleads
_NAMED_AT_MOST = 5
_FEW_PER_CLASS = 10
_PROTECTION = {"trainval": 0, "train": 0, "val": 1, "test": 2}


def load(spec: DataSpec, *, seed: int, progress: bool = False) -> Data:
    """What a search may know of the images: training and validation, with the splits of `spec` and `seed`.

    Every file is read and decoded at the first call; later ones look at names, sizes and times of change.
    The same images give the same `Data` on every machine, wherever they lie and in whatever order they
    are listed.

    Args:
        progress: a bar on stderr while files are read.

    Raises:
        DataError: the images cannot be used as they are; the message says what to do.
        MissingExtra: the source needs an optional package.
    """
    prepared = _prepare(spec, seed=seed, progress=progress)
    division = prepared.division
    return Data(
        class_names=prepared.class_names,
        images=division.seen,
        labels=_labels(division.seen),
        splits=division.splits,
        fingerprint=fingerprint(prepared.class_names, [*division.seen, *division.test]),
        skipped=prepared.skipped,
        notices=prepared.notices,
        n_test=len(division.test),
    )


def test_split(spec: DataSpec, *, seed: int) -> TestSplit:
    """The held-out images. Only confirm may call this.

    Raises:
        DataError: there are none; and as `load`.
    """
    prepared = _prepare(spec, seed=seed, progress=False)
    images = prepared.division.test
    if not images:
        raise DataError(f"{spec.source} has no test images and test_fraction is 0: nothing is held out")
    return TestSplit(class_names=prepared.class_names, images=images, labels=_labels(images))


def fingerprint(class_names: Sequence[str], images: Sequence[Image]) -> str:
    """Sixteen hex digits of class names and every image's label, content and the source's split.

    Independent of paths, order and machine; the fractions and the seed that divide the images are not in it.
    """
    rows = sorted([image.label, image.digest, image.split] for image in images)
    canonical = json.dumps([list(class_names), rows])
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    class_names: tuple[str, ...]
    division: Division
    skipped: tuple[str, ...]
    notices: tuple[str, ...]


def _prepare(spec: DataSpec, *, seed: int, progress: bool) -> _Prepared:
    listing = _list(spec.source, progress=progress)
    skipped = _refuse_or_skip(listing.unreadable, spec)
    agreed, contradictions = _drop_contradictions(listing)
    protected, leaks = _drop_leaks(agreed)
    used = subset(protected, spec.images_max)
    division = divide(used, spec, seed=seed, class_names=listing.class_names)
    notices = [*listing.notices, *contradictions, *leaks]
    if skipped:
        notices.append(f"{len(skipped)} images cannot be decoded and are skipped: {_some(skipped)}")
    notices += _size_notices(listing.class_names, division, spec)
    return _Prepared(
        class_names=listing.class_names, division=division, skipped=skipped, notices=tuple(notices)
    )


def _list(source: str, *, progress: bool) -> Listing:
    if source == "digits" or source.startswith("torchvision:"):
        return list_samples(source, progress=progress)
    root = user_path(source).absolute()
    tree = list_folder(root)
    looks = inspect(root, [entry.path for entry in tree.entries], progress=progress)
    labels = {name: label for label, name in enumerate(tree.class_names)}
    images, unreadable = [], []
    for entry, look in zip(tree.entries, looks, strict=True):
        origin = File(entry.path)
        if look.problem:
            unreadable.append(Unreadable(origin=origin, problem=look.problem))
        else:
            label = labels[entry.class_name]
            images.append(Image(origin=origin, label=label, digest=look.digest, split=entry.split))
    return Listing(
        class_names=tree.class_names,
        images=tuple(images),
        unreadable=tuple(unreadable),
        notices=tree.notices,
    )


def _refuse_or_skip(unreadable: Sequence[Unreadable], spec: DataSpec) -> tuple[str, ...]:
    if unreadable and spec.unreadable == "error":
        lines = [f"{bad.origin}: {bad.problem}" for bad in unreadable[:_NAMED_AT_MOST]]
        more = len(unreadable) - len(lines)
        lines += [f"... and {more} more"] if more else []
        raise DataError(
            "\n".join([f"{len(unreadable)} images of {spec.source} cannot be decoded:", *lines])
            + '\nrepair or remove them, or leave them out: unreadable = "skip" under [data] of a study file,'
            + " --skip-unreadable for tlopt init"
        )
    return tuple(sorted(str(bad.origin) for bad in unreadable))


def _drop_contradictions(listing: Listing) -> tuple[list[Image], list[str]]:
    """The images without those whose content has two labels.

    Raises:
        DataError: such images are files, which their owner can mend.
    """
    first: dict[str, Image] = {}
    double: set[str] = set()
    for image in listing.images:
        other = first.setdefault(image.digest, image)
        if other.label == image.label:
            continue
        if isinstance(image.origin, File):
            names = f'"{listing.class_names[other.label]}" and "{listing.class_names[image.label]}"'
            raise DataError(
                f"{other.origin} and {image.origin} are the same image in two classes, {names}: remove one"
                " (an image has one class here)"
            )
        double.add(image.digest)
    kept = [image for image in listing.images if image.digest not in double]
    left_out = len(listing.images) - len(kept)
    return kept, [f"{left_out} images whose copies have another label are left out"] if double else []


def _drop_leaks(images: Sequence[Image]) -> tuple[list[Image], list[str]]:
    """The images, each content in the most protected split that has it only: test, then val, then train."""
    home: dict[str, int] = defaultdict(int)
    for image in images:
        home[image.digest] = max(home[image.digest], _PROTECTION[image.split])
    kept = [image for image in images if _PROTECTION[image.split] == home[image.digest]]
    leaks = len(images) - len(kept)
    copies = len(kept) - len(home)
    notices = []
    if leaks:
        notices.append(
            f"{leaks} images of train or val are copies of images in val or test and are left out there"
        )
    if copies:
        notices.append(f"{copies} images are copies of another one of their class; copies stay in one split")
    return kept, notices


def _size_notices(class_names: Sequence[str], division: Division, spec: DataSpec) -> Iterator[str]:
    seen, splits = division.seen, division.splits
    counts = Counter(seen[i].label for i in splits[0].train)
    least, most = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    own_val = any(image.split == "val" for image in seen)
    if counts[least] < _FEW_PER_CLASS:
        yield f'few images: "{class_names[least]}" has {counts[least]} to train with'
    if counts[most] >= IMBALANCE * counts[least]:
        yield (
            f'unequal classes: "{class_names[most]}" has {counts[most]} images to train with,'
            f' "{class_names[least]}" {counts[least]}; consider objective = "balanced_accuracy"'
        )
    if own_val and spec.repeats > 1:
        yield f"repeats = {spec.repeats} has no effect: the source has a validation split of its own"
    elif own_val and len(seen) < FEW:
        yield (
            f"val has {len(splits[0].val)} images: its values are noisy; without a folder for val,"
            " repeated splits would be drawn from train"
        )
    if not division.test:
        yield "no test images are held out: confirm can report validation only"


def _labels(images: Sequence[Image]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([image.label for image in images], dtype=np.int64)


def _some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _NAMED_AT_MOST} more"] if len(names) > _NAMED_AT_MOST else []
    return ", ".join([*names[:_NAMED_AT_MOST], *more])
