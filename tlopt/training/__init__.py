"""The training loop, its optimiser groups and pulls, checkpoints, kept features. Torch, no Optuna."""
