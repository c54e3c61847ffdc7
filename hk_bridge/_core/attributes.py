"""What a `FlaxModule` lacks and its Flax module has: what to write for it."""

import inspect
from typing import Any

from hk_bridge import _errors
from hk_bridge import _flax


def missing(owner: str, module: Any, name: str) -> AttributeError:
    """The error for an attribute of a `FlaxModule` that there is not.

    Args:
      module: the Flax module, or None if there is none yet.
    """
    cls = type(module)
    what, wrapped = "", wrapper(cls)
    if module is None or name.startswith("_"):
        return _errors.no_attribute(owner, name, "", what, wrapped)
    found = inspect.getattr_static(module, name, None)
    if found is not None:
        is_method = inspect.isroutine(found) or hasattr(found, "__wrapped__")
        what = "method" if is_method else "field"
    elif name == "initial_state" and _flax.is_cell(cls):
        what = "cell"
    elif "setup" in vars(cls):
        what = "submodule"
    return _errors.no_attribute(owner, name, _errors.of_linen(cls), what, wrapped)


def wrapper(cls: type) -> str:
    """How the Haiku class of a Flax class is written."""
    if getattr(_flax.linen, cls.__name__, None) is cls:
        return f"hk_bridge.nn.{cls.__name__}"
    return f"hk_bridge.wrap({cls.__name__})"
