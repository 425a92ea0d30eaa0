"""Source networks that are more or less related to a target."""
