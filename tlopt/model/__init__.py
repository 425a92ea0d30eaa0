"""Backbones as ordered blocks: built, cut, given pretrained or fresh weights."""
