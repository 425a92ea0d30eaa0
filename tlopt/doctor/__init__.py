"""Checks of machine, database, disks and study, each with a cure."""
