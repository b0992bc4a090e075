"""Vectors of float32 as Numba values, and the instruction sets they are compiled for."""
