"""How a layer of Haiku is built, and of which leaves of Flax."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

Turn = Callable[[Any], Any]  # of one leaf
same: Turn = lambda leaf: leaf


def _all(*leaves: Any) -> tuple[Any, ...]:
    return leaves


class Move(NamedTuple):
    """Some leaves of Haiku that are made of some leaves of Flax, and back."""

    haiku: Sequence[str]  # `w` or `linear/w`, below the layer
    flax: Sequence[str]  # `params/kernel`
    to_haiku: Callable[..., tuple[Any, ...]] = _all
    to_flax: Callable[..., tuple[Any, ...]] = _all

    @property
    def is_state(self) -> bool:
        return not self.flax[0].startswith("params/")

    def addresses(self, name: str) -> list[tuple[str, str]]:
        """The module name and leaf name of each leaf of Haiku."""
        names = [f"{name}/{leaf}".rpartition("/") for leaf in self.haiku]
        return [(module_name, leaf) for module_name, _, leaf in names]


class Plan(NamedTuple):
    """How a layer is built, from which leaves, and how it is called.

    `inputs` are inputs of the linen layer for which it makes leaves of these sizes.
    """

    arguments: Mapping[str, Any]
    moves: Sequence[Move]
    inputs: Sequence[Any]
    call: str = "x"
    call_arguments: Mapping[str, Any] = {}


def each(function: Turn) -> Callable[..., tuple[Any, ...]]:
    return lambda *leaves: tuple(map(function, leaves))


def shaped(shape: Sequence[int]) -> Turn:
    """A reshape, which leaves alone what has the shape."""
    shape = tuple(shape)
    return lambda leaf: leaf if leaf.shape == shape else leaf.reshape(shape)


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
