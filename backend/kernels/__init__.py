"""Numba kernels: numbers and arrays in, arrays out. They know no graph, no model and no ONNX."""
