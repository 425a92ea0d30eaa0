"""The generated parts of the documentation, and the source tree of its site."""
