"""A graph and a machine become a plan: kernels chosen, weights packed, memory laid out; the executor runs it."""
