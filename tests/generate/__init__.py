"""Modules and uses of them that Hypothesis composes, held to the laws of the bridge.

`spec` says what a program is and draws one, from the features in `pieces`, `layers` and
`lifted`. `render` writes it as Python. `flax_laws` and `haiku_laws` hold the laws, on
the `cases`, `uses` and `hooks` that a program names. `known` lists the faults that are
known, `search` runs it all. `python -m tests.generate --help` says how to search on.
"""
