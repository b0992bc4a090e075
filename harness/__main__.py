"""Where the process begins: `loadgen-numba` and `python -m harness`.

A Ctrl-C while modules are still being imported would end in a traceback from the midst of them. So this file imports
nothing heavy, and the first thing it does is to decide what a Ctrl-C means until the command line takes over.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Console script."""
    usual = signal.signal(signal.SIGINT, _end_at_once)
    from .cli import main as command_line

    signal.signal(signal.SIGINT, usual)
    command_line()


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    """Nothing has been begun: there is nothing to tidy up."""
    os.write(2, b"error: interrupted by SIGINT\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
