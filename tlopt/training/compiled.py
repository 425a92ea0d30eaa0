"""A training step's forward and backward pass as code that torch generates for the network at hand."""

from collections.abc import Callable

import torch
from torch import Tensor

from tlopt.errors import SpecError
from tlopt.model.network import Network

Suffix = Callable[[Tensor, int], Tensor]

# of one function: networks side by side, times head alone or all, times whole and last batch
_RECOMPILES_MAX = 256


def compiled_suffix(network: Network) -> Suffix:
    """`network.suffix`, compiled for each shape and depth as it comes; first calls take seconds to minutes.

    What was compiled for earlier networks is forgotten: torch stops compiling one function after a few times.
    """
    from torch._dynamo import config  # takes a second, for those who compile alone

    torch.compiler.reset()
    config.recompile_limit = _RECOMPILES_MAX
    return torch.compile(network.suffix, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Check that torch can compile for `device`; takes some seconds.

    Raises:
        SpecError: it cannot; says why, and what to do.
    """
    try:
        torch.compile(_code_is_generated, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:  # torch has no one class for what its back ends run into
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SpecError(
            f"model.compile = true: torch cannot compile for {device} here: {reason};"
            " install a C++ compiler (g++), for a GPU also triton, or leave it false"
        ) from error


def _code_is_generated(x: Tensor) -> Tensor:
    """For a matrix product alone torch would call its library and compile nothing."""
    return torch.relu(2 * x + 1)
