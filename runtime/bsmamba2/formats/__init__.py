"""Model files and what they declare: manifest, checkpoints, ONNX files, engine files, protocols."""
