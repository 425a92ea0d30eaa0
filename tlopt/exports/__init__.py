"""The chosen point as a folder: weights, config, model card; and predictions from it."""
