"""How numbers lie in memory and are rounded: chosen once for a study, since its last bits hang on it."""

import functools
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]
Layout = Literal["channels_first", "channels_last"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_FORMATS = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Numerics:
    """Precision of products (weights, gradients and optimiser stay float32) and layout of images."""

    precision: Precision = "float32"
    layout: Layout = "channels_first"

    @property
    def memory_format(self) -> torch.memory_format:
        """Torch's name of the layout."""
        return _FORMATS[self.layout]

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """A block in which convolutions and matrix products are of this precision."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def __str__(self) -> str:
        return f"{self.precision} {self.layout}"

    @classmethod
    def parse(cls, text: str) -> "Numerics":
        """What `str` wrote."""
        precision, layout = text.split()
        return cls(cast(Precision, precision), cast(Layout, layout))


def usual_numerics(network: nn.Module, device: torch.device) -> Numerics:
    """float32; channels last on GPUs and for networks with grouped convolutions, which gain a third by it.

    Networks of ordinary convolutions lose 3 to 9 % on a CPU.
    """
    grouped = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in network.modules())
    return Numerics(layout="channels_last" if grouped or device.type == "cuda" else "channels_first")


@functools.cache
def _cpu_model() -> str:
    """Maker and model, by which oneDNN and MKL choose kernels beyond what torch calls capability."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return platform.processor()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    told = {key.strip(): value.strip() for key, value in pairs}
    keys = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")  # the latter two on ARM
    return " ".join(told[key] for key in keys if key in told)


def computing_environment(device: torch.device) -> Mapping[str, str | int]:
    """What has to be equal for equal bits, beside the study."""
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
