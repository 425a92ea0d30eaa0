"""One trial's training, with what a study's trials share. Torch, no Optuna."""
