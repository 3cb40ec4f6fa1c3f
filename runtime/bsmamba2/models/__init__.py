"""Turns the name of a model into its engines: registry, downloads, checks."""
