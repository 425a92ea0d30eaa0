"""Figures of training and of searches, drawn with matplotlib."""
