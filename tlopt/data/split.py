"""Division of images into training, validation and test, by content alone.

Within a class, images are ordered by sha256(digest + salt), so that the division is the same on every machine
and independent of file names. The salt is the seed with the word "test", with the number of the repeat, or
with "confirm" and the number of a split of the confirmation. Of the n images of a class outside the source's
own val and test, rounded half up, at least 1 and leaving 1 to train::

    test_fraction * n   for test          if the source has no test split
    val_fraction * n    for validation    if the source has no val split; drawn after the test images

Copies of one image stay together: those that exceed the remaining number are skipped, so that a few images
may be missing; if none fit, the image with the fewest copies is drawn. If images have groups, whole groups
are drawn instead, over all classes at once: see `data.grouped`.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlopt.data.dataset import Image, Role, Split
from tlopt.data.grouped import draw_groups
from tlopt.errors import DataError
from tlopt.spec.sections import DataSpec

FEW = 500  # with fewer images, validation on one split is mostly noise


def subset(images: Sequence[Image], images_max: int, *, called: str = "data.images_max") -> list[Image]:
    """At most `images_max` images, in proportion to classes and splits; all images if it is 0.

    Each class has at least 3 images of a split that is to be divided and 2 of any other, so that no part is
    empty; the others are allotted by largest remainder. The first by sha256(digest) are chosen, for any seed.

    Args:
        called: what the user calls `images_max`, for the error.

    Raises:
        DataError: `images_max` is too small for the classes.
    """
    if not 0 < images_max < len(images):
        return list(images)
    cells: dict[tuple[int, Role], list[Image]] = defaultdict(list)
    for image in sorted(images, key=lambda image: (image.label, _rank(image.digest, "subset"))):
        cells[image.label, image.split].append(image)
    least = {key: min(len(cell), 3 if key[1] == "trainval" else 2) for key, cell in cells.items()}
    spare = images_max - sum(least.values())
    if spare < 0:
        raise DataError(f"{called} = {images_max} is too few: these classes need {sum(least.values())}")
    more = sum(len(cell) - least[key] for key, cell in cells.items())
    exact = {key: spare * (len(cell) - least[key]) / more for key, cell in cells.items()}
    counts = {key: least[key] + int(share) for key, share in exact.items()}
    by_remainder = sorted(exact, key=lambda key: (int(exact[key]) - exact[key], key))
    for key in by_remainder[: images_max - sum(counts.values())]:
        counts[key] += 1
    return [image for key, cell in cells.items() for image in cell[: counts[key]]]


@dataclass(frozen=True, kw_only=True)
class Division:
    """The images for training and validation, which `splits` index, and the held-out ones."""

    trainval: tuple[Image, ...]
    test: tuple[Image, ...]
    splits: tuple[Split, ...]  # of the trials
    confirm_splits: tuple[Split, ...] = ()  # further ones, of the confirmation


def divide(images: Sequence[Image], spec: DataSpec, *, seed: int, class_names: Sequence[str]) -> Division:
    """Divide the images as described at the top of this module, ordered by class and digest.

    If the source has a validation split, it is the only split. `spec.repeats` = 0 means 3 for fewer than 500
    images for training and validation, otherwise 1.

    Raises:
        DataError: a class has too few different images.
    """
    ordered = sorted(images, key=lambda image: (image.label, image.digest))
    own_test = any(image.split == "test" for image in ordered)
    own_val = any(image.split == "val" for image in ordered)
    pool = [image for image in ordered if image.split in ("train", "trainval")]
    draws_test = not own_test and spec.test_fraction > 0
    n_parts = 1 if own_val else max(2, spec.folds)
    _check_sizes(_by_class(pool), class_names, needed=n_parts + draws_test)
    draw = _Draw(pool, seed=seed, class_names=class_names)

    test = {image.unit for image in ordered if image.split == "test"}
    if draws_test:
        test |= draw(pool, spec.test_fraction, salt="test", leave=n_parts)
    trainval = tuple(image for image in ordered if image.unit not in test)
    return Division(
        trainval=trainval,
        test=tuple(image for image in ordered if image.unit in test),
        splits=_own_split(trainval) if own_val else _drawn_splits(trainval, draw, spec, class_names),
        confirm_splits=_confirm_splits(trainval, draw, spec) if draws_confirm(trainval, spec) else (),
    )


def draws_confirm(trainval: Sequence[Image], spec: DataSpec) -> bool:
    """Whether `confirm_splits` has an effect: with folds all images validate in trials already."""
    given = any(image.split == "val" or image.fold for image in trainval)
    return spec.confirm_splits > 0 and not given and not spec.folds


def _own_split(trainval: Sequence[Image]) -> tuple[Split, ...]:
    return (_split([image.split == "val" for image in trainval]),)


def _drawn_splits(
    trainval: Sequence[Image], draw: "_Draw", spec: DataSpec, class_names: Sequence[str]
) -> tuple[Split, ...]:
    if any(image.fold for image in trainval):
        return _given_folds(trainval, class_names)
    if spec.folds:
        return _drawn_folds(trainval, draw.of(trainval), spec.folds)
    salts = map(str, range(spec.repeats or (3 if len(trainval) < FEW else 1)))
    return tuple(_drawn_split(trainval, draw, spec, salt) for salt in salts)


def _confirm_splits(trainval: Sequence[Image], draw: "_Draw", spec: DataSpec) -> tuple[Split, ...]:
    salts = (f"confirm{number}" for number in range(spec.confirm_splits))
    return tuple(_drawn_split(trainval, draw, spec, salt) for salt in salts)


def _drawn_split(trainval: Sequence[Image], draw: "_Draw", spec: DataSpec, salt: str) -> Split:
    val = draw(trainval, spec.val_fraction, salt=salt, leave=1)
    return _split([image.unit in val for image in trainval])


def _given_folds(trainval: Sequence[Image], class_names: Sequence[str]) -> tuple[Split, ...]:
    """One split for each fold of the source; copies are validated on together, in the first of their folds.

    Raises:
        DataError: there is only one fold, a group is in two, or a fold has all images of a class.
    """
    first: dict[str, str] = {}
    for image in sorted(trainval, key=lambda image: image.fold):
        fold = first.setdefault(image.unit, image.fold)
        if image.group and fold != image.fold:
            raise DataError(f'the group "{image.group}" lies in the folds {fold} and {image.fold}: move it')
    names = sorted(set(first.values()))
    if len(names) < 2:
        raise DataError(f'all images lie in the fold "{names[0]}": at least two are needed')
    splits = tuple(_split([first[image.unit] == name for image in trainval]) for name in names)
    for name, split in zip(names, splits, strict=True):
        lacking = {image.label for image in trainval} - {trainval[i].label for i in split.train}
        if lacking:
            raise DataError(f'the fold "{name}" holds all images of the class "{class_names[min(lacking)]}"')
    return splits


def _drawn_folds(trainval: Sequence[Image], draw: "_Draw", n: int) -> tuple[Split, ...]:
    """`n` splits with each image in the validation part of exactly one."""
    left, splits = list(trainval), []
    for fold in range(n):
        last = fold == n - 1
        val = (
            {image.unit for image in left}
            if last
            else draw(left, 1 / n, salt=f"fold{fold}", leave=n - 1 - fold)
        )
        splits.append(_split([image.unit in val for image in trainval]))
        left = [image for image in left if image.unit not in val]
    return tuple(splits)


class _Draw:
    """Draws of units of images, by class or, if images have groups, by group."""

    def __init__(self, pool: Sequence[Image], *, seed: int, class_names: Sequence[str]) -> None:
        self._sizes = {label: len(members) for label, members in _by_class(pool).items()}
        self._grouped = any(image.group for image in pool)
        self._seed, self._class_names = seed, class_names

    def of(self, pool: Sequence[Image]) -> "_Draw":
        """Draws with the same seed from another pool."""
        return _Draw(pool, seed=self._seed, class_names=self._class_names)

    def __call__(self, images: Sequence[Image], fraction: float, *, salt: str, leave: int) -> set[str]:
        """Units in `images` for a `fraction` of the pool; leaves `leave` different ones of each class."""
        salt = f"{self._seed}/{salt}"
        wanted = {label: _share(fraction, n) for label, n in self._sizes.items()}
        if self._grouped:
            part = "test" if salt.endswith("/test") else "validation"
            return draw_groups(
                images, wanted, salt=salt, leave=leave, part=part, class_names=self._class_names
            )
        drawn: set[str] = set()
        for label, members in _by_class(images).items():
            drawn |= _draw(members, wanted[label], salt=salt, leave=leave)
        return drawn


def _split(is_val: list[bool]) -> Split:
    mask = np.array(is_val, dtype=bool)
    return Split(train=np.flatnonzero(~mask).astype(np.int64), val=np.flatnonzero(mask).astype(np.int64))


def _draw(members: list[Image], count: int, *, salt: str, leave: int) -> set[str]:
    """Units of about `count` images, the first by rank; leaves at least `leave` different ones."""
    copies = Counter(image.unit for image in members)
    taken: set[str] = set()
    room = count
    for unit in sorted(copies, key=lambda unit: _rank(unit, salt)):
        if copies[unit] <= room and len(taken) < len(copies) - leave:
            taken.add(unit)
            room -= copies[unit]
    smallest = min(copies, key=lambda unit: (copies[unit], _rank(unit, salt)))
    return taken or {smallest}


def _share(fraction: float, n: int) -> int:
    return max(1, int(fraction * n + 0.5))


def _rank(digest: str, salt: str) -> str:
    return hashlib.sha256(f"{digest}/{salt}".encode()).hexdigest()


def _by_class(images: Sequence[Image]) -> dict[int, list[Image]]:
    classes: dict[int, list[Image]] = defaultdict(list)
    for image in images:
        classes[image.label].append(image)
    return dict(classes)


def _check_sizes(classes: dict[int, list[Image]], class_names: Sequence[str], *, needed: int) -> None:
    for label, name in enumerate(class_names):
        different = len({image.identity for image in classes.get(label, [])})
        if different < needed:
            raise DataError(
                f'the class "{name}" has too few images: {different} different in train of {needed} needed,'
                " one for each of train, val and test that is drawn from them: add images or remove the class"
                + (", or set data.test_fraction = 0" if different == needed - 1 > 0 else "")
            )
