"""The cache folder, files of checksummed records in it, and eviction."""
