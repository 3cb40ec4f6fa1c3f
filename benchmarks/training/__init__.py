"""Measurements behind the shipped model: sizes, what they learn, and how well it separates."""
