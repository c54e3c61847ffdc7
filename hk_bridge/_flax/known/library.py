"""What belongs to a library, and is taken to stay as it is."""

from collections.abc import Iterable
import sys
import types
from typing import Any
from typing import Protocol
import weakref

_STABLE = frozenset([
    "abc", "builtins", "collections", "copy", "dataclasses", "enum", "functools",
    "inspect", "itertools", "logging", "math", "numbers", "operator", "re", "string",
    "types", "typing", "warnings", "chex", "distrax", "einops", "flax", "haiku",
    "hk_bridge", "jax", "jaxlib", "jmp", "ml_dtypes", "numpy", "optax", "scipy",
    "tensorflow_probability",
    "_pytest",  # which it writes into code that asserts
])  # fmt: skip
# Their functions tell of the thread, or of the calls before.
CHANGING = ("haiku._src.mixed_precision",)
# By these, code reaches attributes that it does not mention.
REFLECTING = frozenset([
    "__getattribute__", "attrgetter", "methodcaller", "getmembers",
    "getmembers_static", "getattr_static", "asdict", "astuple",
])  # fmt: skip
MISSING: Any = object()
ref = weakref.ref


class Unknown(Exception):
    """It is not known to be a value."""


class Ask(Protocol):
    """One asking for a key, for its parts.

    Attributes:
      seen: numbers the functions and classes met, by id: they may be cyclic.
      watched: code that mentions one of these names has no key; with a module before
        it, code that reaches what is so called.
    """

    seen: dict[int, int]
    watched: frozenset[str]

    def key(self, value: Any) -> Any:
        """The key of a value."""

    def constant(self, value: Any) -> Any:
        """The key of what code reaches by a global name, or of a class."""

    def pairs(self, items: Iterable[tuple[Any, Any]]) -> Any:
        """The keys of these pairs, in order."""


def is_stable(module: Any) -> bool:
    """Whether the name of a module is of a library that is taken to stay as it is."""
    return isinstance(module, str) and module.partition(".")[0] in _STABLE


# Keeps alive what is a constant of its library.
_officials: dict[int, Any] = {}


def is_official(value: Any) -> bool:
    """Whether a stable library has `value` under its own name."""
    if id(value) in _officials:
        return True
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not is_stable(module) or type(name) is not str:
        return False
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        return False
    _officials[id(value)] = value
    return True


def official_key(value: Any, ask: Ask) -> Any:
    """By identity: equality may be coarse, as that of `jnp.float32`."""
    if not ask.watched.isdisjoint((getattr(value, "__name__", None), full_name(value))):
        raise Unknown  # by another name than its own
    return "of a library", id(value)  # which stays its own, as it is kept alive


def full_name(value: Any) -> str:
    """How a function or class is called, with its module.

    >>> full_name(is_stable)
    'hk_bridge._flax.known.library.is_stable'
    """
    parts = (getattr(value, name, "") for name in ("__module__", "__qualname__"))
    return ".".join(map(str, parts))


def is_stable_code(function: types.FunctionType) -> bool:
    """Whether the global names of `function` are those of a module of a library."""
    names = function.__globals__
    if id(names) in _officials:
        return True
    name = names.get("__name__")
    module: Any = sys.modules.get(str(name)) if is_stable(name) else None
    if getattr(module, "__dict__", None) is not names:
        return False
    _officials[id(names)] = names
    return True


def named(cls: type) -> Any:
    """A class of which only the name matters, being a library's or Python's."""
    if not is_official(cls):
        return ref(cls)
    return "of a library", id(cls)
