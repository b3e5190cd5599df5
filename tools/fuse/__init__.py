"""`sartor fuse`: a fusion compiler for ONNX models."""
