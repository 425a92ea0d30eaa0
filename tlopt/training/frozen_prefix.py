"""The frozen blocks of a network: what they give for an image depends on that image alone, bit for bit.

The last bits of a layer's output depend on the size of the batch and on how it lies in memory. So frozen
blocks always run in eval mode, in chunks of one size, padded, and each block's output is brought into one of
two layouts. An image's features are then the same bits in whatever company, whether they are computed from
its pixels, from an earlier block's stored output, or read from a file.
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

CHUNK_IMAGES = 32  # images; part of what a trial means


@dataclass(frozen=True)
class FeatureFormat:
    """How one image's features look and lie in memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, features: Tensor) -> "FeatureFormat":
        """The form of the rows of `features`, which are settled."""
        return cls(tuple(features.shape[1:]), features.dtype, not features.is_contiguous())

    @property
    def row_bytes(self) -> int:
        """Bytes per image."""
        return math.prod(self.shape) * self.dtype.itemsize

    def empty(self, n: int, device: torch.device) -> Tensor:
        """Room for the features of `n` images."""
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
    """The frozen blocks that one run trains behind; they are in eval mode."""

    network: Network
    point: Point
    numerics: Numerics
    device: torch.device

    def outputs(self, images: Images, view: View, indices: NDArray[np.int64], split_depth: int) -> Tensor:
        """The settled output of block `split_depth` for `view` of the images at `indices`."""
        starts = range(0, len(indices), CHUNK_IMAGES)
        return _joined(
            [self._chunk(images, view, indices[at : at + CHUNK_IMAGES], split_depth) for at in starts]
        )

    def _chunk(self, images: Images, view: View, indices: NDArray[np.int64], split_depth: int) -> Tensor:
        # As many images as in any chunk: the last bits of a view, too, may depend on their number.
        views = images.seen(np.resize(indices, CHUNK_IMAGES), view, self.point, self.device)
        x = canonical_layout(views.contiguous(memory_format=self.numerics.memory_format))
        return _forward_chunk(self.network, x, 0, split_depth, self.numerics)[: len(indices)]


@torch.no_grad()
def forward_blocks(network: Network, x: Tensor, start: int, end: int, numerics: Numerics) -> Tensor:
    """The settled outputs of block `end` for settled outputs `x` (n, ...) of block `start` (0: images).

    Blocks up to `end` have to be in eval mode. `x` is returned as it is where `start` is `end`.
    """
    if start == end:
        return x
    pieces = [x[at : at + CHUNK_IMAGES] for at in range(0, len(x), CHUNK_IMAGES)]
    return _joined([_forward_chunk(network, piece, start, end, numerics)[: len(piece)] for piece in pieces])


def _joined(chunks: Sequence[Tensor]) -> Tensor:
    if len(chunks) == 1:
        return chunks[0]
    features = FeatureFormat.of(chunks[0]).empty(sum(map(len, chunks)), chunks[0].device)
    for at, chunk in enumerate(chunks):  # all but the last are whole
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
    """`x` (n, ...) in one of two layouts: channels last where it lies so and in no other way, else plain."""
    if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return x
    # Where an extent is 1 strides are ambiguous, and kernels are chosen by strides.
    return x.contiguous().view(-1).view(x.shape)


@dataclass(frozen=True)
class SplitPoint:
    """The output of a block for one image, behind which a network can be split: its form and its cost."""

    block: int  # from 1
    feature_format: FeatureFormat
    flops: float  # of blocks 1..block, a multiplication and an addition being 2


def find_split_points(network: Network, image: Tensor, numerics: Numerics) -> tuple[SplitPoint, ...]:
    """One row for each block, from a forward pass of `image` (1, 3, H, W); the network is in eval mode."""
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
    """Torch's counter, with attention in the matrix products that it consists of.

    Fused into one operation, as without gradients, attention and whole transformer layers count nothing.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
