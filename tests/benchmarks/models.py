"""What is measured: a convnet, a transformer and a chain of small layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp


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


class Chain(nn.Module):
    """`n` layer norms."""

    n: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.n):
            x = nn.LayerNorm()(x)
        return x


IMAGES = jnp.ones([2, 16, 16, 3])
TOKENS = jnp.ones([2, 8, 32])
VECTORS = jnp.ones([2, 16])
KEY = jax.random.key(0)
