"""Stand-ins for NVIDIA's libraries, over which ONNX Runtime's real CUDA provider runs on a CPU."""
