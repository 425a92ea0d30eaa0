"""Frozen blocks of a network, whose output for an image depends on that image alone, bit for bit.

The last bits of a layer's output depend on the batch size and the memory layout. Frozen blocks therefore
always run in eval mode on padded chunks of one size, and each block's output is brought into one of two
layouts. An image's features are then bitwise identical whatever else is in the batch, and whether they are
computed from pixels, computed from an earlier block's stored output, or read from a file.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tlopt.data.batches import Images, View
from tlopt.model.network import Network
from tlopt.spec.point import Point
from tlopt.training.numerics import Numerics

CHUNK_IMAGES = 32  # a change alters results: part of the semantics version


@dataclass(frozen=True)
class FeatureFormat:
    """Shape, type and memory layout of one image's features."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, features: Tensor) -> "FeatureFormat":
        """The format of `features` (n, ...), which must be in canonical layout."""
        return cls(tuple(features.shape[1:]), features.dtype, not features.is_contiguous())

    @property
    def row_bytes(self) -> int:
        """Bytes per image."""
        return math.prod(self.shape) * self.dtype.itemsize

    def empty(self, n: int, device: torch.device) -> Tensor:
        """Allocate features of `n` images."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return torch.empty((n, *self.shape), dtype=self.dtype, device=device, memory_format=layout)

    def to_rows(self, features: Tensor) -> NDArray[np.uint8]:
        """`features` (n, ...) as uint8 (n, row_bytes)."""
        dense = features.permute(0, 2, 3, 1) if self.channels_last else features
        rows: NDArray[np.uint8] = dense.cpu().contiguous().view(len(features), -1).view(torch.uint8).numpy()
        return rows

    def from_rows(self, rows: NDArray[np.uint8]) -> Tensor:
        """The features (n, ...) that `to_rows` wrote, on the CPU."""
        flat = torch.from_numpy(rows).view(self.dtype)
        if not self.channels_last:
            return flat.view(len(rows), *self.shape)
        channels, height, width = self.shape
        return flat.view(len(rows), height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class FrozenPrefix:
    """The frozen blocks at the input of one run's network; they must be in eval mode."""

    network: Network
    point: Point
    numerics: Numerics
    device: torch.device

    def outputs(self, images: Images, view: View, indices: NDArray[np.int64], split_depth: int) -> Tensor:
        """Output of block `split_depth`, in canonical layout, for `view` of the images at `indices`."""
        starts = range(0, len(indices), CHUNK_IMAGES)
        return _joined(
            [self._chunk(images, view, indices[at : at + CHUNK_IMAGES], split_depth) for at in starts]
        )

    def _chunk(self, images: Images, view: View, indices: NDArray[np.int64], split_depth: int) -> Tensor:
        # A full chunk of images: the last bits of a view may depend on their number too.
        views = images.views_of(np.resize(indices, CHUNK_IMAGES), view, self.point, self.device)
        x = canonical_layout(views.contiguous(memory_format=self.numerics.memory_format))
        return _forward_chunk(self.network, x, 0, split_depth, self.numerics)[: len(indices)]


@torch.no_grad()
def forward_blocks(network: Network, x: Tensor, start: int, end: int, numerics: Numerics) -> Tensor:
    """Outputs of block `end` for outputs `x` (n, ...) of block `start` (0: images), in canonical layout.

    Blocks up to `end` must be in eval mode. If `start` is `end`, return `x` itself.
    """
    if start == end:
        return x
    pieces = [x[at : at + CHUNK_IMAGES] for at in range(0, len(x), CHUNK_IMAGES)]
    return _joined([_forward_chunk(network, piece, start, end, numerics)[: len(piece)] for piece in pieces])


def _joined(chunks: Sequence[Tensor]) -> Tensor:
    if len(chunks) == 1:
        return chunks[0]
    features = FeatureFormat.of(chunks[0]).empty(sum(map(len, chunks)), chunks[0].device)
    for at, chunk in enumerate(chunks):  # all but the last are full
        features[at * CHUNK_IMAGES : at * CHUNK_IMAGES + len(chunk)].copy_(chunk)
    return features


@torch.no_grad()
def _forward_chunk(network: Network, x: Tensor, start: int, end: int, numerics: Numerics) -> Tensor:
    if len(x) < CHUNK_IMAGES:
        padded = FeatureFormat.of(x).empty(CHUNK_IMAGES, x.device)
        padded[: len(x)].copy_(x)
        padded[len(x) :].zero_()
        x = padded
    with numerics.autocast(x.device):
        for part in network.blocks[start:end]:
            x = canonical_layout(part.forward(x))
    return x


def canonical_layout(x: Tensor) -> Tensor:
    """`x` (n, ...) in one of two layouts: channels last if that is its only layout, else contiguous."""
    if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return x
    # Strides are ambiguous for dimensions of size 1, and kernels are chosen by strides.
    return x.contiguous().view(-1).view(x.shape)


@dataclass(frozen=True)
class SplitPoint:
    """A block after which the network can be split: the format of its output and the cost up to it."""

    block: int  # from 1
    feature_format: FeatureFormat
    flops: float  # of blocks 1..block; a multiply-add counts 2


def find_split_points(network: Network, image: Tensor, numerics: Numerics) -> tuple[SplitPoint, ...]:
    """The split point after each block, from a forward pass of `image` (1, 3, H, W) in eval mode."""
    split_points: list[SplitPoint] = []
    x, flops = image, 0.0
    with torch.no_grad(), numerics.autocast(image.device):
        for index, part in enumerate(network.blocks, 1):
            with _operations_counted() as counter:
                x = part.forward(x)
            flops += counter.get_total_flops()
            split_points.append(SplitPoint(index, FeatureFormat.of(canonical_layout(x)), flops))
    return tuple(split_points)


@contextmanager
def _operations_counted() -> Iterator[FlopCounterMode]:
    """Torch's operation counter, with attention computed by separate matrix products.

    Without gradients torch fuses attention and whole transformer layers into operations that it counts as 0.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
