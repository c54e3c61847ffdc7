"""What a generated program is written with: leaves, helpers, and the case itself."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any
from typing import NamedTuple

import chex
from flax import nnx
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

LOG: list[Any] = []  # what the code of a module saw in this call
X = jnp.linspace(0.0, 1.0, 8).reshape(2, 4)
KEY = jax.random.key(0)


class Settings:
    """What changes between calls: `width` and `shift` are globals to a module."""

    def __init__(self, width: int = 4, shift: float = 0.5):
        self.width, self.shift = width, shift


SETTINGS = Settings()


class Two(NamedTuple):
    left: Any
    right: Any


@flax.struct.dataclass
class Struct:
    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Data:
    left: Any
    right: Any


@chex.dataclass
class Chex:  # which is a Mapping, too
    left: Any
    right: Any


class Count(nnx.Variable[Any]):
    """A kind of variable of its own."""


class Filled:
    """An initialiser that is an object, with settings that may change."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __call__(self, key: Any) -> Any:
        return jnp.ones([self.settings.width])

    def method(self, key: Any) -> Any:
        return jnp.zeros([self.settings.width])


def doubled(function: Any) -> Any:
    """`function` with a decorator."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return function(*args) * 2.0

    return run


class Shifted:
    """An object with a method that a module may be given as a function."""

    def __init__(self, shift: float):
        self.shift = shift

    def method(self, x: Any) -> Any:
        return x + self.shift

    @doubled
    def decorated(self, x: Any) -> Any:
        return x + self.shift

    def __call__(self, x: Any) -> Any:
        return self.method(x)


SHIFTED = Shifted(0.5)
FILLED = Filled(SETTINGS)
TABLE = {"a": 0.5}


def set_shift(shift: float) -> None:
    """Changes what modules may look at: a global, an object, a dict."""
    SETTINGS.shift = SHIFTED.shift = TABLE["a"] = shift


class Label(str):
    """A string that says more than its characters."""

    shift = 0.0


def label(text: str, shift: float) -> Label:
    made = Label(text)
    made.shift = shift
    return made


def arrays(tree: Any) -> list[Any]:
    """The numeric arrays in `tree`."""
    found = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return [a for a in found if not jnp.issubdtype(a.dtype, jax.dtypes.extended)]


def is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def total(tree: Any) -> Any:
    """One number that depends on all of `tree`."""
    return sum((jnp.sum(a.astype(jnp.float32)) for a in arrays(tree)), jnp.zeros([]))


def bump(tree: Any) -> Any:
    """`tree` one higher."""

    def up(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype"):
            return leaf + 1
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            # Another key, or nothing tells that it was written.
            return jnp.vectorize(jax.random.fold_in)(leaf, jnp.ones([], int))
        if leaf.dtype == bool:
            return ~leaf
        return leaf + jnp.ones([], leaf.dtype)

    return jax.tree.map(up, tree)


def zeros(spec: Any) -> Any:
    """An array of this shape and type."""
    if jnp.issubdtype(spec.dtype, jax.dtypes.extended):
        return jnp.broadcast_to(jax.random.key(0), spec.shape)
    return jnp.zeros(spec.shape, spec.dtype)


def paths(tree: Any) -> tuple[str, ...]:
    """Where the leaves of `tree` are."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return tuple(jax.tree_util.keystr(path) for path, _ in found)


def see(*what: Any) -> None:
    """Notes what a module sees."""
    LOG.append(what)


class FailsNatively(Exception):
    """Flax's own init raises: the law has nothing to say."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A module and how to run it.

    Attributes:
      make: `make(train, variant)` builds the module.
      streams: the keys that it may ask for.
      sown: collections that live for one call.
      method: what to run.
      asks_haiku: whether its code needs a Haiku transform around it.
      nnx: the NNX class of which `make` builds a linen module, if it is one.
    """

    make: Callable[..., nn.Module]
    streams: tuple[str, ...] = ("dropout", "noise")
    sown: tuple[str, ...] = ()
    method: Any = None
    asks_haiku: bool = False
    nnx: Any = None

    @property
    def natively(self) -> dict[str, Any]:
        """How Flax is told what to run."""
        if self.nnx is None or self.method is None:
            return {"method": self.method}
        return {"nnx_method": self.method}

    def rngs(self, init: bool = False) -> dict[str, Any]:
        names = (*(("params",) if init else ()), *self.streams)
        return {s: jax.random.fold_in(KEY, i) for i, s in enumerate(names)}

    @functools.cached_property
    def specs(self) -> Any:
        """The variables as shapes, boxes closed, without what is sown."""
        init = lambda rngs: self.make().init(rngs, X, **self.natively)
        try:
            made = jax.eval_shape(init, self.rngs(init=True))
        except Exception as error:
            raise FailsNatively from error
        return {c: tree for c, tree in made.items() if c not in self.sown}
