"""Backbones as ordered blocks, with pretrained or fresh weights."""
