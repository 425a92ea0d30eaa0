"""The cost of `tlopt fit`, and what its measures predict."""
