"""The cost of a network in use: parameters, multiply-adds and bytes, which are counted, and measured latency.

A multiply-add is a product that is added to a sum. Those of convolutions, linear layers and matrix products
are counted, among them the scores and the weighted values of attention. Biases, norms, activations, pooling
and additions are not counted. Bytes are those of the file of weights on disk.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from tlopt.system.words import size_words

_WARMUP_ROUNDS = 2
_PRODUCTS = (_ConvNd, nn.Linear)  # layers whose output is their weight times their input
_ALIGNED = 8  # bytes; safetensors pads its header to a multiple, and has its length before it in as many
TYPES = {  # names in safetensors files, in the order of their tensors
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, kw_only=True)
class InferenceCost:
    """The size of a network and its work for one image."""

    parameters: int  # numbers that training may change; statistics of batch-norm layers are none
    multiply_adds: int  # for one image, as the module's docstring says
    weights_bytes: int  # of the file of weights on disk, as `weights.safetensors` of an export

    def as_dict(self) -> dict[str, float]:
        """The counts by name, as in records of trials and in `[constraints]`."""
        return {
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "bytes": self.weights_bytes,
        }

    @property
    def words(self) -> str:
        """As in "11,178,051 parameters, 37,123,456 multiply-adds per image and 44.8 MB of weights"."""
        return (
            f"{self.parameters:,} parameters, {self.multiply_adds:,} multiply-adds per image and"
            f" {size_words(self.weights_bytes)} of weights"
        )


def count(net: nn.Module, resolution: int, *, weights_bytes: int | None = None) -> InferenceCost:
    """The cost of `net` for images of `resolution` pixels per side, counted without computing anything.

    Args:
        net: maps images (N, 3, R, R) to logits; its tensors may be without storage. Left in eval mode.
        weights_bytes: size of its file; default: that of the file which an export of it would have.
    """
    return InferenceCost(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        multiply_adds=multiply_adds(net, torch.empty(1, 3, resolution, resolution, device="meta")),
        weights_bytes=file_bytes(net.state_dict()) if weights_bytes is None else weights_bytes,
    )


def multiply_adds(net: nn.Module, x: Tensor) -> int:
    """Multiply-adds of `net` for the tensor `x`, of which only shape and type are used. Left in eval mode."""
    shapes: dict[str, Tensor] = {name: torch.empty_like(b, device="meta") for name, b in net.named_buffers()}
    for name, parameter in net.named_parameters():
        # Where no weight requires a gradient, attention runs as one operation, which torch counts as 0.
        wanted = parameter.is_floating_point()
        shapes[name] = torch.empty_like(parameter, device="meta").requires_grad_(wanted)
    counter = FlopCounterMode(display=False)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        functional_call(net.eval(), shapes, (x.to("meta"),))
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-add as two operations


def uses_of_weights(net: nn.Module, resolution: int) -> dict[str, int] | None:
    """How many multiply-adds for one image each number of a weight takes part in, by the weight's name.

    Removing channels does not change it, so that the multiply-adds of a smaller network follow from its
    shapes. None if there are other products than those of convolutions and linear layers, such as
    attention's.

    Args:
        net: as for `count`.
    """
    found: Counter[str] = Counter()

    def note(name: str, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        found[name] += output.numel() // weights[name].shape[0]

    weights = dict(net.named_parameters())
    layers = [(f"{name}.weight", each) for name, each in net.named_modules() if isinstance(each, _PRODUCTS)]
    hooks = [layer.register_forward_hook(partial(note, name)) for name, layer in layers if name in weights]
    try:
        total = multiply_adds(net, torch.empty(1, 3, resolution, resolution, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    known = sum(n * weights[name].numel() for name, n in found.items())
    return dict(found) if known == total else None


def file_bytes(state: Mapping[str, Tensor]) -> int:
    """The size of a safetensors file of these tensors without metadata; they may be without storage."""
    order = list(TYPES)
    header: dict[str, object] = {}
    end = 0
    for name, tensor in sorted(state.items(), key=lambda item: (order.index(item[1].dtype), item[0])):
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind, shape = TYPES[tensor.dtype], list(tensor.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return _ALIGNED + length + -length % _ALIGNED + end


@dataclass(frozen=True, kw_only=True)
class Latency:
    """The time that a network takes for a batch, beside that of a reference."""

    seconds: float  # median over the rounds
    ratio: float  # to the reference: median of the rounds' quotients


def measure_latency(
    networks: Mapping[str, nn.Module],
    images: Mapping[str, Tensor],
    *,
    n_rounds: int,
) -> dict[str, Latency]:
    """The latency of each network on its images; the first network is the reference.

    Every round runs each network once, beginning with another one each time, so that a change of the
    machine's load or clock meets all of them; quotients are taken within rounds.

    Args:
        networks: by name, in eval mode, each on the device of its images.
        images: a batch (N, 3, R, R) for each network.
        n_rounds: at least 1; two more before them are not counted.
    """
    rounds = [_round(networks, images, index) for index in range(_WARMUP_ROUNDS + n_rounds)][_WARMUP_ROUNDS:]
    reference = next(iter(networks))
    return {
        name: Latency(
            seconds=median(row[name] for row in rounds),
            ratio=median(row[name] / row[reference] for row in rounds),
        )
        for name in networks
    }


def _round(networks: Mapping[str, nn.Module], images: Mapping[str, Tensor], index: int) -> dict[str, float]:
    names: Sequence[str] = list(networks)
    start = index % len(names)
    return {name: _seconds(networks[name], images[name]) for name in (*names[start:], *names[:start])}


@torch.inference_mode()
def _seconds(net: nn.Module, images: Tensor) -> float:
    _wait(images.device)
    start = time.perf_counter()
    net(images)
    _wait(images.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    """Wait until the device has done what it was asked to; a GPU answers before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
