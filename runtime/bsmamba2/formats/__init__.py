"""Model files: manifests, checkpoints, ONNX files, engine files, and the names of stems."""
