"""Compiled training steps give the same results within rounding, and are repeatable."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from tlopt.data.batches import Images
from tlopt.model.network import Network
from tlopt.spec.point import Point
from tlopt.training.checkpoint import apply, pack, unpack
from tlopt.training.loop import Epoch, steps, train_epochs
from tlopt.training.run import Run, prepare_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
]

Begin = Callable[[Point, bool], Run]


@pytest.fixture
def begun(tiny: Callable[..., Network], images: Images) -> Begin:
    def make(at: Point, compiles: bool) -> Run:
        network = tiny(dropout=0.2)
        return prepare_run(
            network,
            at,
            pretrained={name: tensor.clone() for name, tensor in network.net.state_dict().items()},
            labels=images.labels,
            seed=4,
            device=torch.device("cpu"),
            n_classes=3,
            compiles=compiles,
        )

    return make


def weights(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.network.net.state_dict().items()}


@pytest.mark.parametrize("kept", [{}, {"norm_depth": 3}], ids=str)
def test_it_is_the_same_training_and_was_compiled(
    begun: Begin,
    point: Callable[..., Point],
    images: Images,
    train: np.ndarray,
    val: np.ndarray,
    kept: dict[str, int],
) -> None:
    # no dropout in what is trained: its draws are others
    at = point(freeze_depth=2, l2_sp=0.1, **kept)
    plain, compiled = begun(at, False), begun(at, True)
    counters.clear()
    expected = [epoch.train_loss for epoch in train_epochs(plain, images, train, val)]
    assert not counters["stats"]["unique_graphs"]
    found = [epoch.train_loss for epoch in train_epochs(compiled, images, train, val)]
    assert counters["stats"]["unique_graphs"] >= 2  # whole batches, and the last one
    assert found == pytest.approx(expected, rel=1e-4)
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_many_networks_one_after_the_other_are_all_compiled(
    begun: Begin, point: Callable[..., Point], images: Images, train: np.ndarray
) -> None:
    for _ in range(6):  # of two graphs each: torch's own limit is 8
        run = begun(point(epochs=1), True)
        counters.clear()
        list(train_epochs(run, images, train, None))
        assert counters["stats"]["unique_graphs"] == 2


def test_a_resumed_run_ends_with_the_same_bits(
    begun: Begin, point: Callable[..., Point], images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    at = point(head_first_epochs=1, epochs=3)
    whole = begun(at, True)
    list(train_epochs(whole, images, train, val))
    first, epochs = begun(at, True), list[Epoch]()
    for count, event in enumerate(steps(first, images, train, val)):
        epochs += [event] if isinstance(event, Epoch) else []
        if count == 6:  # in the second epoch
            break
    rest = begun(at, True)
    apply(unpack(pack([first], epochs, identity="a", facts={}), identity="a"), [rest])
    list(train_epochs(rest, images, train, val))
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(rest)[name], tensor), name


def test_a_machine_that_cannot_compile_says_what_to_do(tmp_path: Path) -> None:
    code = "import torch; from tlopt.training import kernels; kernels.check_compiler(torch.device('cpu'))"
    environment = os.environ | {
        "CXX": str(tmp_path / "no-such-compiler"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode
    assert "SpecError: model.compile = true: torch cannot compile for cpu here" in run.stderr
    assert "install a C++ compiler" in run.stderr
