"""Separation of libraries that are larger than one machine."""
