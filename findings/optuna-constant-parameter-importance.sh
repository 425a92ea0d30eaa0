#!/usr/bin/env bash
# PED-ANOVA gives a share of the importance to a parameter that never varied.
#
# Version: optuna 5.0.0, where PED-ANOVA became the standard evaluator of get_param_importances.
# Seen:    observed: the parameter with one value has a share of 0.13, 0.25 and 0.20; fANOVA says 0, 0 and 0
# Why it surprises: 40 trials hold one value of the parameter, so nothing in the study can tell whether it matters.
#          PED-ANOVA compares a density of the best trials with one of all trials, each mixed with a broad prior of the
#          weight of one trial: that is a fifth of the density of 4 trials and a 41st of that of 40, so they differ.
# What to do: leave parameters with one value out (`params=`), and doubt shares that
#          are no larger than theirs.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'optuna==5.0.0' 'scikit-learn==1.9.1'
"$work/venv/bin/python" -W ignore - <<'PY'
import random
import sys

import optuna
from optuna.distributions import FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

optuna.logging.set_verbosity(optuna.logging.ERROR)
RANGES = {"x": FloatDistribution(0.0, 1.0), "same": FloatDistribution(1e-6, 1.0, log=True)}


def study(seed: int) -> optuna.Study:
    draw = random.Random(seed)
    made = optuna.create_study()
    for _ in range(40):
        x = draw.random()
        made.add_trial(optuna.create_trial(value=(x - 0.3) ** 2, params={"x": x, "same": 1e-3}, distributions=RANGES))
    return made


shares = {
    evaluator: [get_param_importances(study(seed), evaluator=evaluator)["same"] for seed in range(3)]
    for evaluator in (PedAnovaImportanceEvaluator(), FanovaImportanceEvaluator(seed=0))
}
print("optuna", optuna.__version__)
print("expected: a share of 0 for the parameter that has one value in every trial")
for evaluator, values in shares.items():
    print(f"observed: {type(evaluator).__name__} gives it", " ".join(f"{value:.2f}" for value in values))
ped, fanova = shares.values()
if min(ped) < 0.05 or max(fanova) > 0.01:
    sys.exit("changed: PED-ANOVA no longer gives a share to a parameter with one value; it need not be left out.")
PY
