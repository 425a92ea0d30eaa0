"""Processors, memory and file systems of this machine."""
