"""`share_traces` and NNX modules: one trace for all that are equal, no bit changed."""

import contextlib

from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import pytest

import hk_bridge
from hk_bridge.testing import assert_identical

KEY = jax.random.key(3)
X = jax.random.normal(jax.random.key(4), (2, 4))


class Block(nnx.Module):
    def __init__(self, act=nnx.relu, scale=1.0, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.act, self.scale = act, scale

    def __call__(self, x):
        x = self.dropout(self.norm(self.linear(x)))
        return self.act(x) * self.scale


def network(makers):
    """A transform of these, one after the other, with and without sharing."""

    def forward(x, share):
        with hk_bridge.share_traces() if share else contextlib.nullcontext():
            for i, make in enumerate(makers):
                x = make(f"block_{i}")(x)
        return x

    return hk.transform_with_state(forward)


def runs(makers, monkeypatch):
    """How often the code of a block runs in one shared trace, and that it agrees."""
    f = network(makers)
    params, state = f.init(KEY, X, False)
    own = jax.jit(lambda p, s, x: f.apply(p, s, KEY, x, False))
    expected = own(params, state, X)
    count = []
    plain = nnx.Linear.__call__
    monkeypatch.setattr(
        nnx.Linear,
        "__call__",
        lambda self, *args: count.append(0) or plain(self, *args),
    )
    shared = jax.jit(lambda p, s, x: f.apply(p, s, KEY, x, True))
    found = shared(params, state, X)
    assert_identical(found, expected)
    return len(count)


def instances(*options):
    blocks = [Block(rngs=nnx.Rngs(i), **o) for i, o in enumerate(options)]
    return [lambda name, b=b: hk_bridge.FlaxModule(b, name=name) for b in blocks]


def test_equal_instances_share_a_trace(monkeypatch):
    assert runs(instances(*[{}] * 6), monkeypatch) == 2


def test_wrapped_classes_share_a_trace(monkeypatch):
    wrapped = hk_bridge.wrap(Block)
    makers = [lambda name: wrapped(scale=2.0, name=name)] * 6
    assert runs(makers, monkeypatch) == 2


@pytest.mark.parametrize(
    "options",
    [
        [{"scale": 1.0}, {"scale": 2.0}, {"scale": 3.0}],
        [{"act": nnx.relu}, {"act": nnx.tanh}, {"act": nnx.gelu}],
    ],
    ids=["scale", "act"],
)
def test_what_differs_is_not_shared(options, monkeypatch):
    assert runs(instances(*options), monkeypatch) == 3


def test_the_mode_tells_instances_apart(monkeypatch):
    blocks = [Block(rngs=nnx.Rngs(i)) for i in range(4)]
    for block in blocks[::2]:
        block.eval()
    makers = [lambda name, b=b: hk_bridge.FlaxModule(b, name=name) for b in blocks]
    assert runs(makers, monkeypatch) == 4


def test_arrays_in_attributes_are_not_known_to_be_values(monkeypatch):
    class Scaled(nnx.Module):
        def __init__(self, value, rngs):
            self.linear = nnx.Linear(4, 4, rngs=rngs)
            self.scale = jnp.full((4,), value)

        def __call__(self, x):
            return self.linear(x) * self.scale[None]

    blocks = [Scaled(float(i), nnx.Rngs(i)) for i in range(3)]
    makers = [lambda name, b=b: hk_bridge.FlaxModule(b, name=name) for b in blocks]
    assert runs(makers, monkeypatch) == 3
