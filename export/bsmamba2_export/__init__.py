"""Exports a checkpoint to a verified ONNX file."""

from bsmamba2_export.exporter import export, export_network

__all__ = ["export", "export_network"]
