#!/usr/bin/env bash
# Temperature calibration fits without a word, and then cannot predict, where one training fold lacks a class.
#
# Version: scikit-learn 1.9.1
# Seen:    observed: sigmoid predicts (30, 3), isotonic predicts (30, 3),
#          temperature: ValueError: operands could not be broadcast together with shapes (30,3) (30,2) (30,3)
# Why it surprises: folds by group lack rare classes easily, the two older methods give such a class a probability of 0,
#          and `fit` succeeds: the error comes with the first prediction, and names shapes, neither a fold nor a class.
# What to do: make sure that every training fold has every class, or calibrate on one held-out set
#          (FrozenEstimator), or take method="sigmoid".
# Upstream: https://github.com/scikit-learn/scikit-learn/pull/31068 (where the method came in)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'scikit-learn==1.9.1' 'numpy==2.4.6'
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

features = np.random.default_rng(0).standard_normal((30, 3))
labels = np.r_[np.arange(20) % 2, np.arange(10) % 3]
groups = np.where(labels == 2, 0, np.arange(30) % 3)  # all of class 2 are of one group, as images of one patient
folds = list(GroupKFold(3).split(features, labels, groups))

print("scikit-learn", sklearn.__version__)
print("expected: three probabilities for each of 30 rows, or an error from fit that names the class")
fails = {}
for method in ("sigmoid", "isotonic", "temperature"):
    fitted = CalibratedClassifierCV(LogisticRegression(), method=method, cv=folds).fit(features, labels)
    try:
        print(f"observed: {method} predicts {fitted.predict_proba(features).shape}")
        fails[method] = False
    except ValueError as error:
        print(f"observed: {method}: ValueError: {error}")
        fails[method] = True
if not fails["temperature"]:
    sys.exit("changed: temperature calibration predicts although a fold lacked a class.")
PY
