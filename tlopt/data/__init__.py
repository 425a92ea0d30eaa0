"""Images: listings, splits, decoding, crops and batches."""
