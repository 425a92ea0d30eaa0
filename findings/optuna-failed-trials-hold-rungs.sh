#!/usr/bin/env bash
# SuccessiveHalvingPruner lets trials that failed hold their places in a rung for good.
#
# Version: optuna 5.0.0
# Seen:    observed: 6 of 6 later trials pruned after 8 failed ones; 0 of 6 without them
# Why it surprises: a FAILed trial has no value, no sampler learns from it and it can never win. Yet the score that it
#          had when it passed a rung goes on competing: where a region trains fast and then diverges or runs out of memory,
#          its trials close the rung for all that would have ended.
# What to do: where failures depend on the parameters, take MedianPruner or PercentilePruner, which compare with
#          complete trials alone; after a burst of failures from outside, begin a new study.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'optuna==5.0.0'
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import optuna
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)


def pruned_after(failures: int) -> int:
    """How many of six trials, each better than the one before, are pruned at the first rung."""
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for _ in range(failures):
        trial = study.ask()
        trial.report(0.99, 1)
        trial.should_prune()
        study.tell(trial, state=TrialState.FAIL)
    pruned = 0
    for score in (0.50, 0.51, 0.52, 0.53, 0.54, 0.55):
        trial = study.ask()
        trial.report(score, 1)
        pruned += trial.should_prune()
        study.tell(trial, score)
    return pruned


with_failures, without = pruned_after(8), pruned_after(0)
print("optuna", optuna.__version__)
print("expected: failed trials do not count, so that as many trials are pruned with them as without")
print(f"observed: {with_failures} of 6 later trials pruned after 8 failed ones; {without} of 6 without them")
if with_failures == without:
    sys.exit("changed: failed trials no longer compete in a rung.")
PY
