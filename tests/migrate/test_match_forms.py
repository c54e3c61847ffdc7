"""`match`: the same model written in another form is proven, another model never."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hk_bridge import migrate
from hk_bridge.testing import assert_identical

NORMAL = nn.initializers.normal()


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


X, XS, IMAGES = normal(3, 4), normal(2, 5, 8), normal(2, 8, 8, 3)
OTHER, TOKENS = normal(3, 4, seed=1), jnp.arange(10).reshape(2, 5) % 7


def parameter(name, *shape):
    return hk.get_parameter(name, shape, init=jnp.zeros)


def flax(function):
    """A linen module that has this as its call."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, *args):
            return function(self, *args)

    return Net()


def matched(module, function, *args):
    """The match, with weights none of which is as it starts."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return _matched(module, function, *args)


def _matched(module, function, *args):
    variables = module.init(jax.random.key(1), *args)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: (
            x + 0.3 * rng.standard_normal(x.shape).astype(x.dtype)
            if jnp.issubdtype(x.dtype, jnp.floating)
            else x
        ),
        variables,
    )
    return migrate.match(
        module, variables, hk.transform_with_state(function), *args
    ), variables


# What is cut out of one leaf, in another order.


def gated(layer, x):
    a, b = jnp.split(layer(12)(x), 2, -1)
    return a * jax.nn.sigmoid(b)


def gated_first(layer, x, bend=jax.nn.sigmoid):
    b, a = jnp.split(layer(12)(x), 2, -1)
    return a * bend(b)


def gated_in_turns(x):
    h = hk.Linear(12)(x)
    return hk.Linear(3)(h[..., 1::2] * jax.nn.sigmoid(h[..., ::2]))


def fused(layer, order, of="logits", scale=8**-0.5):
    def call(x):
        parts = dict(zip(order, jnp.split(layer(24)(x), 3, -1), strict=True))
        q, k, v = parts["q"], parts["k"], parts["v"]
        logits = jnp.einsum("btd,bsd->bts", scale * q if of == "q" else q, k)
        logits = logits * scale if of == "logits" else logits
        return layer(8)(jax.nn.softmax(logits) @ v)

    return call


def halves(first, second):
    def call(x, b):
        parts = jnp.split(b, 2)
        return jnp.tanh(x + parts[first]) * jax.nn.sigmoid(x + parts[second])

    return call


def cell(order):
    class Core(hk.RNNCore):
        def __call__(self, x, state):
            h, c = state
            gates = jnp.split(hk.Linear(24)(jnp.concatenate([h, x], -1)), 4, -1)
            i, f, g, o = (gates[order.index(name)] for name in "ifgo")
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return h, (h, c)

        def initial_state(self, batch_size):
            return jnp.zeros((batch_size, 6)), jnp.zeros((batch_size, 6))

    def call(x):
        core = Core()
        start = core.initial_state(x.shape[0])
        return hk.dynamic_unroll(core, x, start, time_major=False)[0]

    return call


CONV = lambda size: nn.Conv(size, (3, 3))
GATED = flax(lambda net, x: nn.Dense(3)(gated(nn.Dense, x)))
FUSED = flax(lambda net, x: fused(nn.Dense, "qkv")(x))
ORDERS = {
    "halves": (GATED, lambda x: hk.Linear(3)(gated_first(hk.Linear, x)), X),
    "in turns": (GATED, gated_in_turns, X),
    "channels": (
        flax(lambda net, x: CONV(3)(gated(CONV, x))),
        lambda x: hk.Conv2D(3, 3)(gated_first(lambda n: hk.Conv2D(n, 3), x)),
        IMAGES,
    ),
    "three": (FUSED, fused(hk.Linear, "vkq"), XS),
    "three, scaled": (FUSED, fused(hk.Linear, "kvq", of="q"), XS),
    "bias": (
        flax(lambda net, x: halves(0, 1)(x, net.param("b", NORMAL, (8,)))),
        lambda x: halves(1, 0)(x, parameter("b", 8)),
        X,
    ),
    "gates": (flax(lambda net, x: nn.RNN(nn.LSTMCell(6))(x)), cell("fogi"), XS),
}

# Numbers before or after a layer.

PLAIN = flax(lambda net, x: nn.Dense(3)(jnp.tanh(nn.Dense(5, use_bias=False)(x))))
TABLE = flax(lambda net, x: nn.Dense(3)(2 * nn.Embed(7, 4)(x) + X[0]))
SCALED_TABLE = lambda x: hk.Linear(3)((2 * parameter("e", 7, 4))[x] + X[0])
MEAN = flax(lambda net, x: nn.Dense(3)(jnp.tanh(nn.Dense(6)(x)).mean(1)))
NUMBERS = {
    "two": (PLAIN, lambda x: hk.Linear(3)(jnp.tanh(hk.Linear(5, False)(2 * x) / 2)), X),
    "sign": (PLAIN, lambda x: hk.Linear(3)(jnp.tanh(-hk.Linear(5, False)(-x))), X),
    "table": (TABLE, SCALED_TABLE, TOKENS),
    "sum": (MEAN, lambda x: hk.Linear(3)(jnp.tanh(hk.Linear(6)(x)).sum(1) / 5), XS),
    "mean": (MEAN, lambda x: hk.Linear(3)(jnp.tanh(hk.Linear(6)(x))).mean(1), XS),
}

# State that meets no data, and what is returned as it is.


def counted(step, kind=jnp.int32):
    def call(net, x):
        n = net.variable("stats", "n", lambda: jnp.zeros((), kind))
        n.value = step(n.value)
        return nn.Dense(3)(x)

    return flax(call)


def counts(step, kind=jnp.int32):
    def call(x):
        hk.set_state("n", step(hk.get_state("n", (), kind, init=jnp.zeros)))
        return hk.Linear(3)(x)

    return call


def cached(net, x):
    held = net.variable("cache", "held", lambda: jnp.zeros((6, 3, 4)))
    at = net.variable("cache", "at", lambda: jnp.zeros((), jnp.int32))
    start = (at.value, 0, 0)
    new = nn.Dense(4)(x)[None]
    held.value = jax.lax.dynamic_update_slice(held.value, new, start)
    at.value = at.value + 1
    return held.value.sum(0)


def caches(shift):
    def call(x):
        held = hk.get_state("held", (6, 3, 4), init=jnp.zeros)
        at = hk.get_state("at", (), jnp.int32, init=jnp.zeros)
        new = hk.Linear(4)(x)[None]
        held = jax.lax.dynamic_update_slice(held, new, (at + shift, 0, 0))
        hk.set_state("held", held)
        hk.set_state("at", at + 1)
        return held.sum(0)

    return call


def drifting(net, x):
    mean = net.variable("stats", "mean", lambda: jnp.zeros(4))
    mean.value = mean.value + 0.25 * (x.mean(0) - mean.value)
    return nn.Dense(3)(x)


def drifts(decay):
    def call(x):
        mean = hk.get_state("mean", (4,), init=jnp.zeros)
        hk.set_state("mean", decay * mean + (1 - decay) * x.mean(0))
        return hk.Linear(3)(x)

    return call


def remembering(net, x):
    last = net.variable("stats", "last", lambda: jnp.zeros((3, 3)))
    last.value = nn.Dense(3)(x)
    return jnp.tanh(last.value)


def remembers(bend):
    def call(x):
        hk.get_state("last", (3, 3), init=jnp.zeros)
        y = hk.Linear(3)(x)
        hk.set_state("last", bend(y))
        return jnp.tanh(y)

    return call


POLICY = flax(lambda net, x: (nn.Dense(3)(x), jnp.exp(net.param("s", NORMAL, (3,)))))
POLICIES = lambda bend: lambda x: (hk.Linear(3)(x), bend(parameter("log", 3)))
STATE = {
    "counter": (counted(lambda n: n + 1), counts(lambda n: 1 + n), X),
    "a float": (counted(lambda n: n + 1, float), counts(lambda n: n + 1, float), X),
    "cache": (flax(cached), caches(0), X),
    "average": (flax(drifting), drifts(0.75), X),
    "output": (flax(remembering), remembers(lambda y: y), X),
    "returned": (POLICY, POLICIES(jnp.exp), X),
}

# One leaf or several, axes, and layers that are written out.


def heads(x, scale=0.5, summed=False):
    made = []
    for i in range(2):
        q, k, v = (hk.Linear(4, name=f"{name}_{i}")(x) for name in "qkv")
        made.append(jax.nn.softmax(scale * q @ k.swapaxes(1, 2)) @ v)
    if not summed:
        return hk.Linear(8)(jnp.concatenate(made, -1))
    return sum(hk.Linear(8, False)(part) for part in made) + parameter("b", 8)


def experts(net, x):
    gates = nn.softmax(nn.Dense(3)(x))
    w, b = net.param("w", NORMAL, (3, 8, 4)), net.param("b", NORMAL, (3, 4))
    inner = nn.relu(jnp.einsum("btd,edo->bteo", x, w) + b)
    return jnp.einsum("bte,bteo->bto", gates, inner)


def experts_apart(x):
    gates = jax.nn.softmax(hk.Linear(3)(x))
    order = (2, 0, 1)
    return sum(gates[..., i, None] * jax.nn.relu(hk.Linear(4)(x)) for i in order)


def members(net, x):
    over = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    return nn.vmap(nn.Dense, **over)(3)(x)


def flattened(x, axes=(0, 1, 2, 3)):
    return jax.nn.relu(x).transpose(axes).reshape(x.shape[0], -1)


def normed(net, x):
    return nn.WeightNorm(nn.Dense(5))(x)


def norms(eps):
    def call(x):
        w, g, b = parameter("w", 8, 5), parameter("g", 5), parameter("b", 5)
        return x @ (w * jax.lax.rsqrt((w * w).sum(0) + eps) * g) + b

    return call


def empty(net, x):
    return nn.Dense(3)(x) + net.param("z", NORMAL, (0, 3)).sum()


ATTENTION = nn.MultiHeadDotProductAttention(2)
TURNED = {"strides": (2, 2), "transpose_kernel": True}
LEAVES = {
    "heads": (ATTENTION, heads, XS),
    "heads, summed": (ATTENTION, lambda x: heads(x, summed=True), XS),
    "experts": (flax(experts), experts_apart, XS),
    "members": (
        flax(members),
        lambda x: jnp.stack([hk.Linear(3)(x[1]), hk.Linear(3)(x[0])][::-1]),
        XS,
    ),
    "flattened": (
        flax(lambda net, x: nn.Dense(3)(flattened(CONV(4)(x)))),
        lambda x: hk.Linear(3)(flattened(hk.Conv2D(4, 3)(x), (0, 3, 2, 1))),
        IMAGES,
    ),
    "joined": (
        flax(lambda net, x: nn.Dense(2)(jnp.concatenate([x, jnp.sin(x)], -1))),
        lambda x: hk.Linear(2)(jnp.concatenate([jnp.sin(x), x], -1)),
        X,
    ),
    "flipped": (
        flax(lambda net, x: nn.ConvTranspose(5, (3, 3), **TURNED)(x)),
        lambda x: hk.Conv2DTranspose(5, 3, 2)(x),
        IMAGES,
    ),
    "norm of weights": (flax(normed), norms(1e-12), XS),
    "one-hot": (
        nn.Embed(7, 4),
        lambda x: hk.Embed(7, 4, lookup_style="ONE_HOT")(x),
        TOKENS,
    ),
    "positions": (
        flax(lambda net, x: nn.Embed(7, 4)(x) + nn.Embed(9, 4)(jnp.arange(5))),
        lambda x: hk.Embed(7, 4)(x) + parameter("p", 9, 4)[:5],
        TOKENS,
    ),
    "no elements": (
        flax(empty),
        lambda x: hk.Linear(3)(x) + parameter("z", 0, 3).sum(),
        X,
    ),
    "root mean square": (
        flax(lambda net, x: nn.RMSNorm()(nn.Dense(6)(x))),
        lambda x: hk.RMSNorm(-1, eps=1e-6)(hk.Linear(6)(x)),
        XS,
    ),
}

# Layers that pad by themselves, features that are flattened otherwise.


def waves(layer, dense, order):
    def call(x):
        for _ in range(2):
            parts = jnp.split(layer(12)(x), 2, -1)
            a, b = (parts[i] for i in order)
            x = x + dense(8)(jnp.tanh(a) * jax.nn.sigmoid(b))
        return x

    return call


def largest(dense, shape, axis):
    return lambda x: dense(3)(dense(8)(x).reshape(3, *shape).max(axis))


CAUSAL = lambda size: nn.Conv(size, (3,), padding="CAUSAL")
CAUSES = lambda size: hk.Conv1D(size, 3, padding=hk.pad.causal)
LARGEST = flax(lambda net, x: largest(nn.Dense, (4, 2), 2)(x))
AXES = {
    "padded": (
        flax(lambda net, x: waves(CAUSAL, nn.Dense, (0, 1))(x)),
        waves(CAUSES, hk.Linear, (1, 0)),
        XS,
    ),
    "other axes": (LARGEST, largest(hk.Linear, (2, 4), 1), X),
    "two layers": (
        LARGEST,
        lambda x: hk.Linear(3)(jnp.maximum(hk.Linear(4)(x), hk.Linear(4)(x))),
        X,
    ),
    "complex": (
        flax(lambda net, x: nn.Dense(8)(x) * jnp.abs(1j * net.param("c", NORMAL, ()))),
        lambda x: hk.Linear(8)(x) * jnp.abs(1j * parameter("c")),
        X,
    ),
}
RIGHT = {**AXES, **ORDERS, **NUMBERS, **STATE, **LEAVES}


@pytest.mark.parametrize("name", RIGHT)
def test_is_proven(name):
    found, variables = matched(*RIGHT[name])
    assert found.ok, found
    assert not found.missing
    assert not found.unused
    table = found.table()
    assert migrate.LeafTable.parse(table.text()) == table
    assert_identical(found.to_flax(found.params, found.state), variables)


def norm_of(eps):
    return lambda x: hk.LayerNorm(-1, True, True, eps=eps)(hk.Linear(8)(x))


DOUBLED = counted(lambda n: 2 * n)  # of zero, which tells nothing
BENT = flax(lambda net, x: nn.Dense(3)(jnp.tanh(nn.Dense(8)(x))))


def spare(x):
    parameter("spare", 3, 3)
    return hk.Linear(3)(jnp.tanh(hk.Linear(6)(x))).mean(1)


WRONG = {
    "tiny inputs": (BENT, lambda x: hk.Linear(3)(hk.Linear(8)(x)), 1e-4 * X),
    "a leaf that is never read": (MEAN, spare, XS),
    "padded": (
        flax(lambda net, x: CAUSAL(3)(x)),
        lambda x: hk.Conv1D(3, 3)(x),
        XS,
    ),
    "halves": (GATED, lambda x: hk.Linear(3)(gated_first(hk.Linear, x, jnp.tanh)), X),
    "scale": (FUSED, fused(hk.Linear, "kvq", of="q", scale=0.4), XS),
    "two": (PLAIN, lambda x: hk.Linear(3)(jnp.tanh(hk.Linear(5, False)(2 * x))), X),
    "counter": (counted(lambda n: n + 1), counts(lambda n: n + 2), X),
    "counter of zero": (DOUBLED, counts(lambda n: 3 * n), X),
    "counter, another dtype": (counted(lambda n: n), counts(lambda n: n, float), X),
    "cache": (flax(cached), caches(1), X),
    "average": (flax(drifting), drifts(0.8), X),
    "output": (flax(remembering), remembers(jnp.tanh), X),
    "returned": (POLICY, POLICIES(jnp.tanh), X),
    "heads": (ATTENTION, lambda x: heads(x, scale=0.25), XS),
    "norm of weights": (flax(normed), norms(1e-2), XS),
}


@pytest.mark.parametrize("name", WRONG)
def test_is_refused_and_the_place_is_named(name):
    found, _ = matched(*WRONG[name])
    assert not found.ok
    assert found.parting is not None or found.missing or not found.proof.holds


@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_an_epsilon_counts_where_the_variance_is_large(size):
    module = flax(lambda net, x: nn.LayerNorm()(nn.Dense(8)(x)))
    found, _ = matched(module, norm_of(1e-5), size * X)
    assert not found.ok
    assert found.parting.cause == "epsilon: 1e-05 in Haiku, 1e-06 in Flax"
    assert matched(module, norm_of(1e-6), size * X)[0].ok


def test_counters_that_count_alike_are_told_to_be_alike():
    def two(net, x):
        for name in ("one", "two"):
            n = net.variable("stats", name, lambda: jnp.zeros((), jnp.int32))
            n.value = n.value + 1
        return x

    def counts_two(x):
        for name in ("b", "a"):
            n = hk.get_state(name, (), jnp.int32, init=jnp.zeros)
            hk.set_state(name, n + 1)
        return x

    found, _ = matched(flax(two), counts_two, X)
    assert found.ok
    assert ("stats/one", "stats/two") in found.ambiguous


def test_a_leaf_in_two_orders_is_cut_in_the_table():
    found, variables = matched(*ORDERS["halves"])
    rows = {row.haiku_part: row for row in found.table().rows if row.how == ""}
    assert rows["[:, 0:6]"].flax_part == "[:, 6:12]"
    kernel = variables["params"]["Dense_0"]["kernel"]
    other = np.concatenate([kernel[:, 6:], kernel[:, :6]], 1)
    np.testing.assert_array_equal(found.params["linear"]["w"], other)


def stream(norm, dense, eps):
    """Normed branches beside a stream that is far larger than what they add."""

    def call(x):
        for i in range(4):
            x = x + dense(8)(jnp.tanh(dense(16)(norm(eps if i == 3 else 1e-6)(x))))
        return x

    return call


def test_an_epsilon_counts_deep_in_a_network():
    normed = lambda eps: nn.LayerNorm(epsilon=eps)
    norms = lambda eps: hk.LayerNorm(-1, True, True, eps=eps)
    module = flax(lambda net, x: stream(normed, nn.Dense, 1e-6)(x))
    assert matched(module, stream(norms, hk.Linear, 1e-6), 30 * XS)[0].ok
    found, _ = matched(module, stream(norms, hk.Linear, 1e-5), 30 * XS)
    assert not found.ok
    assert found.parting.cause == "epsilon: 1e-05 in Haiku, 1e-06 in Flax"


def test_an_epsilon_counts_beside_a_running_variance():
    module = flax(lambda net, x: nn.BatchNorm(True)(nn.Dense(8)(x)))
    norm = lambda eps: (
        lambda x: hk.BatchNorm(True, True, 0.9, eps)(hk.Linear(8)(x), False)
    )
    assert matched(module, norm(1e-5), 100 * X)[0].ok
    found, _ = matched(module, norm(1.1e-5), 100 * X)
    assert not found.ok
    assert found.parting.cause == "epsilon: 1.1e-05 in Haiku, 1e-05 in Flax"
