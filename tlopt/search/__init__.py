"""Search space, samplers and the order of trials. Optuna, no torch."""
