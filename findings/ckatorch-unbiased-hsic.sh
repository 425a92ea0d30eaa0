#!/usr/bin/env bash
# ckatorch gives the biased similarity although `unbiased=True` is passed, where the method is "hsic".
#
# Version: ckatorch 1.0.3 (with torch 2.13.0)
# Seen:    observed: independent noise: biased 0.95, unbiased by "fro_norm" 0.00, unbiased by "hsic" 0.95
# Why it surprises: the docstring says that the method does not influence the output. With 64 images and 1,280
#          features the bias is nearly all of the scale: layers that share nothing seem the same. The "hsic" branch
#          takes the biased estimator whatever is passed.
# What to do: leave the method at "fro_norm" when the unbiased value is wanted, and try the measure on noise first.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "installing torch: up to several GB"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'ckatorch==1.0.3' 'torch==2.13.0' 'numpy==2.4.6'
"$work/venv/bin/python" -W ignore - <<'PY'
import sys
from importlib.metadata import version

import torch
from ckatorch.core import cka_base

IMAGES, FEATURES, DRAWS = 64, 1280, 20
torch.manual_seed(0)


def mean_similarity(**how):
    noise = (torch.randn(2, IMAGES, FEATURES, dtype=torch.float64) for _ in range(DRAWS))
    return abs(sum(cka_base(*pair, **how).item() for pair in noise) / DRAWS)


biased = mean_similarity(unbiased=False, method="fro_norm")
unbiased = {method: mean_similarity(unbiased=True, method=method) for method in ("fro_norm", "hsic")}
print("ckatorch", version("ckatorch"))
print("expected: 0 by either method, for noise is independent of noise")
print(
    f"observed: independent noise: biased {biased:.2f}, "
    + ", ".join(f'unbiased by "{method}" {value:.2f}' for method, value in unbiased.items())
)
if unbiased["hsic"] < 0.1:
    sys.exit('changed: method="hsic" heeds unbiased=True; either method may be used.')
PY
