"""A study at one moment: ranking, importance and formatted numbers. No torch."""
