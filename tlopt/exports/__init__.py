"""Exports: folders with the network of the chosen point, its config and model card; predictions."""
