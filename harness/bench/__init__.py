"""Speed, judged fairly: our engine and its peers take turns on the same CPUs, and only ratios within a round count.

`run.py` is the way in, called by `cli`; `record.py` documents the JSON that is written. Nothing here knows
LoadGen or images.

Every engine lives in a process of its own (`worker.py`) that is pinned before the engine is opened. The processes of
one row stay open together; the parent (`rounds.py`) tells one at a time to run for a slice of time while the others
wait in a blocking read of a pipe, where spinning worker threads of theirs go to sleep within milliseconds. How much CPU
time they took all the same is measured and recorded.
"""
