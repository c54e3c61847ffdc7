"""Modules and uses of them that Hypothesis composes, held to the laws of the bridge.

`spec` says what a program is and draws one, from the features in `pieces`, `layers` and
`lifted`; `render` writes it as Python. The laws are in `flax_laws`, `haiku_laws`,
`wrap_laws` and `cost_laws`; `laws` has what they may be asked. They run a program as
`uses` and `hooks` say, beside native Flax (`compare`) or a `twin` of plain Haiku
modules. `search` draws, runs and counts, and `reduce` makes a failure small. Faults
that are known are in `known`, each with a program in `found`.

`python -m tests.generate --help` says how to search on. A fault that was mended leaves
`known` and `found`.
"""
