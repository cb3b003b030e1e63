"""The files that are published."""
