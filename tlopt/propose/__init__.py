"""A study file proposed for the user's images and machine."""
