"""What a search found out about its keys, with intervals, and the ranges that a next study should have."""
