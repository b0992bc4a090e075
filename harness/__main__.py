"""`python -m harness` is `loadgen-numba`."""

from .cli import main

if __name__ == "__main__":
    main()
