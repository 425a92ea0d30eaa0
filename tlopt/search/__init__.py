"""Search space, samplers, initial points and study plans. Optuna, no torch."""
