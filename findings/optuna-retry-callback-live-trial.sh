#!/usr/bin/env bash
# The helper that tells a retried trial which trial it repeats fails on every live trial.
#
# Version: optuna 5.0.0
# Seen:    observed: AttributeError: 'Trial' object has no attribute 'system_attrs'
# Why it surprises: the helper exists to be asked inside the objective, for the checkpoint of the run that died, and
#          Optuna's own example of checkpoints passes the live trial. Its annotation says FrozenTrial, which nothing checks;
#          4.9.0 answered for both, and 5.0 removed Trial.system_attrs, from which it reads.
# What to do: pass the stored trial, study.trials[trial.number], instead of the live one.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'optuna==5.0.0'
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback as Retry
from optuna.trial import TrialState

optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study()
lost = study.ask()
study.tell(lost, state=TrialState.FAIL)
Retry(max_retry=1)(study, study.trials[0])  # what Optuna calls where a worker's heartbeat stood still
again = study.ask()

print("optuna", optuna.__version__)
print("expected: trial 1 is told that it repeats trial 0")
print("observed: of the stored trial:", Retry.retried_trial_number(study.trials[again.number]))
try:
    print("observed: of the live trial:", Retry.retried_trial_number(again))
except AttributeError as error:
    print(f"observed: AttributeError: {error}")
else:
    sys.exit("changed: retried_trial_number takes a live trial; the stored one need not be passed.")
PY
