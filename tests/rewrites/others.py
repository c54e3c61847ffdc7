"""Transformers, an LSTM, a VAE and an Evoformer-like block, in Flax and in Haiku.

Mistakes are planted in Haiku."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp

from .pairs import Pair
from .pairs import Planted

TOP = r"|Flax\w+"  # the network itself, and no layer of it
INIT = hk.initializers.VarianceScaling(1.0)


def tokens(*shape, most=11):
    return jax.random.randint(jax.random.key(5), shape, 0, most)


def norm(wrong="", name=None):
    eps = 1e-5 if wrong == "epsilon" else 1e-6
    return hk.LayerNorm(-1, True, wrong != "missing offset", eps=eps, name=name)


# A transformer, as in dm-haiku's examples, and a ViT.


class FlaxBlock(nn.Module):
    """Pre-norm attention and two dense layers."""

    heads: int
    causal: bool

    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm(name="norm_1")(x)
        mask = nn.make_causal_mask(x[..., 0]) if self.causal else None
        attention = nn.MultiHeadDotProductAttention(self.heads, name="attention")
        x = x + attention(h, mask=mask)
        h = nn.LayerNorm(name="norm_2")(x)
        h = nn.Dense(4 * x.shape[-1], name="wide")(h)
        h = nn.gelu(h, approximate=True)
        return x + nn.Dense(x.shape[-1], name="narrow")(h)


class FlaxTransformer(nn.Module):
    size: int = 16
    layers: int = 3

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, self.size, name="embed")(tokens)
        shape = (1, 12, self.size)
        x += self.param("positions", nn.initializers.normal(), shape)[:, : x.shape[1]]
        for i in range(self.layers):
            x = FlaxBlock(4, True, name=f"block_{i}")(x)
        x = nn.LayerNorm(name="norm")(x)
        return nn.Dense(11, name="logits")(x)


class Block(hk.Module):
    def __init__(self, heads, causal, wrong, name):
        super().__init__(name=name)
        self.heads, self.causal, self.wrong = heads, causal, wrong

    def attend(self, h):
        wrong, size = self.wrong, h.shape[-1]
        heads = 2 * self.heads if wrong == "head size" else self.heads
        mask = None
        if self.causal:
            shift = 1 if wrong == "mask" else 0
            mask = jnp.tril(jnp.ones([1, 1, h.shape[1], h.shape[1]]), shift)
        made = hk.MultiHeadAttention(
            heads, size // heads, w_init=INIT, with_bias=wrong != "missing bias",
            name="attention",
        )  # fmt: skip
        if wrong == "scale":
            h = 1.1 * h
        return made(h, h, h, mask)

    def dense(self, h):
        wrong, size = self.wrong, h.shape[-1]
        h = hk.Linear(4 * size, name="wide")(h)
        h = jax.nn.gelu(h, approximate=wrong != "activation")
        h = norm(name="extra")(h) if wrong == "extra layer" else h
        h = hk.dropout(hk.next_rng_key(), 0.1, h) if wrong == "dropout" else h
        return hk.Linear(size, name="narrow", with_bias=wrong != "bias of the last")(h)

    def __call__(self, x):
        wrong = self.wrong
        if wrong == "post-norm":
            x = norm(name="norm_1")(x + self.attend(x))
            return norm(name="norm_2")(x + self.dense(x))
        h = norm(wrong, name="norm_1")(x)
        a = self.attend(h)
        x = a if wrong == "residual" else x + a
        h = x if wrong == "missing norm" else norm(name="norm_2")(x)
        return x + self.dense(h)


def transformer(wrong):
    def forward(tokens):
        x = hk.Embed(11, 16, name="embed")(tokens)
        positions = hk.get_parameter("positions", [12, 16], init=jnp.zeros)
        x += positions[: x.shape[1]]
        for i in range(3):
            x = Block(4, True, wrong if i == 1 else "", name=f"block_{i}")(x)
        x = norm(name="norm")(x)
        return hk.Linear(11, name="logits")(x)

    return forward


BLOCK = {
    "epsilon": Planted("block_1/norm_1", "epsilon: 1e-05 in Haiku, 1e-06 in Flax"),
    "mask": Planted("block_1|block_1/attention", "mask"),
    "head size": Planted("block_1/attention", "shape: .* heads"),
    "missing bias": Planted("block_1/attention/(query|key|value)", "a missing bias"),
    "scale": Planted("block_1", "(a constant.*|an extra step): .*1.1"),
    "activation": Planted("block_1", "activation: erfc? in Haiku, .*tanh in Flax"),
    "extra layer": Planted("block_1/extra", "an extra layer"),
    "dropout": Planted("block_1", "dropout"),
    "bias of the last": Planted("block_1/narrow", "a missing bias"),
    "post-norm": Planted("block_1|block_1/.*", "order"),
    "residual": Planted("block_1", "a missing (step|sum)"),
    "missing norm": Planted("block_1/norm_2", "a missing (layer|norm)"),
    "missing offset": Planted("block_1/norm_1", "a missing bias"),
}


class FlaxVit(nn.Module):
    size: int = 12
    layers: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.size, (4, 4), (4, 4), padding="VALID", name="patches")(x)
        x = x.reshape(x.shape[0], -1, self.size)
        cls = self.param("cls", nn.initializers.normal(), (1, 1, self.size))
        cls = jnp.broadcast_to(cls, (x.shape[0], 1, self.size))
        x = jnp.concatenate([cls, x], 1)
        x += self.param("positions", nn.initializers.normal(), (1, *x.shape[1:]))
        for i in range(self.layers):
            x = FlaxBlock(3, False, name=f"block_{i}")(x)
        return nn.Dense(5, name="head")(nn.LayerNorm(name="norm")(x)[:, 0])


def vit(wrong, size=12, layers=2):
    """The patches are cut out by hand, and go through `hk.Linear`."""

    def forward(x):
        n, h, w, c = x.shape
        x = x.reshape(n, h // 4, 4, w // 4, 4, c)
        order = (0, 1, 3, 4, 2, 5) if wrong == "patches" else (0, 1, 3, 2, 4, 5)
        x = x.transpose(order).reshape(n, -1, 16 * c)
        x = hk.Linear(size, name="patches")(x)
        cls = hk.get_parameter("cls", [1, 1, size], init=jnp.zeros)
        parts = [jnp.broadcast_to(cls, (n, 1, size)), x]
        x = jnp.concatenate(parts[::-1] if wrong == "token last" else parts, 1)
        x += hk.get_parameter("positions", [1, *x.shape[1:]], init=jnp.zeros)
        for i in range(layers):
            x = Block(3, False, wrong if i == 1 else "", name=f"block_{i}")(x)
        x = norm(name="norm")(x)
        x = x.mean(1) if wrong == "pooling" else x[:, 0]
        return hk.Linear(5, name="head")(x)

    return forward


# A language model of two LSTMs.


class FlaxLanguage(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 6, name="embed")(tokens)
        x = nn.RNN(nn.LSTMCell(7), name="lstm_0")(x)
        x = x + nn.RNN(nn.LSTMCell(7), name="lstm_1")(x)
        x = nn.tanh(nn.Dense(9, name="hidden")(x))
        return nn.Dense(11, name="logits")(x)


class WrongLSTM(hk.RNNCore):
    """`hk.LSTM` with a mistake in its gates."""

    def __init__(self, size, wrong, name):
        super().__init__(name=name)
        self.size, self.wrong = size, wrong

    def __call__(self, x, state):
        wrong = self.wrong
        gated = hk.Linear(4 * self.size)(jnp.concatenate([x, state.hidden], -1))
        i, g, f, o = jnp.split(gated, 4, -1)
        bend = jax.nn.tanh if wrong == "gate" else jax.nn.sigmoid
        out = jax.nn.hard_sigmoid if wrong == "output gate" else jax.nn.sigmoid
        old = state.cell
        c = bend(f + 1) * old + jax.nn.sigmoid(i) * jnp.tanh(g)
        if wrong == "coupled gates":
            f = jax.nn.sigmoid(f + 1)
            c = f * old + (1 - f) * jnp.tanh(g) + 0 * i
        h = out(o) * (c if wrong == "cell" else jnp.tanh(c))
        return h, hk.LSTMState(h, c)

    def initial_state(self, batch_size):
        zeros = jnp.zeros([batch_size, self.size])
        ones = zeros + 1 if self.wrong == "initial state" else zeros
        return hk.LSTMState(zeros, ones)


CELL = "lstm_1|LSTMCell_1"
IN_CELL = ("gate", "output gate", "coupled gates", "cell", "initial state")


def language(wrong):
    def forward(tokens):
        x = hk.Embed(11, 6, name="embed")(tokens)
        x = x * 6**0.5 if wrong == "scale of embeddings" else x
        for i in range(2):
            here = wrong if i == 1 else ""
            cell = WrongLSTM(7, here, f"lstm_{i}") if here in IN_CELL else None
            core = cell or hk.LSTM(7, name=f"lstm_{i}")
            given = x[:, ::-1] if here == "reversed" else x
            start = core.initial_state(x.shape[0])
            h, _ = hk.dynamic_unroll(core, given, start, time_major=False)
            x = h if i == 0 or wrong == "residual" else x + h
        x = hk.Linear(9, name="hidden", with_bias=wrong != "missing bias")(x)
        x = jax.nn.relu(x) if wrong == "activation" else jnp.tanh(x)
        x = hk.dropout(hk.next_rng_key(), 0.2, x) if wrong == "dropout" else x
        x = norm(name="extra")(x) if wrong == "extra layer" else x
        return hk.Linear(11, name="logits")(x)

    return forward


# A VAE on vectors; its noise is an input.


class FlaxVae(nn.Module):
    @nn.compact
    def __call__(self, x, noise):
        h = nn.relu(nn.Dense(9, name="encode")(x))
        h = nn.LayerNorm(name="norm")(h)
        mean, log = nn.Dense(4, name="mean")(h), nn.Dense(4, name="log_variance")(h)
        z = mean + jnp.exp(0.5 * log) * noise
        h = nn.relu(nn.Dense(9, name="decode")(z))
        return nn.sigmoid(nn.Dense(8, name="output")(h)), mean, log


def vae(wrong):
    """The mean and the variance are of one layer."""

    def forward(x, noise):
        h = hk.Linear(9, name="encode", with_bias=wrong != "missing bias")(x)
        h = jnp.tanh(h) if wrong == "activation" else jax.nn.relu(h)
        h = h if wrong == "missing norm" else norm(wrong, name="norm")(h)
        mean, log = jnp.split(hk.Linear(8, name="latent")(h), 2, -1)
        spread = jnp.exp(log if wrong == "variance" else 0.5 * log)
        spread = jax.nn.softplus(log) if wrong == "softplus" else spread
        if wrong == "clipped":
            spread = jnp.exp(0.5 * jnp.clip(log, -0.1, 0.1))
        z = mean - spread * noise if wrong == "sign" else mean + spread * noise
        if wrong == "order of arguments":
            z = noise + spread * mean
        h = jax.nn.relu(hk.Linear(9, name="decode")(z))
        h = norm(name="extra")(h) if wrong == "extra layer" else h
        y = hk.Linear(8, name="output")(h)
        return (y if wrong == "missing sigmoid" else jax.nn.sigmoid(y)), mean, log

    return forward


# A block after the Evoformer's, on [S, R, C] and [R, R, D].


class FlaxAxial(nn.Module):
    """Gated attention along the rows, with a bias of pairs or without."""

    heads: int = 2

    @nn.compact
    def __call__(self, x, pair):
        size = x.shape[-1]
        x = nn.LayerNorm(name="norm")(x)
        form = (self.heads, size // self.heads)
        make = lambda name: nn.DenseGeneral(form, use_bias=False, name=name)(x)
        q, k, v = make("query"), make("key"), make("value")
        logits = jnp.einsum("sihc,sjhc->shij", q, k) * form[1] ** -0.5
        if pair is not None:
            pair = nn.LayerNorm(name="pair_norm")(pair)
            bias = nn.Dense(self.heads, use_bias=False, name="pair_bias")(pair)
            logits += bias.transpose(2, 0, 1)[None]
        out = jnp.einsum("shij,sjhc->sihc", jax.nn.softmax(logits), v)
        out = out * nn.sigmoid(nn.DenseGeneral(form, name="gate")(x))
        return nn.DenseGeneral(size, axis=(-2, -1), name="out")(out)


class FlaxEvoformer(nn.Module):
    @nn.compact
    def __call__(self, msa, pair):
        msa = msa + FlaxAxial(name="rows")(msa, pair)
        columns = FlaxAxial(name="columns")(msa.swapaxes(0, 1), None)
        msa = msa + columns.swapaxes(0, 1)
        h = nn.LayerNorm(name="transition_norm")(msa)
        h = nn.relu(nn.Dense(12, name="transition_0")(h))
        msa = msa + nn.Dense(6, name="transition_1")(h)
        h = nn.LayerNorm(name="outer_norm")(msa)
        left, right = nn.Dense(3, name="left")(h), nn.Dense(3, name="right")(h)
        outer = jnp.einsum("sia,sjb->ijab", left, right) / msa.shape[0]
        outer = outer.reshape(*outer.shape[:2], -1)
        pair = pair + nn.Dense(5, name="outer")(outer)
        h = nn.LayerNorm(name="triangle_norm")(pair)
        a = nn.sigmoid(nn.Dense(4, name="gate_a")(h)) * nn.Dense(4, name="a")(h)
        b = nn.sigmoid(nn.Dense(4, name="gate_b")(h)) * nn.Dense(4, name="b")(h)
        h = nn.LayerNorm(name="center_norm")(jnp.einsum("ikc,jkc->ijc", a, b))
        return msa, pair + nn.Dense(5, name="triangle")(h)


def axial(x, pair, wrong, name, heads=2):
    with hk.experimental.name_scope(name):
        size = x.shape[-1]
        x = norm(wrong, name="norm")(x)
        heads = 3 if wrong == "head size" else heads
        form = (*x.shape[:-1], heads, size // heads)
        qkv = hk.Linear(3 * size, with_bias=False, name="qkv")(x)
        q, k, v = (part.reshape(form) for part in jnp.split(qkv, 3, -1))
        logits = jnp.einsum("sihc,sjhc->shij", q, k) / form[-1] ** 0.5
        if pair is not None:
            pair = norm(name="pair_norm")(pair)
            bias = hk.Linear(heads, with_bias=False, name="pair_bias")(pair)
            order = (2, 1, 0) if wrong == "pair bias" else (2, 0, 1)
            logits += bias.transpose(order)[None]
        weights = jax.nn.softmax(logits, axis=-2 if wrong == "softmax axis" else -1)
        out = jnp.einsum("shij,sjhc->sihc", weights, v).reshape(x.shape)
        gate = hk.Linear(size, name="gate")(x)
        out *= gate if wrong == "gate" else jax.nn.sigmoid(gate)
        return hk.Linear(size, name="out", with_bias=wrong != "missing bias")(out)


def evoformer(wrong):
    def forward(msa, pair):
        msa = msa + axial(msa, pair, wrong, "rows")
        if wrong == "columns":
            msa = msa + axial(msa, None, "", "columns")
        else:
            columns = axial(msa.swapaxes(0, 1), None, "", "columns")
            msa = msa + columns.swapaxes(0, 1)
        h = norm(name="transition_norm")(msa)
        h = hk.Linear(12, name="transition_0")(h)
        h = jax.nn.gelu(h) if wrong == "activation" else jax.nn.relu(h)
        h = hk.Linear(6, name="transition_1")(h)
        msa = h if wrong == "residual" else msa + h
        h = norm(name="outer_norm")(msa)
        left, right = jnp.split(hk.Linear(6, name="sides")(h), 2, -1)
        outer = jnp.einsum("sia,sjb->ijab", left, right)
        outer /= msa.shape[0] + 1 if wrong == "outer mean" else msa.shape[0]
        pair = pair + hk.Linear(5, name="outer")(outer.reshape(*outer.shape[:2], -1))
        h = norm(name="triangle_norm")(pair)
        a, b = jnp.split(hk.Linear(8, name="ab")(h), 2, -1)
        gates = jnp.split(jax.nn.sigmoid(hk.Linear(8, name="gates")(h)), 2, -1)
        way = "kic,kjc->ijc" if wrong == "triangle" else "ikc,jkc->ijc"
        h = jnp.einsum(way, a * gates[0], b * gates[1])
        h = h if wrong == "missing norm" else norm(name="center_norm")(h)
        return msa, pair + hk.Linear(5, name="triangle")(h)

    return forward


def normal(*shape, seed=6):
    return jax.random.normal(jax.random.key(seed), shape)


TRANSFORMER = Pair(
    "transformer",
    lambda wrong: FlaxTransformer(),
    transformer,
    (tokens(2, 8),),
    BLOCK,
)
VIT = Pair(
    "ViT",
    lambda wrong: FlaxVit(),
    vit,
    (normal(2, 12, 12, 3),),
    {
        **{k: v for k, v in BLOCK.items() if k not in ("mask", "residual", "scale")},
        "patches": Planted(f"{TOP}|patches", "order|axis"),
        "token last": Planted(TOP, "order"),
        "pooling": Planted(TOP, "pooling, or a reduction"),
    },
)
LANGUAGE = Pair(
    "LSTM language model",
    lambda wrong: FlaxLanguage(),
    language,
    (tokens(2, 5),),
    {
        "gate": Planted(CELL, "activation: (.*tanh.*) in Haiku"),
        "output gate": Planted(CELL, "activation"),
        "coupled gates": Planted(CELL, "activation: none in Haiku, logistic in Flax"),
        "cell": Planted(CELL, "activation: .*"),
        "initial state": Planted(CELL, "a constant"),
        "reversed": Planted(f"{TOP}|lstm_1(/.*)?", "order"),
        "residual": Planted(TOP, "a missing (step|sum)"),
        "scale of embeddings": Planted(TOP, "(a constant.*|an extra step): .*2.44"),
        "missing bias": Planted("hidden", "a missing bias"),
        "activation": Planted(TOP, "activation: max in Haiku, tanh in Flax"),
        "dropout": Planted(TOP, "dropout"),
        "extra layer": Planted("extra", "an extra layer"),
    },
)
VAE = Pair(
    "VAE",
    lambda wrong: FlaxVae(),
    vae,
    (normal(3, 8), normal(3, 4, seed=7)),
    {
        "missing bias": Planted("encode", "a missing bias"),
        "activation": Planted(TOP, "activation: tanh in Haiku, max in Flax"),
        "missing norm": Planted("norm", "a missing (layer|norm)"),
        "epsilon": Planted("norm", "epsilon: 1e-05 in Haiku, 1e-06 in Flax"),
        "variance": Planted(TOP, "(a constant.*|a missing step): .*0.5"),
        "softplus": Planted(TOP, "activation: .* in Haiku, exp in Flax"),
        "clipped": Planted(TOP, "activation: .*(max|min|clamp)"),
        "sign": Planted(TOP, "a sign: subtracted in Haiku, added in Flax"),
        "order of arguments": Planted(TOP, "order of arguments"),
        "extra layer": Planted("extra", "an extra layer"),
        "missing sigmoid": Planted(TOP, "activation: none in Haiku, logistic in Flax"),
    },
)
EVOFORMER = Pair(
    "Evoformer block",
    lambda wrong: FlaxEvoformer(),
    evoformer,
    (normal(4, 5, 6), normal(5, 5, 5, seed=8)),
    {
        "epsilon": Planted("rows/norm", "epsilon: 1e-05 in Haiku, 1e-06 in Flax"),
        "head size": Planted("rows|rows/pair_bias", "shape"),
        "pair bias": Planted("rows", "axis|order of arguments"),
        "softmax axis": Planted("rows", "axis"),
        "gate": Planted("rows", "activation: none in Haiku, logistic in Flax"),
        "missing bias": Planted("rows/out", "a missing bias"),
        "columns": Planted(f"{TOP}|columns", "order|axis|shape: .* axes"),
        "activation": Planted(TOP, "activation"),
        "residual": Planted(TOP, "a missing (step|sum)"),
        "outer mean": Planted(TOP, "a constant.*: 5 in Haiku, 4 in Flax"),
        "triangle": Planted(TOP, "order of arguments, or axes"),
        "missing norm": Planted("center_norm", "a missing (layer|norm)"),
    },
)
LARGE_VIT = Pair(
    "ViT of 12 layers",
    lambda wrong: FlaxVit(192, 12),
    lambda wrong: vit(wrong, 192, 12),
    (normal(1, 64, 64, 3),),
    VIT.mistakes,
)
PAIRS = [TRANSFORMER, LANGUAGE, VIT, VAE, EVOFORMER]
