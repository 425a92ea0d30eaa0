"""Listings of images: folders, label tables, torchvision's data sets, scikit-learn's digits."""
