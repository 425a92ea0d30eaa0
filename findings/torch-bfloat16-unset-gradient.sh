#!/usr/bin/env bash
# torch leaves weight gradients of a strided bfloat16 convolution unset where the kernel sees only padding.
#
# Version: torch 2.14.1 on a CPU with AVX-512 bf16
# Seen:    observed: channels first 39 of 40 wrong, channels last 40 of 40 wrong
# Why it surprises: those gradients are 0 by definition, and are 0 in float32; in bfloat16 they have what was in the memory
#          before, up to infinity and NaN, which then destroys the weights. Needs features of 1 x 1 and a stride of 2, as in
#          the last stage of a ResNet on images of 16 pixels.
# What to do: compute such convolutions in float32, or use images of more pixels.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "installing torch: up to several GB"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'torch==2.14.1' 'numpy==2.4.6'
CUDA_VISIBLE_DEVICES='' "$work/venv/bin/python" -W ignore - <<'PY'
import sys

import torch

RUNS = 40
torch.manual_seed(0)


def gradient(x, weight, out):
    back = torch.ops.aten.convolution_backward
    return back(out, x, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False])[1]


def is_wrong(layout):
    dirty = torch.full((3_000_000,), 1e30, dtype=torch.bfloat16)
    del dirty  # its memory is used again
    x = torch.randn(3, 256, 1, 1).bfloat16().contiguous(memory_format=layout)
    weight = torch.randn(144, 256, 3, 3).bfloat16().contiguous(memory_format=layout)
    out = torch.randn(3, 144, 1, 1).bfloat16()
    found = gradient(x, weight, out)
    seen = torch.zeros(3, 3, dtype=torch.bool)
    seen[1, 1] = True  # the only tap that sees the one position
    return not bool((found[:, :, ~seen] == 0).all())


print("torch", torch.__version__.split("+")[0])
print("expected: gradients of 0 for all taps but the middle one, 0 of", RUNS, "wrong")
layouts = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
wrong = {name: sum(is_wrong(layout) for _ in range(RUNS)) for name, layout in layouts.items()}
print("observed:", ", ".join(f"{name} {n} of {RUNS} wrong" for name, n in wrong.items()))
if not any(wrong.values()):
    sys.exit("changed: these gradients are 0; the test beside float32 may compare with bfloat16.")
PY
