"""For each fault that is known, a small program that the search found to have it.

Written by `python -m tests.generate --pin tests/generate/found.py`, and `ruff format`.
The search does not look at them: they tell when a fault is mended."""

from .spec import Block
from .spec import Part
from .spec import Program

FOUND: dict[str, Program] = {}
