#!/usr/bin/env bash
# Torch-Pruning cuts channels before a layer norm as if nothing else changed; the network computes other numbers.
#
# Version: torch-pruning 1.6.1 (with torch 2.13.0)
# Seen:    observed: behind a batch norm 1e-16 of the largest output apart, behind a layer norm 0.22
# Why it surprises: the cut network is well formed, and behind a batch norm it equals the network whose next layer
#          ignores the channels. A layer norm divides by the spread over all channels, the removed ones included, so that
#          every channel that stays changes. In ConvNeXt this is each block.
# What to do: cut only where no layer norm sees the channels (the width inside an MLP), or measure again after the cut.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "installing torch: up to several GB"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'torch-pruning==1.6.1' 'torch==2.13.0' 'numpy==2.4.6'
"$work/venv/bin/python" -W ignore - <<'PY'
import copy
import sys
from importlib.metadata import version

import torch
import torch_pruning
from torch import nn

WIDTH, REMOVED = 16, [0, 3, 5, 7]


class Net(nn.Module):
    """Two layers on channels-last features, a norm between them."""

    def __init__(self, norm):
        super().__init__()
        self.below = nn.Linear(8, WIDTH)
        self.norm = norm
        self.above = nn.Linear(WIDTH, 5)

    def forward(self, x):
        return self.above(self.norm(self.below(x)))


def difference(norm):
    """How far the cut network is from the one that ignores the channels, as a share of its largest output."""
    torch.manual_seed(0)
    net = Net(norm).double().eval()
    if isinstance(norm, nn.BatchNorm1d):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(32, 8, dtype=torch.float64)
    ignoring, cut = copy.deepcopy(net), copy.deepcopy(net)
    with torch.no_grad():
        ignoring.above.weight[:, REMOVED] = 0.0
    graph = torch_pruning.DependencyGraph().build_dependency(cut, example_inputs=x)
    graph.get_pruning_group(cut.below, torch_pruning.prune_linear_out_channels, idxs=REMOVED).prune()
    with torch.no_grad():
        return ((cut(x) - ignoring(x)).abs().max() / ignoring(x).abs().max()).item()


batch, layer = difference(nn.BatchNorm1d(WIDTH)), difference(nn.LayerNorm(WIDTH))
print("torch-pruning", version("torch-pruning"))
print("expected: equal to the network that ignores the removed channels")
print(f"observed: behind a batch norm {batch:.0e} of the largest output apart, behind a layer norm {layer:.2f}")
if layer < 0.001:
    sys.exit("changed: networks cut before a layer norm equal the masked ones; such channels may be cut.")
PY
