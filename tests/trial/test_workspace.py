"""Resolutions and numbers of training images are checked before a study starts its first trial."""

import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors import safe_open

from tlopt import spec
from tlopt.errors import SpecError, Unwritable
from tlopt.model.weights import load_weights
from tlopt.trial.workspace import Workspace, save_tensors


def workspace(backbone: str, resolution: str) -> Workspace:
    study = spec.loads(
        f"""
        name = "a"
        [data]
        source = "data"
        [model]
        backbone = "{backbone}"
        weights = "none"
        [budget]
        trials = 1
        epochs = 1
        [search]
        resolution = {resolution}
        """,
        "a.toml",
    )
    data: Any = None  # no image is looked at
    return Workspace(
        study=study,
        data=data,
        weights={backbone: load_weights(backbone, "none")},
        device=torch.device("cpu"),
        progress=False,
    )


@pytest.mark.parametrize("resolution", ["96", "{ choice = [96, 224] }"])
def test_patches_fit_into_every_resolution(resolution: str) -> None:
    workspace("vit_b_16", resolution).check_resolutions()


@pytest.mark.parametrize(
    ("resolution", "says"),
    [
        ("100", "resolution = 100: vit_b_16 .* such as 96 or 112"),
        ("{ choice = [96, 100] }", "resolution = 100: "),
        ("{ int = [96, 224] }", r"takes multiples of 16 pixels, .* list some: \{ choice = \[...\] \}"),
    ],
)
def test_a_resolution_that_cuts_a_patch_is_refused_before_the_search(resolution: str, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        workspace("vit_b_16", resolution).check_resolutions()


def test_weights_on_a_full_disk_are_told_with_file_and_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = workspace("resnet18", "32")
    run: Any = SimpleNamespace(network=SimpleNamespace(net=torch.nn.Linear(64, 64)), point=None, seed=1)
    monkeypatch.setattr(Workspace, "identity", lambda *_: "planted")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(Unwritable, match=r"w\.safetensors cannot be written \(.*\): free disk space"):
            here.save_weights(run, tmp_path / "w.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_weights_may_be_read_by_whoever_may_read_other_files(tmp_path: Path) -> None:
    weights, other = tmp_path / "runs" / "w.safetensors", tmp_path / "other"
    other.touch()

    save_tensors(torch.nn.Linear(2, 2).state_dict(), weights, made_by="planted")

    assert weights.stat().st_mode == other.stat().st_mode
    with safe_open(weights, framework="pt") as file:
        assert file.metadata() == {"tlopt:run": "planted"}


def test_a_convolutional_network_takes_a_range() -> None:
    workspace("resnet18", "{ int = [97, 201] }").check_resolutions()


def with_split(n_train: int, wanted: str) -> Workspace:
    """A workspace with a split of three classes and so many training images."""
    here = workspace("resnet18", f"32\n        train_images = {wanted}")
    few, many = (SimpleNamespace(train=range(n)) for n in (n_train, n_train + 5))
    here.data = cast(Any, SimpleNamespace(splits=(many, few), class_names=("a", "b", "c")))
    return here


@pytest.mark.parametrize("wanted", ["0", "20", "{ choice = [3, 20] }", "{ int = [3, 20] }"])
def test_a_number_of_training_images_that_every_split_has_is_allowed(wanted: str) -> None:
    with_split(20, wanted).check_train_images()


@pytest.mark.parametrize(("wanted", "named"), [("21", 21), ("2", 2), ("{ choice = [0, 25] }", 25)])
def test_more_training_images_than_a_split_has_or_fewer_than_classes_are_refused(
    wanted: str, named: int
) -> None:
    says = rf"train_images: {named} is not allowed: 0 for all, or 3 \(one of each class\) to 20"
    with pytest.raises(SpecError, match=says):
        with_split(20, wanted).check_train_images()
