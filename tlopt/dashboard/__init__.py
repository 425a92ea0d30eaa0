"""optuna-dashboard with a login, fewer bytes and pictures."""
