"""What an attribute of a wrapped class gives: a part of a copy, with Haiku's values.

Nobody looks at that copy again. So what writes into one of its Variables, as a part
does that has statistics of its own, is an error."""

from typing import Any
import weakref

from flax import nnx

from hk_bridge import _errors


def guarded(value: Any) -> Any:
    """`value`, whose Variables refuse to be written."""
    if isinstance(value, nnx.Variable):
        _guard(value)
        return value
    for _, part in list(nnx.iter_graph(value)):
        if isinstance(part, nnx.Variable):
            _guard(part)
    return value


def _guard(variable: Any) -> None:
    object.__setattr__(variable, "__class__", _guarded(type(variable)))


_classes: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()


def _guarded(cls: Any) -> type:
    """`cls`, of which no object can be written."""
    if cls not in _classes:

        def set_value(self: Any, value: Any, **kwargs: Any) -> None:
            raise _errors.written_in_copy(cls.__name__)

        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        made = type(cls)(cls.__name__, (cls,), {"set_value": set_value, **names})
        _classes[cls] = made
    return _classes[cls]
