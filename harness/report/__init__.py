"""`loadgen-numba report`: finished runs and benches -> a page, a JSON and a CSV to read, compare and hand around.

`run.py` is the way in, called by `cli`; `records.py` is what a report says, and so the JSON. `sources.py` finds what to
read, `runs.py` and `benches.py` read it with the checks of `parsing.py`; `comparison.py` sets runs beside each other,
with intervals of `intervals.py`; `plots.py` draws, `page.py` renders. Nothing here measures or runs anything, and no
verdict is made here: those are LoadGen's, and what keeps a run from submission was written down when it was made.
"""
