"""Listings of images: folders, torchvision's data sets, built-in samples."""
