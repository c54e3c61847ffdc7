"""What is measured of NNX: chains of layers, and a transformer, natively and bridged.

Natively, the module is split and merged inside the transform, as who moves NNX into
Haiku by hand writes it."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp

import hk_bridge

KEY = jax.random.key(0)
TOKENS = jnp.ones([2, 8, 32])


class Chain(nnx.Module):
    """`n` linear layers."""

    def __init__(self, n: int, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(32, 32, rngs=rngs) for _ in range(n)])

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.attend = nnx.LayerNorm(32, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 32, decode=False, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.up = nnx.Linear(32, 128, rngs=rngs)
        self.down = nnx.Linear(128, 32, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        x += self.attention(self.attend(x))
        return x + self.dropout(self.down(nnx.gelu(self.up(self.norm(x)))))


class Transformer(nnx.Module):
    """Blocks with state and dropout."""

    def __init__(self, n: int, rngs: nnx.Rngs):
        self.blocks = nnx.List([Block(rngs) for _ in range(n)])

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def native(module: nnx.Module) -> tuple[Callable[..., Any], Any]:
    """`apply` by hand, of the module's state and of an input: output and new state."""

    def apply(state: Any, x: Any) -> Any:
        graphdef, _ = nnx.split(module)
        merged = nnx.merge(graphdef, state, copy=True)
        y = merged(x)
        return (y, nnx.state(merged, nnx.BatchStat)) if stateful else y

    stateful = bool(nnx.to_flat_state(nnx.state(module, nnx.BatchStat)))
    return apply, nnx.split(module)[1]


def bridged(make: Callable[[], Any], key: Any) -> tuple[Callable[..., Any], Any]:
    """`apply` of a transform, of params and state, and an input.

    Args:
      key: of Haiku; None where nothing is random natively.
    """
    f = hk.transform_with_state(lambda x: make()(x))
    params, state = f.init(KEY, TOKENS)
    return lambda trees, x: f.apply(*trees, key, x), (params, state)


def cases(lengths: tuple[int, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each case, and its sides: a function and what it is of."""
    made = [(f"NNX, {n} Linear", Chain, n) for n in lengths]
    for name, cls, n in (*made, ("NNX, 6 blocks", Transformer, 6)):
        instance, wrapped = cls(n, nnx.Rngs(0)), hk_bridge.wrap(cls)
        key = KEY if cls is Transformer else None
        yield (
            name,
            {
                "flax": native(instance),
                "hk_bridge": bridged(lambda i=instance: hk_bridge.FlaxModule(i), key),
                "wrap": bridged(lambda w=wrapped, n=n: w(n), key),
            },
        )
