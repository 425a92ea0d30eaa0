"""Smaller networks: channels that can be removed, their removal, and what a network costs in use."""
