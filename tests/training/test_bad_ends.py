"""Runs that end without a value: divergence names its epoch, and lack of memory is told from bugs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_runs import Begin, MakePoint

from tlopt.data.batches import Images
from tlopt.errors import Diverged, OutOfMemory
from tlopt.model.network import Network
from tlopt.training import loop as loop
from tlopt.training.loop import train_epochs


def test_an_absurd_rate_diverges_in_the_first_epoch(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    with pytest.raises(Diverged, match=r"^epoch 1: the mean training loss is (nan|inf)"):
        list(train_epochs(begin(point(lr=1e30)), images, train, val))


def test_divergence_names_the_epoch_in_which_it_happens(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray
) -> None:
    run = begin(point(epochs=3))
    epochs = train_epochs(run, images, train, None)
    next(epochs)
    with torch.no_grad():
        run.network.net.get_parameter("head.bias").fill_(float("nan"))

    with pytest.raises(Diverged, match=r"^epoch 2: "):
        next(epochs)


def test_a_loss_that_is_finite_only_in_training_is_divergence_too(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, val: np.ndarray
) -> None:
    run = begin(point())
    # statistics that only the eval mode looks at
    run.network.net.get_buffer("stem.1.running_mean").fill_(float("nan"))

    with pytest.raises(Diverged, match=r"^epoch 1: the validation log-loss is nan"):
        next(train_epochs(run, images, train, val))


@pytest.mark.parametrize(
    "refusal",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes\nmore"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.00 GB)"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "cublas", "mps", "python"],
)
def test_a_refusal_of_memory_is_out_of_memory_in_one_line(
    begin: Begin,
    point: MakePoint,
    images: Images,
    train: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Exception,
) -> None:
    def refuse(*_: object) -> None:
        raise refusal

    run = begin(point())
    monkeypatch.setattr(loop, "take_step", refuse)

    with pytest.raises(OutOfMemory) as caught:
        next(train_epochs(run, images, train, None))
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is refusal


def test_what_torch_says_when_the_machine_refuses_memory_is_out_of_memory(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(point())
    monkeypatch.setattr(loop, "take_step", lambda *_: torch.empty(2**58))

    with pytest.raises(OutOfMemory, match="allocate"):
        next(train_epochs(run, images, train, None))


def test_a_programming_error_stays_what_it_is(
    begin: Begin, point: MakePoint, images: Images, train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    run = begin(point())
    monkeypatch.setattr(loop, "take_step", fail)

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        next(train_epochs(run, images, train, None))


def test_a_network_that_does_not_fit_the_device_is_out_of_memory(
    begin: Begin, point: MakePoint, tiny: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    network = tiny()
    monkeypatch.setattr(network, "to", refuse)

    with pytest.raises(OutOfMemory):
        begin(point(), network=network)
