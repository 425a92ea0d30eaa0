"""The cache folder: record files with checksums, bounded and cleaned."""
