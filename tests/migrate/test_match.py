"""`match`: leaves are found without names, proven, given back, or it says where not."""

import flax.linen as nn
import haiku as hk
import jax
import numpy as np
import pytest

from hk_bridge import migrate
from hk_bridge.testing import assert_identical


def made(module, *args, **kwargs):
    return module.init(jax.random.key(1), *args, **kwargs)


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def held_to_its_laws(found, variables):
    """What has to hold of each match that is one."""
    assert found.ok, found
    assert found.parting is None
    assert not found.missing
    table = found.table()
    assert migrate.LeafTable.parse(table.text()) == table
    assert_identical(table.to_haiku(variables), (found.params, found.state))
    assert_identical(found.to_flax(found.params, found.state), variables)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.relu(nn.Dense(8)(x)))
        x = x + nn.MultiHeadDotProductAttention(2, qkv_features=8)(x)
        return nn.Dense(3)(x)


class Recurrent(nn.Module):
    cell: type

    @nn.compact
    def __call__(self, tokens):
        x = nn.RNN(self.cell(5))(nn.Embed(10, 6)(tokens))
        return nn.Dense(10)(x)


def attention(x):
    x = jax.nn.relu(hk.Linear(8)(x))
    x = hk.LayerNorm(-1, True, True, eps=1e-6)(x)
    init = hk.initializers.VarianceScaling()
    x = x + hk.MultiHeadAttention(2, 4, w_init=init)(x, x, x)
    return hk.Linear(3)(x)


def recurrent(tokens):
    core = hk.LSTM(5)
    x = hk.Embed(10, 6)(tokens)
    start = core.initial_state(tokens.shape[0])
    x, _ = hk.dynamic_unroll(core, x, start, time_major=False)
    return hk.Linear(10)(x)


TOKENS = jax.random.randint(jax.random.key(0), (2, 6), 0, 10)
CASES = {
    "attention": (Attention(), attention, normal(2, 5, 4)),
    "lstm": (Recurrent(nn.LSTMCell), recurrent, TOKENS),
    "optimized_lstm": (Recurrent(nn.OptimizedLSTMCell), recurrent, TOKENS),
}


@pytest.mark.parametrize("name", CASES)
def test_the_laws(name):
    module, function, x = CASES[name]
    variables = made(module, x)
    haiku = hk.transform(function)
    found = migrate.match(module, variables, haiku, x)
    held_to_its_laws(found, variables)
    outputs = haiku.apply(found.params, None, x), module.apply(variables, x)
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-5)
