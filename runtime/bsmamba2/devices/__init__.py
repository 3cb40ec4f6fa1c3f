"""Devices, the NVIDIA driver, and the native libraries."""
