"""Grids: their curves for a terminal, for programs and as figures."""
