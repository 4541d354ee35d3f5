"""ONNX networks as experts: an importer of ONNX operators onto PyTorch, so that gradients reach the pixels."""
