"""Model files: manifests, checkpoints, ONNX files, engine files; and the protocols of engines."""
