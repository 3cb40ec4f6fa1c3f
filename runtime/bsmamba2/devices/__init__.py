"""Devices by name, the NVIDIA driver, and the native libraries."""
