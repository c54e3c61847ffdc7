"""Haiku's initialisers in the places of Flax's."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import inspect
from typing import Any

import jax.numpy as jnp

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku


class Initializer(_flax.Drawing):
    """A Haiku initialiser as Flax calls its own: `(key, shape, dtype)`.

    Two are equal if they are of one initialiser, or of two of Haiku's own with equal
    numbers."""

    def __init__(self, haiku: Callable[..., Any]):
        self.haiku = haiku

    def __call__(self, key: Any, shape: Any, dtype: Any = jnp.float32) -> Any:
        """The initial value; without a key, `(shape, dtype)`, as in Haiku."""
        if _is_shape(key):
            return self.haiku(key, shape)
        return _haiku.initialize(self.haiku, key, shape, dtype)

    def draws(self, shape: Any, dtype: Any = jnp.float32) -> bool:
        return _haiku.draws(self.haiku, shape, dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Initializer):
            return NotImplemented
        return _haiku.identity(self.haiku) == _haiku.identity(other.haiku)

    def __hash__(self) -> int:
        return hash(_haiku.identity(self.haiku))

    def __repr__(self) -> str:
        return f"initializer({_errors.named(self.haiku)})"


def initializer(w: Callable[..., Any]) -> Initializer:
    """A Haiku initialiser as Flax's modules take it, for a Flax module of your own.

    The classes of `hk_bridge.nn`, and those that `wrap` makes, take Haiku's
    initialisers as they are.

    Args:
      w: of `hk.initializers`, or any function `(shape, dtype)`. The Haiku keys that it
        draws come from the key that Flax gives.

    Returns:
      A function `(key, shape, dtype)`, which works in native Flax, too: its value is
      that of `hk.transform(lambda: w(shape, dtype)).apply({}, key)`.

    Raises:
      TypeError: `w` is Flax's already, a class, or no function.

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> small = initializer(hk.initializers.RandomNormal(1e-2))
    >>> dense = nn.Dense(3, kernel_init=small)
    >>> variables = dense.init(jax.random.key(0), jnp.ones([1, 2]))
    >>> bool(jnp.abs(variables["params"]["kernel"]).max() < 0.05)
    True
    """
    if isinstance(w, Initializer):
        return w
    if isinstance(w, type) or not callable(w):
        raise _errors.no_initializer(w)
    if _is_flaxs(w):
        raise _errors.flax_initializer(w)
    return Initializer(w)


def taken(cls: Any, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """The arguments of a Flax class, with Haiku's initialisers in the form of Flax's.

    They are known by what they are: an instance of a class of `hk.initializers`, or
    what can be called with two arguments, the first of which is `shape`. Flax's own
    classes give a key, a shape and a dtype, so there one whose arguments have other
    names is known, too, if it takes no third. All else is Flax's."""
    official = cls.__module__.partition(".")[0] == "flax"

    def take(name: str, value: Any) -> Any:
        if not _is_for_initializers(name) or not callable(value):
            return value
        if _haiku.is_class_of_haiku(value):
            raise _errors.no_initializer(value)
        return Initializer(value) if is_haikus(value, official) else value

    names = list(inspect.signature(cls.__init__).parameters)[1:]
    named = [*names[: len(args)], *[""] * (len(args) - len(names))]
    args = tuple(map(take, named, args))
    return args, {name: take(name, value) for name, value in kwargs.items()}


def _is_for_initializers(name: str) -> bool:
    return not {"init", "initializer", "initialiser"}.isdisjoint(name.split("_"))


def is_haikus(value: Any, official: bool = False) -> bool:
    """Whether `value` is a Haiku initialiser, and none of Flax.

    Args:
      official: Flax's own code calls it, with a key, a shape and a dtype.
    """
    if _haiku.is_of_haiku(value):
        return True
    names = _names(value)
    if names is None or not _binds(value, 2):
        return False
    return names[0] == "shape" or (official and not _binds(value, 3))


def _is_flaxs(value: Any) -> bool:
    """Whether `value` is known to want a key."""
    names = _names(value) or [""]
    return names[0] in ("key", "rng") or (_binds(value, 3) and not _binds(value, 2))


def _names(value: Any) -> list[str] | None:
    """The names of the arguments, if they are known and there are any."""
    try:
        return list(inspect.signature(value).parameters) or None
    except (TypeError, ValueError):
        return None


def _binds(value: Any, count: int) -> bool:
    """Whether `value` can be called with so many arguments."""
    try:
        inspect.signature(value).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


def _is_shape(value: Any) -> bool:
    """Whether `value` is a shape, and so no key."""
    return isinstance(value, (int, Sequence))
