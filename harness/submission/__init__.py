"""From finished runs to a submission: compliance tests, packaged tree, checks of the tree.

Knows LoadGen's logs and MLCommons' rules, which differ by round (`rounds.py`); starts no inference itself.
"""
