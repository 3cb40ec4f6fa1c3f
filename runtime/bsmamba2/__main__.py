"""``python -m bsmamba2``: the command line, for when its script is not on the path."""

from bsmamba2.cli import main

main(prog_name="bsmamba2")
