"""The database: connections with retries, leases on trials, studies and attributes. Optuna, no torch."""
