"""How another way to bring Flax modules into Haiku does under the same laws."""

import importlib
import pathlib
import sys

# The laws import their catalogue by its bare name, as pytest lets them.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
importlib.import_module("conftest")  # strict JAX, before any array is made
