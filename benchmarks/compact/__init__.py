"""How much accuracy ways of pruning lose."""
