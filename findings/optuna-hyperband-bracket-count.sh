#!/usr/bin/env bash
# HyperbandPruner has one bracket too few for some exact powers of its reduction factor.
#
# Version: optuna 5.0.0
# Seen:    observed: 81/3 -> 5 of 5, 125/5 -> 4 of 4, 243/3 -> 5 of 6, 1000/10 -> 3 of 4
# Why it surprises: raising max_resource from 81 to 243 changes no bracket, without a word. The number is
#          floor(log(max, factor)) + 1 in floating point, and log(243, 3) is 4.999999999999999 there. The bracket that is
#          missing is the one that starts the fewest trials and stops none of them early.
# What to do: give max_resource one more than the power (244, 1001); the rungs stay where they were.
# Upstream: https://github.com/optuna/optuna/pull/6835 (closed without a merge)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'optuna==5.0.0'
"$work/venv/bin/python" -W ignore - <<'PY'
import logging
import re
import sys

import optuna

said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
optuna.logging.disable_default_handler()
optuna.logging.set_verbosity(optuna.logging.DEBUG)
logging.getLogger("optuna").addHandler(handler)


def brackets(max_resource: int, factor: int) -> int:
    """The number of different brackets that 1,000 trials are put into, as the pruner's log names them."""
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max_resource, reduction_factor=factor)
    study = optuna.create_study(study_name="study", pruner=pruner)
    said.clear()
    for _ in range(1000):
        trial = study.ask()
        trial.report(1.0, 1)
        trial.should_prune()
        study.tell(trial, 1.0)
    return len({found[0] for message in said if (found := re.findall(r"(\d+)th bracket", message))})


print("optuna", optuna.__version__)
print("expected: floor(log_factor(max_resource)) + 1 brackets")
counts = {(81, 3): 5, (125, 5): 4, (243, 3): 6, (1000, 10): 4, (244, 3): 6, (1001, 10): 4}
seen = {pair: brackets(*pair) for pair in counts}
print("observed:", ", ".join(f"{r}/{f} -> {seen[r, f]} of {due}" for (r, f), due in counts.items()))
if seen[243, 3] == 6 and seen[1000, 10] == 4:
    sys.exit("changed: exact powers have all of their brackets; max_resource need not be one more.")
PY
