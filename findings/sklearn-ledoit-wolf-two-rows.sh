#!/usr/bin/env bash
# Ledoit-Wolf shrinks the covariance of two rows by nothing at all.
#
# Version: scikit-learn 1.9.1
# Seen:    observed: mean shrinkage of 2 rows 0.00, 3 rows 0.35, 4 rows 0.53, 5 rows 0.63; OAS of 2 rows 0.74
# Why it surprises: the fewer rows, the more shrinkage, but for two: there the estimate is 0, and the covariance of 10
#          columns has rank 1. Centred, two rows are each other's mirror image, so that the products of which the
#          formula takes the variance are equal and it finds no error to shrink. LinearDiscriminantAnalysis with
#          shrinkage="auto" does this to every class of two images.
# What to do: take OAS for classes of two, or a fixed shrinkage, or pool the classes first.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'scikit-learn==1.9.1' 'numpy==2.4.6'
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import sklearn
from sklearn.covariance import ledoit_wolf, oas

draw = np.random.default_rng(0)


def mean_shrinkage(estimate, rows):
    return abs(np.mean([estimate(draw.standard_normal((rows, 10)))[1] for _ in range(50)]))


shrinkage = {rows: mean_shrinkage(ledoit_wolf, rows) for rows in (2, 3, 4, 5)}
print("scikit-learn", sklearn.__version__)
print("expected: more shrinkage for fewer rows")
print(
    "observed: mean shrinkage of " + ", ".join(f"{rows} rows {value:.2f}" for rows, value in shrinkage.items()),
    f"OAS of 2 rows {mean_shrinkage(oas, 2):.2f}",
    sep="; ",
)
rank = np.linalg.matrix_rank(ledoit_wolf(draw.standard_normal((2, 10)))[0])
print(f"observed: the covariance that Ledoit-Wolf makes of two rows of 10 columns has rank {rank}")
if shrinkage[2] > 0.1:
    sys.exit("changed: two rows are shrunk; OAS need not take their place.")
PY
