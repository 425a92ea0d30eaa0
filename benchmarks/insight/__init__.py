"""What `tlopt fit` costs and what its measures predict."""
