"""A network of a published package, and how to run it."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import importlib.metadata
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Linen:
    """A linen module and its call.

    Attributes:
      module: what is bridged.
      args: positional inputs.
      kwargs: keyword inputs.
    """

    module: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Nnx:
    """An NNX module and its call.

    Attributes:
      module: what is bridged, an instance.
      args: positional inputs.
      kwargs: keyword inputs.
    """

    module: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Haiku:
    """A transformed Haiku network and its call.

    Attributes:
      network: its init and apply.
      args: positional inputs.
      layers: what takes the place of layers that the package has made itself, as in
        `packages_swap.LAYERS`.
    """

    network: hk.TransformedWithState
    args: tuple[Any, ...]
    layers: Mapping[type, Callable[..., Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of a package.

    Attributes:
      package: its name in the index.
      network: in a few words.
      make: builds it, and imports the package.
      fault: of the bridge, in words, if it fails there.
    """

    package: str
    network: str
    make: Callable[[], Linen | Nnx | Haiku]
    fault: str | None = None

    def __str__(self) -> str:
        return f"{self.package}: {self.network}"

    @property
    def version(self) -> str | None:
        """That is installed, if one is."""
        return installed(self.package)


class Catalogue(list[Case]):
    """Cases, each written as a function that builds the network."""

    def of(self, package: str, network: str, fault: str | None = None) -> Any:
        """A decorator that adds a case."""

        def add(make: Callable[[], Linen | Nnx | Haiku]) -> Any:
            self.append(Case(package, network, make, fault))
            return make

        return add


def installed(package: str) -> str | None:
    """The version of a package, if it is installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def floats(*shape: int, seed: int = 0) -> jax.Array:
    """Some input, neither symmetric nor zero."""
    return jax.random.normal(jax.random.key(seed), shape)


def ints(*shape: int, below: int, seed: int = 0) -> jax.Array:
    """Some ids."""
    return jax.random.randint(jax.random.key(seed), shape, 0, below)


def ring(size: int) -> tuple[jax.Array, jax.Array]:
    """The senders and receivers of a graph in which each node has two neighbours."""
    nodes = jnp.arange(size)
    senders = jnp.concatenate([nodes, nodes])
    return senders, jnp.concatenate([(nodes + 1) % size, (nodes - 1) % size])
