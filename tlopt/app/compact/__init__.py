"""What exported networks cost in use, and others made of them: smaller or combined."""
