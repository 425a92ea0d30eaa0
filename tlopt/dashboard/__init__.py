"""optuna-dashboard with a login, response caching, compression and figures."""
