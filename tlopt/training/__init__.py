"""Training loop, optimiser groups, penalties, checkpoints and feature cache. Torch, no Optuna."""
