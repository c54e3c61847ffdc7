"""Packages that need not be installed, imported where they are used."""

import importlib
from typing import Any


def extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"hk_bridge.migrate needs {name.partition('.')[0]} for this, which is "
            "not installed. Write pip install 'hk_bridge[checkpoint]'.",
            name=error.name,
        ) from error
