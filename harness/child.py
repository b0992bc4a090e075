"""The process that runs one LoadGen test: its entry point and its boundary. Started by `supervisor.py`.

It never sees Ctrl-C (its signal mask blocks SIGINT from birth) because LoadGen cannot abort a test: the parent
ends this process instead. If the parent dies, this process ends itself. Whatever goes wrong becomes a message.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from multiprocessing.connection import Connection

from .errors import BadInputError
from .messages import Counters, Failed, Refused, Task
from .timings import Cells


def main(task: Task, counters: Counters, timings: Cells, parent: Connection) -> None:
    """Entry point of the process. counters: one slot per instance; timings: as `timings.Recorder` has them."""
    threading.Thread(target=_end_with_parent, daemon=True, name="watch-parent").start()
    try:
        # Imported here, not above: the parent imports this file to name `main`, and must not pay for the engines.
        from . import one_test

        one_test.run(task, counters, timings, parent)
    except BadInputError as error:
        parent.send(Refused(" ".join(str(error).split()), traceback.format_exc()))
    except Exception as error:  # noqa: BLE001 - the process ends here: whatever it was becomes the parent's to tell
        parent.send(Failed(" ".join(f"{type(error).__name__}: {error}".split()), traceback.format_exc()))


def _end_with_parent() -> None:
    """A parent that was killed cannot end us, and a test without it would run on unseen."""
    parent_process = multiprocessing.parent_process()
    assert parent_process is not None
    parent_process.join()
    os._exit(1)
