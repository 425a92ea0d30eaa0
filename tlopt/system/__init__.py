"""Helpers below all other rooms: processors, memory, file systems, atomic writes, wording."""
