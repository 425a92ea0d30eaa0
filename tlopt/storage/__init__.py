"""The database: connections that retry, leases on trials, studies and their attributes. Optuna, no torch."""
