"""Packages that need not be installed, imported where they are used."""

import importlib
from typing import Any

_EXTRA = "'hk_bridge[checkpoint]'"
_LINES = {"fsspec": "fsspec"}  # and what it says itself, for gs:// and the like


def extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"hk_bridge.migrate needs {name.partition('.')[0]} for this, which is "
            f"not installed. Write pip install {_LINES.get(name, _EXTRA)}.",
            name=error.name,
        ) from error
