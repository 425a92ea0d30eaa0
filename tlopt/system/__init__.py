"""Helpers below every other room: processors, memory, file systems, atomic files, wording."""
