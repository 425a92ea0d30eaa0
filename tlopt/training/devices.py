"""The devices of this machine, and process-wide torch settings."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tlopt.errors import SpecError
from tlopt.system.cpus import n_cores
from tlopt.system.memory import keep_freed_memory


def device_names() -> list[str]:
    """Names of the available devices in order of preference: CUDA GPUs, the CPU, Apple's GPU.

    Apple's GPU comes last and must be requested by name, because it has not been measured.
    """
    mps = torch.backends.mps.is_available()
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] + ["cpu"] + ["mps"] * mps


def choose_device(wanted: str = "auto") -> torch.device:
    """The device called `wanted`; for "auto", the first of `device_names`.

    Raises:
        SpecError: there is no such device; the message lists the available ones.
    """
    name = {"auto": device_names()[0], "cuda": "cuda:0"}.get(wanted, wanted)
    if name not in device_names():
        raise SpecError(f"there is no device {wanted!r} here; there are {', '.join(device_names())}")
    return torch.device(name)


def configure_process(n_threads: int) -> None:
    """Set torch's number of threads (0: one per core) and make the process reuse freed memory.

    TLOPT_DETERMINISTIC=1 restricts torch to deterministic kernels, which GPUs need for identical bits.
    """
    torch.set_num_threads(n_threads or n_cores())
    keep_freed_memory()
    if os.environ.get("TLOPT_DETERMINISTIC") == "1":
        torch.use_deterministic_algorithms(True)


@contextmanager
def configured_process(n_threads: int) -> Iterator[None]:
    """Apply `configure_process` within the block, and restore the number of threads after it."""
    before = torch.get_num_threads()
    configure_process(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def release_memory(device: torch.device) -> None:
    """Free device memory left over from a trial that ended early."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
