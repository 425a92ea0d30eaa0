"""Images are decoded at the sizes and for the roles that a study's trials need, and no others."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from optuna.trial import FixedTrial

from tlopt.data import pixels
from tlopt.data.dataset import File
from tlopt.data.decode import Reading
from tlopt.data.decode import decode as decode_file
from tlopt.data.load import test_split as load_test_split
from tlopt.search.defaults import defaults
from tlopt.search.space import suggest
from tlopt.spec.point import Point
from tlopt.training.loop import train_epochs
from tlopt.trial.workspace import Workspace

EVALUATED, CROPPED = 37, 48  # for a network that sees 32 pixels
Count = dict[int, int]


CROP = Reading(resize="crop")


@pytest.fixture
def workspace(cache: Path, workshop: tiny.Workshop) -> Callable[[str], Workspace]:
    """A workspace where nothing is decoded, for a study with one line of [search] on images of 32 pixels."""

    def make(line: str = "") -> Workspace:
        study = workshop.workspace.study
        search = study.search | tiny.study(f"resolution = 32\n{line}").search
        return replace(workshop.workspace, study=study.model_copy(update={"search": search}))

    return make


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Count:
    """Number of images decoded so far, by target size."""
    decode, found = pixels._decode, Count()

    def counting(image: object, *, size: int, reading: Reading) -> object:
        found[size] = found.get(size, 0) + 1
        return decode(image, size=size, reading=reading)  # type: ignore[arg-type]

    monkeypatch.setattr(pixels, "_decode", counting)
    return found


@pytest.fixture
def point(workshop: tiny.Workshop) -> Callable[[float], Point]:
    """A point at 32 pixels with a strength of augmentation."""
    plain = defaults(workshop.workspace.study, workshop.facts)[1].params
    found = suggest(FixedTrial(plain), workshop.workspace.study, workshop.facts)
    return lambda strength: replace(found, resolution=32, augmentation=strength)


@pytest.mark.parametrize(
    ("line", "evaluates", "crops"),
    [
        ("augmentation = 0.5", "val", "train"),
        ("augmentation = { uniform = [0.0, 1.0] }", "val", "train"),
        ("augmentation = { choice = [0.0, 0.5] }", "all", "train"),
        ("augmentation = 0.0", "all", "none"),
    ],
)
def test_every_image_is_decoded_for_what_a_trial_does_with_it(
    workspace: Callable[[str], Workspace], decoded: Count, line: str, evaluates: str, crops: str
) -> None:
    own = workspace(line)
    (split,) = own.data.splits
    counts = {"train": len(split.train), "val": len(split.val), "all": len(own.data.images), "none": 0}

    own.decode_images()

    assert decoded.get(EVALUATED, 0) == counts[evaluates]
    assert decoded.get(CROPPED, 0) == counts[crops]


def test_a_trial_decodes_nothing_that_was_decoded_before_it(
    workspace: Callable[[str], Workspace], decoded: Count, point: Callable[[float], Point]
) -> None:
    own = workspace("augmentation = { choice = [0.0, 0.5] }")
    (split,) = own.data.splits
    own.decode_images()
    before = dict(decoded)

    for strength in (0.5, 0.0):
        at = replace(point(strength), epochs=1)
        run = own.start_run(at, seed=1, train=split.train)
        list(train_epochs(run, own.images(at), split.train, split.val))

    assert decoded == before


def test_crops_come_from_the_larger_images_and_middles_from_the_smaller(
    workspace: Callable[[str], Workspace], point: Callable[[float], Point]
) -> None:
    own = workspace("augmentation = 0.5")
    images = own.images(point(0.5))

    for source, size in ((images.training_pixels, CROPPED), (images.eval_pixels, EVALUATED)):
        assert isinstance(source, pixels.Pixels)
        origin = own.data.images[3].origin
        assert isinstance(origin, File)
        assert (source[np.array([3])][0] == decode_file(origin.path, size=size, reading=CROP)).all()


@pytest.mark.parametrize("opened", [0.0, 0.5])
def test_images_opened_for_one_point_show_every_point_what_its_own_would(
    workspace: Callable[[str], Workspace], point: Callable[[float], Point], opened: float
) -> None:
    """Kept features are computed from the images of the first trial, for all trials."""
    line = "augmentation = { choice = [0.0, 0.5] }"
    first = workspace(line).images(point(opened))

    for strength in (0.0, 0.5):
        at = point(strength)
        own = workspace(line).images(at)
        view = own.training_view(0, at, 1)
        one, other = (images.views_of(np.arange(5), view, at, torch.device("cpu")) for images in (first, own))
        assert torch.equal(one, other)


def test_without_strength_training_sees_the_middles(
    workspace: Callable[[str], Workspace], point: Callable[[float], Point]
) -> None:
    own, at = workspace("augmentation = 0.0"), point(0.0)
    images = replace(own.images(at), flip=False)
    indices = np.arange(5)

    view = images.training_view(0, at, 1)
    flipped = replace(images, flip=True).training_view(0, at, 1)

    middles = images.views_of(indices, view, at, torch.device("cpu"))
    assert images.training_pixels is images.eval_pixels
    seen = replace(images, flip=True).views_of(indices, flipped, at, torch.device("cpu"))
    for one, middle in zip(seen, middles, strict=True):
        assert torch.equal(one, middle) or torch.equal(one, middle.flip(-1))


def test_training_on_all_images_decodes_those_of_validation_too(
    workspace: Callable[[str], Workspace], decoded: Count, point: Callable[[float], Point]
) -> None:
    own, at = workspace("augmentation = 0.5"), replace(point(0.5), epochs=1)
    everything = np.arange(len(own.data.images))
    own.decode_images()

    list(train_epochs(own.start_run(at, seed=1, train=everything), own.images(at), everything, None))

    assert decoded[CROPPED] == len(everything)


def test_held_out_images_are_decoded_to_be_evaluated_on_alone(
    workspace: Callable[[str], Workspace], decoded: Count, point: Callable[[float], Point]
) -> None:
    own = workspace("augmentation = 0.5")
    held_out = load_test_split(own.study.data, seed=own.study.seed)

    own.test_images(held_out, point(0.5))

    assert decoded == {EVALUATED: len(held_out.images)}


def test_of_the_sizes_those_of_the_last_resolution_are_held(
    workspace: Callable[[str], Workspace], point: Callable[[float], Point]
) -> None:
    own = workspace("augmentation = 0.5")

    own.images(point(0.5))
    own.images(replace(point(0.5), resolution=64))

    assert own.pixel_sizes == {pixels.eval_size(64), pixels.training_size(64)}
