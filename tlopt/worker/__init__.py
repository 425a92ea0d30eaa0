"""Worker processes that claim, train, report and requeue trials. The bridge between torch and Optuna."""
