"""Training of single trials, and images, weights and caches shared by a study's trials. Torch, no Optuna."""
