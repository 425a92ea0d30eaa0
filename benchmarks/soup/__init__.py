"""Whether soups and ensembles of confirmed runs are better than one of them."""
