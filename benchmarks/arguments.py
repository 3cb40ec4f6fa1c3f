"""The command-line parser shared by all benchmarks."""

from __future__ import annotations

import argparse


def argument_parser(name: str, doc: str) -> argparse.ArgumentParser:
    """Returns a parser whose help shows ``python -m benchmarks.NAME`` and ``doc``'s first line."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0]
    )
