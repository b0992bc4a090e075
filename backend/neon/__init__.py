"""The kernels once more, in C with NEON intrinsics, and a compiled executor for them: plans run without Numba.

Called by `backend.model` where `kernels="neon"`. Knows step records and numbers, no graph.
"""
