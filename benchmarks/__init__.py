"""Measurements of speed, memory and quality, each run from the repository's root as
``python -m benchmarks.NAME``; its page is ``benchmarks/results/NAME.md``.
"""
