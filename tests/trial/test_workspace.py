"""Resolutions are checked against all backbones of a study before its first trial."""

import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tlopt import spec
from tlopt.errors import SpecError, Unwritable
from tlopt.model.weights import load_weights
from tlopt.trial.workspace import Workspace


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


def test_a_convolutional_network_takes_a_range() -> None:
    workspace("resnet18", "{ int = [97, 201] }").check_resolutions()
