"""The devices of this machine, and how this process uses them."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tlopt.errors import SpecError
from tlopt.system.cpus import n_cores
from tlopt.system.memory import keep_freed_memory


def device_names() -> list[str]:
    """Names of the devices here, in the order of preference: CUDA GPUs, the CPU, Apple's GPU.

    Apple's GPU comes last, to be asked for by name, for as long as nobody has measured it.
    """
    mps = torch.backends.mps.is_available()
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["cpu"] + ["mps"] * mps


def choose_device(wanted: str = "auto") -> torch.device:
    """The device called `wanted`, or the first of `device_names` for "auto".

    Raises:
        SpecError: there is no such device here; lists those that there are.
    """
    name = {"auto": device_names()[0], "cuda": "cuda:0"}.get(wanted, wanted)
    if name not in device_names():
        raise SpecError(f"there is no device {wanted!r} here; there are {', '.join(device_names())}")
    return torch.device(name)


def configure_process(n_threads: int) -> None:
    """Set the number of torch's threads in this process, 0 for all cores, and keep freed memory for reuse.

    With TLOPT_DETERMINISTIC=1 torch takes deterministic kernels alone, which GPUs need for equal bits.
    """
    torch.set_num_threads(n_threads or n_cores())
    keep_freed_memory()
    if os.environ.get("TLOPT_DETERMINISTIC") == "1":
        torch.use_deterministic_algorithms(True)


@contextmanager
def configured_process(n_threads: int) -> Iterator[None]:
    """A block with the settings of `configure_process`, after which the number of threads is what it was."""
    before = torch.get_num_threads()
    configure_process(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def release_memory(device: torch.device) -> None:
    """Free what a trial that ended early has left on the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
