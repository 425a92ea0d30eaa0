"""Worker processes that claim, train, report and requeue trials; the bridge between torch and Optuna."""
