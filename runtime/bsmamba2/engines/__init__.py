"""Engines: what runs a chunk or a step, in ONNX Runtime or TensorRT."""
