"""Position embeddings of vision transformers, interpolated to another resolution."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tlopt.errors import WeightsError
from tlopt.system.words import counted


def resized_positions(embedding: Tensor, n_tokens: int, side: int) -> Tensor:
    """`embedding` (1, n, D), interpolated to a grid of `side` × `side` patches: (1, n_tokens, D).

    Bicubic with antialiasing, in float32, as in timm. The rows before those of the patches (class token,
    registers) are unchanged; a grid of the same size is returned as it is.

    Args:
        n_tokens: number of rows of the result: the patches and the tokens before them.
        side: patches per side.

    Raises:
        WeightsError: the patches in `embedding` form no square grid.
    """
    if embedding.shape[1] == n_tokens:
        return embedding
    n_before = n_tokens - side**2
    n_patches = embedding.shape[1] - n_before
    old_side = math.isqrt(max(n_patches, 0))
    if old_side == 0 or old_side**2 != n_patches:
        raise WeightsError(
            f"the position embedding has {counted(embedding.shape[1], 'row')}, {n_before} of them before the"
            " patches; the rest form no square grid and cannot be interpolated to another resolution"
        )
    before, patches = embedding[:, :n_before], embedding[:, n_before:]
    grid = patches.float().reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
    rows = grid.permute(0, 2, 3, 1).reshape(1, side**2, -1).to(embedding.dtype)
    return torch.cat([before, rows], dim=1)
