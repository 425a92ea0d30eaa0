"""Measures of how well a pretrained network suits a set of images, before anything is trained."""
