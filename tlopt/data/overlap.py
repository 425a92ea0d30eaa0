"""Equal, grouped and similar images, and their consequences for classes and splits."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tlopt.data.dataset import File, Image, Listing
from tlopt.data.decode import Reading
from tlopt.data.digest import pixel_digests
from tlopt.data.likeness import is_distinctive, similar_pairs
from tlopt.data.split import Division
from tlopt.errors import DataError
from tlopt.spec.sections import DataSpec
from tlopt.system.words import counted, joined

_PROTECTION = {"trainval": 0, "train": 0, "val": 1, "test": 2}
_LOOKALIKES_MAX = 100_000  # with more images, pairs are not searched


def with_shared_pixels(
    root: Path, images: Sequence[Image], reading: Reading, *, progress: bool
) -> list[Image]:
    """The images, with `shared` set for files of different bytes but equal pixels.

    Only files with similar sketches are decoded at full size.
    """
    pairs = [
        (i, j)
        for i, j in similar_pairs([image.sketch for image in images])
        if images[i].digest != images[j].digest
    ]
    suspects = sorted({i for pair in pairs for i in pair})
    paths = [Path(str(images[i].origin)) for i in suspects]
    pixels = dict(zip(suspects, pixel_digests(root, paths, reading, progress=progress), strict=True))
    smallest: dict[str, str] = {}
    for i in suspects:
        digest = images[i].digest
        smallest[pixels[i]] = min(smallest.get(pixels[i], digest), digest)
    # Files with equal bytes are equal even if only one of them was a suspect.
    shared = {images[i].digest: smallest[pixels[i]] for i in suspects if pixels[i]}
    return [
        replace(image, shared=shared[image.digest])
        if shared.get(image.digest, image.digest) != image.digest
        else image
        for image in images
    ]


def with_units(images: Sequence[Image]) -> list[Image]:
    """The images, with `joined` set if groups, or equal pixels across groups, keep them together."""
    if not any(image.group for image in images):
        return list(images)
    sets = _Sets()
    for image in images:
        sets.join(("image", image.identity), ("group", image.group))
    smallest: dict[Hashable, str] = {}
    for image in images:
        root = sets.find(("group", image.group))
        smallest[root] = min(smallest.get(root, image.identity), image.identity)
    return [replace(image, joined=smallest[sets.find(("group", image.group))]) for image in images]


class _Sets:
    """Disjoint sets (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, item: Hashable) -> Hashable:
        """The representative of the set of `item`."""
        root = item
        while (above := self._parent.get(root, root)) != root:
            root = above
        while item != root:
            self._parent[item], item = root, self._parent[item]
        return root

    def join(self, one: Hashable, other: Hashable) -> None:
        """Merge the sets of two items."""
        self._parent.setdefault(one, one)
        self._parent.setdefault(other, other)
        self._parent[self.find(one)] = self.find(other)


def check_groups(images: Iterable[Image]) -> None:
    """Raise if a group has images in several splits of the source.

    Raises:
        DataError: with the groups and their splits.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for image in images:
        if image.group:
            splits[image.group].add({"trainval": "train"}.get(image.split, image.split))
    split_groups = [
        f'"{group}" ({", ".join(sorted(where))})' for group, where in splits.items() if len(where) > 1
    ]
    if split_groups:
        raise DataError(
            f"{counted(len(split_groups), 'group lies', 'groups lie')} in several splits of the source:"
            f" {joined(split_groups)}: move each into one, or let tlopt divide the images, without"
            " a split of the source's own"
        )


def drop_conflicts(listing: Listing, spec: DataSpec) -> tuple[list[Image], list[str]]:
    """The images without those that are in two classes, and a notice on them.

    Raises:
        DataError: such images are files, and `spec.conflicts` does not allow leaving them out.
    """
    first: dict[str, Image] = {}
    found: dict[str, tuple[Image, Image]] = {}
    for image in listing.images:
        other = first.setdefault(image.identity, image)
        if other.label != image.label:
            found.setdefault(image.identity, (other, image))
    files = [pair for pair in found.values() if isinstance(pair[0].origin, File)]
    if files and spec.conflicts == "error":
        raise DataError(_conflict_lines(files, listing.class_names, spec))
    kept = [image for image in listing.images if image.identity not in found]
    left_out = len(listing.images) - len(kept)
    return kept, [_left_out_clause(left_out)] if found else []


def _left_out_clause(n: int) -> str:
    return counted(
        n,
        "image whose copy has another label is left out",
        "images whose copies have another label are left out",
    )


def _conflict_lines(pairs: Sequence[tuple[Image, Image]], names: Sequence[str], spec: DataSpec) -> str:
    lines = [
        f'{a.origin} ("{names[a.label]}") and {b.origin} ("{names[b.label]}")'
        + (", with the same pixels" if a.digest != b.digest else "")
        for a, b in pairs
    ]
    n = len(pairs)
    return (
        f"{counted(n, f'image of {spec.source} lies', f'images of {spec.source} lie')} in two classes:\n"
        + joined(lines, separator="\n")
        + "\nkeep each in one class (tlopt learns one class per image), or leave out all of their copies:"
        ' data.conflicts = "skip" in a study file, --data conflicts=skip for tlopt init'
    )


def drop_leaks(images: Sequence[Image]) -> tuple[list[Image], list[str]]:
    """The images without copies in less protected splits (test before val before train), and notices."""
    protection: dict[str, int] = defaultdict(int)
    for image in images:
        protection[image.identity] = max(protection[image.identity], _PROTECTION[image.split])
    kept = [image for image in images if _PROTECTION[image.split] == protection[image.identity]]
    leaks = len(images) - len(kept)
    copies = len(kept) - len(protection)
    saved_again = len({image.digest for image in kept}) - len(protection)
    again = f" ({saved_again} of them saved again, with the same pixels)" if saved_again else ""
    notices = []
    if leaks:
        notices.append(
            counted(
                leaks,
                "image of train or val is a copy of one in val or test and is left out there",
                "images of train or val are copies of images in val or test and are left out there",
            )
        )
    if copies:
        notices.append(
            f"{counted(copies, 'image is a copy', 'images are copies')} of another one of the same"
            f" class{again}; copies stay in one split"
        )
    return kept, notices


def near_duplicate_notices(division: Division) -> Iterator[str]:
    """A notice on images of test or validation that are similar to one of another split."""
    val = {division.trainval[i].identity for i in division.splits[0].val}
    sides = {image.identity: 1 if image.identity in val else 0 for image in division.trainval}
    sides |= {image.identity: 2 for image in division.test}
    images = [
        image
        for image in (*division.trainval, *division.test)
        if image.sketch and is_distinctive(image.sketch)
    ]
    if len(images) > _LOOKALIKES_MAX:
        return
    found: dict[str, tuple[Image, Image]] = {}
    for i, j in similar_pairs([image.sketch for image in images]):
        lower, upper = sorted((images[i], images[j]), key=lambda image: sides[image.identity])
        if sides[lower.identity] != sides[upper.identity]:
            found.setdefault(upper.identity, (upper, lower))
    if found:
        upper, lower = next(iter(found.values()))
        alike_words = counted(len(found), "image of val or test looks", "images of val or test look")
        yield (
            f"{alike_words} much like one of another split, for example {upper.origin} and {lower.origin}: if"
            " they show the same thing, results are optimistic; remove one of them or, if tlopt draws the"
            " splits, keep them together by group_column, group_folder or group_pattern"
        )
