"""A study file proposed for somebody's images and machine."""
