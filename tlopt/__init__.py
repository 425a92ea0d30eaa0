"""tlopt."""
