"""The local web page of ``bsmamba2 ui``."""
