"""Cases of NNX: models as people write them today."""

from typing import Any

from catalogue import array
from catalogue_nnx import case
from flax import nnx
import jax
import jax.numpy as jnp


class Mlp(nnx.Module):
    """As in Flax's guide: a layer, statistics, dropout and a layer."""

    def __init__(self, din: int, dmid: int, dout: int, *, rngs: nnx.Rngs):
        self.linear1 = nnx.Linear(din, dmid, rngs=rngs)
        self.bn = nnx.BatchNorm(dmid, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.linear2 = nnx.Linear(dmid, dout, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.dropout(self.bn(self.linear1(x))))
        return self.linear2(x)


class ResidualBlock(nnx.Module):
    """Two convolutions with BatchNorm, and a projection where the shape changes."""

    def __init__(self, din: int, dout: int, strides: int = 1, *, rngs: nnx.Rngs):
        options: dict[str, Any] = {"use_bias": False, "rngs": rngs}
        self.conv1 = nnx.Conv(din, dout, (3, 3), strides=strides, **options)
        self.conv2 = nnx.Conv(dout, dout, (3, 3), **options)
        self.bn1 = nnx.BatchNorm(dout, momentum=0.9, rngs=rngs)
        self.bn2 = nnx.BatchNorm(
            dout, momentum=0.9, scale_init=nnx.initializers.zeros, rngs=rngs
        )
        self.project = nnx.data(None)
        if din != dout or strides > 1:
            self.project = nnx.Conv(din, dout, (1, 1), strides=strides, **options)

    def __call__(self, x, train=True):
        y = nnx.relu(self.bn1(self.conv1(x), use_running_average=not train))
        y = self.bn2(self.conv2(y), use_running_average=not train)
        return nnx.relu(y + (x if self.project is None else self.project(x)))


class ResNet(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), use_bias=False, rngs=rngs)
        widths = [(4, 4, 1), (4, 8, 2)]
        self.blocks = nnx.List([ResidualBlock(*w, rngs=rngs) for w in widths])
        self.head = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x, train=True):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, train)
        return self.head(x.mean((1, 2)))


# In the manner of Gemma.


def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotary positions, of heads `[B, T, N, H]`; Su et al., 2021."""
    half = x.shape[-1] // 2
    timescale = 10_000.0 ** (jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None, None].astype(jnp.float32)
    angle = angle / timescale[None, None, None]
    one, two = jnp.split(x, 2, axis=-1)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)


class Attention(nnx.Module):
    """Grouped queries with a cache of keys and values."""

    def __init__(
        self, width: int, heads: int, groups: int, dim: int, *, rngs: nnx.Rngs
    ):
        self.heads, self.groups, self.dim = heads, groups, dim
        self.q = nnx.Einsum("btd,ndh->btnh", (heads, width, dim), rngs=rngs)
        self.kv = nnx.Einsum("btd,ckdh->cbtkh", (2, groups, width, dim), rngs=rngs)
        self.out = nnx.Einsum("btnh,nhd->btd", (heads, dim, width), rngs=rngs)
        self.cache = nnx.data(None)

    def init_cache(self, batch: int, length: int) -> None:
        zeros = jnp.zeros((batch, length, self.groups, self.dim))
        self.cache = nnx.Dict(
            k=nnx.Cache(zeros),
            v=nnx.Cache(zeros),
            end=nnx.Cache(jnp.zeros([], jnp.int32)),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, _ = x.shape
        start = 0 if self.cache is None else self.cache.end[...]
        positions = start + jnp.arange(length)[None]
        q = rotate(self.q(x), positions) * self.dim**-0.5
        k, v = self.kv(x)
        k = rotate(k, positions)
        if self.cache is not None:
            k, v = self._cached(k, v)
        q = q.reshape(batch, length, self.groups, -1, self.dim)
        logits = jnp.einsum("btkgh,bskh->btkgs", q, k)
        seen = jnp.arange(k.shape[1])[None] <= positions[0][:, None]
        logits = jnp.where(seen[None, :, None, None], logits, -1e9)
        y = jnp.einsum("btkgs,bskh->btkgh", jax.nn.softmax(logits), v)
        return self.out(y.reshape(batch, length, self.heads, self.dim))

    def _cached(self, k, v):
        end = self.cache.end[...]
        for name, new in (("k", k), ("v", v)):
            held = self.cache[name]
            at = (jnp.zeros_like(end), end, *[jnp.zeros_like(end)] * 2)
            held[...] = jax.lax.dynamic_update_slice(held[...], new, at)
        self.cache.end[...] += k.shape[1]
        return self.cache.k[...], self.cache.v[...]


class DecoderBlock(nnx.Module):
    def __init__(self, width: int, dropout: float, *, rngs: nnx.Rngs):
        self.pre_attention = nnx.RMSNorm(width, rngs=rngs)
        self.attention = Attention(width, heads=4, groups=2, dim=4, rngs=rngs)
        self.pre_mlp = nnx.RMSNorm(width, rngs=rngs)
        self.gate = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, 16, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(16, width, use_bias=False, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x):
        x = x + self.dropout(self.attention(self.pre_attention(x)))
        y = self.pre_mlp(x)
        y = self.down(nnx.gelu(self.gate(y)) * self.up(y))
        return x + self.dropout(y)


class Gemma(nnx.Module):
    """A decoder: tied embedding, blocks, a norm at the end, logits with a soft cap."""

    def __init__(self, words: int, width: int, depth: int, *, rngs: nnx.Rngs):
        self.embedder = nnx.Embed(words, width, rngs=rngs)
        self.layers = nnx.List(
            [DecoderBlock(width, 0.5, rngs=rngs) for _ in range(depth)]
        )
        self.final_norm = nnx.RMSNorm(width, rngs=rngs)
        self.width = width

    def init_cache(self, batch: int, length: int) -> None:
        for layer in self.layers:
            layer.attention.init_cache(batch, length)

    def __call__(self, tokens):
        x = self.embedder(tokens) * self.width**0.5
        for layer in self.layers:
            x = layer(x)
        logits = self.embedder.attend(self.final_norm(x))
        return jnp.tanh(logits / 30.0) * 30.0


class ScannedGemma(nnx.Module):
    """The same blocks, stacked and scanned, each step computed anew for gradients."""

    def __init__(self, words: int, width: int, depth: int, *, rngs: nnx.Rngs):
        self.embedder = nnx.Embed(words, width, rngs=rngs)

        @nnx.split_rngs(splits=depth)
        @nnx.vmap
        def blocks(rngs):
            return DecoderBlock(width, 0.5, rngs=rngs)

        self.layers = blocks(rngs)

    def __call__(self, tokens):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        @nnx.remat
        def run(layer, x):
            return layer(x)

        return self.embedder.attend(run(self.layers, self.embedder(tokens)))


def decoding(rngs: nnx.Rngs) -> Gemma:
    """With a cache, and without dropout."""
    model = Gemma(7, 8, 2, rngs=rngs)
    model.eval()
    model.init_cache(2, 6)
    return model


def gemma(rngs: nnx.Rngs) -> Gemma:
    return Gemma(7, 8, 2, rngs=rngs)


def lora_mlp(rngs: nnx.Rngs) -> Mlp:
    """A model in which the layers got LoRA beside them, once it was trained."""
    model = Mlp(4, 8, 3, rngs=rngs)
    for path, layer in list(nnx.iter_modules(model)):
        if isinstance(layer, nnx.Linear):
            rank = {"lora_rank": 2, "b_initializer": nnx.initializers.normal(1.0)}
            shape = layer.in_features, layer.out_features
            lora = nnx.LoRA(
                shape[0], out_features=shape[1], **rank, base_module=layer, rngs=rngs
            )
            setattr(model, path[0], lora)
    return model


def evaluated(model: nnx.Module) -> nnx.Module:
    """The model as a view in which nothing is random."""
    if not hasattr(nnx, "view"):  # of Flax 0.12.2
        model.eval()
        return model
    return nnx.view(model, deterministic=True, use_running_average=True)


TOKENS = jnp.array([[0, 2, 1, 6], [4, 1, 3, 3]])
TRAIN = {"train": {"train": True}, "test": {"train": False}}
DROPOUT = {"streams": ("dropout",)}

CASES = [
    case("nnx_mlp", lambda rngs: Mlp(4, 8, 3, rngs=rngs), **DROPOUT),
    case("nnx_mlp_view", lambda rngs: evaluated(Mlp(4, 8, 3, rngs=rngs))),
    case(
        "nnx_res_net",
        lambda rngs: ResNet(rngs=rngs),
        (array(2, 6, 6, 3),),
        **TRAIN,
        values="statistics over several steps",
    ),
    case("nnx_gemma", gemma, (TOKENS,), **DROPOUT),
    case("nnx_gemma_prefill", decoding, (TOKENS[:, :3],), values="a cache"),
    case("nnx_gemma_decode", decoding, (TOKENS[:, :1],), values="a cache"),
    case(
        "nnx_gemma_scan",
        lambda rngs: ScannedGemma(7, 8, 3, rngs=rngs),
        (TOKENS,),
        **DROPOUT,
    ),
    case("nnx_lora_mlp", lora_mlp, **DROPOUT),
]
