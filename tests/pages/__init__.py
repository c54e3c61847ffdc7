"""What the site is made of; `python -m tests.pages` makes it."""

import importlib
import pathlib
import sys

# The catalogue and the laws import each other by their bare names, as under pytest.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
importlib.import_module("conftest")  # strict JAX, before any array is made
