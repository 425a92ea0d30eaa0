"""Precision and memory layout, fixed per study because last bits depend on them."""

import functools
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch

from tlopt.model.network import Network

Precision = Literal["float32", "bfloat16"]
Layout = Literal["channels_first", "channels_last"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_FORMATS = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Numerics:
    """Precision of matrix products and convolutions, and layout of images; all else is float32."""

    precision: Precision = "float32"
    layout: Layout = "channels_first"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as a torch constant."""
        return _FORMATS[self.layout]

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Context in which convolutions and matrix products have this precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def __str__(self) -> str:
        return f"{self.precision} {self.layout}"

    @classmethod
    def parse(cls, text: str) -> "Numerics":
        """Read the output of `str`."""
        precision, layout = text.split()
        return cls(cast(Precision, precision), cast(Layout, layout))


def usual_numerics(network: Network, device: torch.device) -> Numerics:
    """Default numerics: float32, with channels last on GPUs and for backbones with grouped convolutions.

    On a CPU channels last makes grouped convolutions a third faster and ordinary ones 3 to 9 % slower. Trials
    that use fewer blocks of the same backbone have the same, and share cached features.
    """
    fast = network.has_groups or device.type == "cuda"
    return Numerics(layout="channels_last" if fast else "channels_first")


@functools.cache
def _cpu_model() -> str:
    """Vendor and model, which oneDNN and MKL use to choose kernels besides torch's CPU capability."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    told = {key.strip(): value.strip() for key, value in pairs}
    keys = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")  # the last two on ARM
    return " ".join(told[key] for key in keys if key in told)


def computing_environment(device: torch.device) -> Mapping[str, str | int]:
    """Facts about machine and software on which last bits depend."""
    match device.type:
        case "cpu":
            name = "cpu"
        case "cuda":
            name = torch.cuda.get_device_name(device)
        case _:
            name = device.type
    return {
        "torch": str(torch.__version__),
        "device": name,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {_cpu_model()}",
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
    }


def other_environment(stored: Mapping[str, object], device: torch.device) -> str:
    """What differs here from a stored `computing_environment`, as the end of a sentence; "" if nothing."""
    here = computing_environment(device)
    other = [f"{name} {stored.get(name)} is {value} here" for name, value in here.items()
             if stored.get(name) != value]  # fmt: skip
    return f"; last bits may differ: {', '.join(other)}" if other else ""
