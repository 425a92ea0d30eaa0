"""Position embeddings of vision transformers at other resolutions than they were trained at."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tlopt.errors import WeightsError
from tlopt.system.words import counted


def resized(embedding: Tensor, n_tokens: int, side: int) -> Tensor:
    """The embedding (1, n_tokens, D) of `side` × `side` patches, interpolated from `embedding` (1, n, D).

    Bicubic with antialiasing in float32, as timm does it. Rows before the patches' (class, registers) stay as
    they are, and so do all rows of a grid of the same size.

    Args:
        n_tokens: with those before the patches.
        side: patches per side.

    Raises:
        WeightsError: `embedding` is not of a square grid of patches.
    """
    if embedding.shape[1] == n_tokens:
        return embedding
    n_before = n_tokens - side**2
    n_patches = embedding.shape[1] - n_before
    former = math.isqrt(max(n_patches, 0))
    if former == 0 or former**2 != n_patches:
        raise WeightsError(
            f"the position embedding has {counted(embedding.shape[1], 'row')}, {n_before} of them before the"
            " patches; the rest is no square grid and cannot be brought to another resolution"
        )
    before, patches = embedding[:, :n_before], embedding[:, n_before:]
    grid = patches.float().reshape(1, former, former, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
    rows = grid.permute(0, 2, 3, 1).reshape(1, side**2, -1).to(embedding.dtype)
    return torch.cat([before, rows], dim=1)
