"""The training loop, its optimiser groups and pulls, checkpoints, feature cache. Torch, no Optuna."""
