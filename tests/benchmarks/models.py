"""What is measured: a convnet, a transformer, small layers, and models by others."""

from collections.abc import Callable
from collections.abc import Iterator
import pathlib
import sys
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp

_PACKAGES = pathlib.Path(__file__).parents[1] / "downstream" / "packages"


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        y = nn.Conv(16, (3, 3), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train)(y))
        y = nn.Conv(16, (3, 3), use_bias=False)(y)
        return nn.relu(x + nn.GroupNorm(4)(y))


class ConvNet(nn.Module):
    """Eight residual blocks with BatchNorm and GroupNorm."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(16, (3, 3))(x)
        for _ in range(8):
            x = Residual()(x, train)
        return nn.Dense(10)(x.mean((1, 2)))


class Block(nn.Module):
    width: int = 32

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x += nn.MultiHeadDotProductAttention(num_heads=4)(y)
        y = nn.Dense(4 * self.width)(nn.LayerNorm()(x))
        return x + nn.Dense(self.width)(nn.gelu(y))


class Transformer(nn.Module):
    """Blocks of attention and a perceptron."""

    layers: int = 6

    @nn.compact
    def __call__(self, x):
        for _ in range(self.layers):
            x = Block()(x)
        return nn.LayerNorm()(x)


class EncoderBlock(nn.Module):
    """A block of a vision transformer."""

    rate: float = 0.1

    @nn.compact
    def __call__(self, x, train):
        drop = lambda: nn.Dropout(self.rate, deterministic=not train)
        y = nn.LayerNorm()(x)
        y = nn.MultiHeadDotProductAttention(
            4, dropout_rate=self.rate, deterministic=not train
        )(y)
        x += drop()(y)
        y = drop()(nn.gelu(nn.Dense(64)(nn.LayerNorm()(x))))
        return x + drop()(nn.Dense(x.shape[-1])(y))


class ViT(nn.Module):
    """Its encoder, with dropout."""

    layers: int

    @nn.compact
    def __call__(self, x, train):
        shape = (1, *x.shape[1:])
        x += self.param("position", nn.initializers.normal(0.02), shape)
        for i in range(self.layers):
            x = EncoderBlock(name=f"encoderblock_{i}")(x, train)
        return nn.LayerNorm()(x)


class HaikuBlock(hk.Module):
    """The block of `Transformer`, of Haiku's own layers."""

    def __call__(self, x):
        init = hk.initializers.VarianceScaling(1.0)
        norm = lambda: hk.LayerNorm(-1, True, True)
        y = norm()(x)
        x += hk.MultiHeadAttention(4, 8, w_init=init, model_size=32)(y, y, y)
        y = hk.Linear(128)(norm()(x))
        return x + hk.Linear(32)(jax.nn.gelu(y))


class Chain(nn.Module):
    """`n` layer norms."""

    n: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.n):
            x = nn.LayerNorm()(x)
        return x


class Step(Block):
    """A block for `nn.scan`."""

    @nn.compact
    def __call__(self, x, _=None):
        return super().__call__(x), None


class Stack(nn.Module):
    """Six equal modules."""

    of: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, x):
        for _ in range(6):
            x = self.of()(x)
        return x


class Scanned(nn.Module):
    """Six blocks in one `nn.scan`."""

    @nn.compact
    def __call__(self, x):
        each = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        return nn.scan(Step, length=6, **each)()(x)[0]


class Closure(nn.Module):
    """Parameters whose initialisers close over an array."""

    @nn.compact
    def __call__(self, x):
        w = jnp.eye(x.shape[-1])
        for i in range(4):
            x = x @ self.param(f"kernel_{i}", lambda key: w)
        return x


_SHARED = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
# With what tracing apply and init is to cost at most.
KINDS = {
    "six blocks": (Stack(Block), 0.75, 1.0),
    "six blocks in nn.remat": (Stack(nn.remat(Block)), 0.75, 1.0),
    "six blocks in nn.vmap": (Stack(nn.vmap(Block, **_SHARED)), 0.75, 1.0),
    "six blocks, one nn.scan": (Scanned(), 0.75, 1.0),
    "six, lambda key: w": (Stack(Closure), 1.0, 1.0),
}
# Of packages that install fast.
BY_OTHERS = ("flaxmodels: ResNet18", "e3x: message passing", "evosax: EvoTransformer")


def by_others() -> Iterator[tuple[str, Any]]:
    """Models of packages, where installed: module, args, kwargs. Else None."""
    sys.path.append(str(_PACKAGES))
    from packages_flax import CASES

    for case in CASES:
        if str(case) in BY_OTHERS:
            yield str(case), case.make() if case.version else None


IMAGES = jnp.ones([2, 16, 16, 3])
TOKENS = jnp.ones([2, 8, 32])
VECTORS = jnp.ones([2, 16])
KEY = jax.random.key(0)
