"""Values and calls in one line, as the texts of modules show them.

Arrays are shown by their shapes, whatever holds them, and nothing is compared by `==`
but what is known to have a plain one: it may raise, or give an array."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import functools
import itertools
import types
from typing import Any
from typing import NamedTuple

import jax
import numpy as np


class Built(NamedTuple):
    """How a value was built: the line that builds it, in parts."""

    title: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


Knows = Callable[[Any], Built | None]  # how a value was built, if that is known

# Types whose instances can be compared, and shown whole.
_PLAIN = (bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType)
_BRACKETS: dict[Any, str] = {tuple: "(", list: "[", set: "{", frozenset: "{"}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_MOST_ITEMS, _MOST_LEVELS, _MOST_LETTERS = 32, 12, 80


def equal(one: Any, two: Any, knows: Knows) -> bool:
    """Whether two values are known to be equal.

    >>> equal((1, "a"), (1, "a"), built), equal(1, 1.0, built)
    (True, False)
    >>> equal(np.ones(2), np.ones(2), built)
    False
    """
    try:
        return _equal(one, two, knows)
    except Exception:  # of a container's own
        return False


def _equal(one: Any, two: Any, knows: Knows) -> bool:
    if one is two:
        return True
    if type(one) is not type(two):
        return False
    known = knows(one), knows(two)
    if known[0] is not None:
        return _equal(known[0][1:], (known[1] or ())[1:], knows)
    if type(one) in (tuple, list):
        pairs = itertools.zip_longest(one, two, fillvalue=_NOTHING)
        return all(_equal(a, b, knows) for a, b in pairs)
    if isinstance(one, Mapping):
        return _equal(tuple(one.items()), tuple(two.items()), knows)
    return type(one) in _PLAIN and bool(one == two)


_NOTHING = object()


def short(value: Any, knows: Knows, level: int = 0) -> str:
    """`value` in one line.

    >>> short({"a": (np.ones([2, 3]), 1)}, built)
    "{'a': (float64[2,3], 1)}"
    >>> short(functools.partial(jax.numpy.add, 1), built)
    'partial(add, 1)'
    """
    try:
        if level > _MOST_LEVELS:
            return "..."
        known = knows(value) or built(value)
        if known is not None:
            return call(known, knows, level + 1)
        if isinstance(value, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
            return f"{value.dtype}[{','.join(map(str, value.shape))}]"
        if type(value) in _PLAIN:
            return repr(value)
        if type(value) in _BRACKETS:
            left = _BRACKETS[type(value)]
            comma = "," if type(value) is tuple and len(value) == 1 else ""
            items = (short(item, knows, level + 1) for item in value)
            return f"{left}{_joined(items)}{comma}{_CLOSING[left]}"
        if isinstance(value, Mapping):
            pairs = (
                f"{short(k, knows, level + 1)}: {short(v, knows, level + 1)}"
                for k, v in value.items()
            )
            return f"{{{_joined(pairs)}}}"
        return _other(value)
    except Exception:  # of the value's own; a text is no place to raise it
        return f"<{type(value).__name__}>"


def call(line: Built, knows: Knows, level: int = 0) -> str:
    """The line that builds something.

    >>> call(Built("Net", (3,), {"name": "a"}), built)
    "Net(3, name='a')"
    """
    named = (f"{name}={short(v, knows, level)}" for name, v in line.kwargs.items())
    items = (short(arg, knows, level) for arg in line.args)
    return f"{line.title}({_joined(itertools.chain(items, named))})"


def built(value: Any) -> Built | None:
    """How partial functions, named tuples and dataclasses were built."""
    title = type(value).__name__
    if isinstance(value, functools.partial):
        return Built(title, (value.func, *value.args), value.keywords)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return Built(title, (), dict(zip(value._fields, value, strict=True)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.repr]
        return Built(title, (), {name: getattr(value, name, None) for name in names})
    return None


def _joined(items: Iterable[str]) -> str:
    """The items up to a number of them."""
    shown = list(itertools.islice(items, _MOST_ITEMS + 1))
    return ", ".join([*shown[:_MOST_ITEMS], *["..."] * (len(shown) > _MOST_ITEMS)])


def _other(value: Any) -> str:
    """The name of a function, or what an object says of itself if that is short."""
    name = getattr(value, "__name__", None)
    if callable(value) and isinstance(name, str):
        return name
    text = repr(value)
    is_short = len(text) <= _MOST_LETTERS and "\n" not in text
    return text if is_short else f"<{type(value).__name__}>"
