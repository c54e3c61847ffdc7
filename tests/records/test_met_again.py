"""Traces of `nn.jit` that are met again: nothing runs there."""

import flax.linen as nn
import jax.numpy as jnp
import pytest
from recorded import KEY
from recorded import NAME
from recorded import PARAMS_KEY
from recorded import X
from recorded import bridged
from recorded import fresh

import hk_bridge
from hk_bridge.testing import assert_identical


class Sower(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.variable("stats", "w", jnp.zeros, [])
        self.variable("stats", "r", jnp.ones, [])
        w.value = w.value + 1
        x = nn.Dense(4)(x)
        self.sow("intermediates", "h", x)
        self.sow("losses", "total", x.sum())
        return x


CACHED = {
    "jit": nn.jit,
    "jit_jit": lambda cls: nn.jit(nn.jit(cls)),
    "jit_remat": lambda cls: nn.jit(nn.remat(cls)),
    "remat_jit": lambda cls: nn.remat(nn.jit(cls)),
    "remat": nn.remat,
}


@pytest.mark.parametrize("first", ["native", "bridged"])
@pytest.mark.parametrize("lift", CACHED)
def test_what_is_sown_is_known_at_each_init(lift, first, at_first):
    module = CACHED[lift](fresh(Sower))()
    filled = ["stats", "losses", "intermediates"]

    def native():
        variables = module.init(PARAMS_KEY, X)
        variables = {c: variables[c] for c in ("params", "stats")}
        _, changed = module.apply(variables, X, mutable=filled)
        return variables, changed

    def ours():
        params, state = bridged(lambda: module, X, rngs=PARAMS_KEY).init(None)
        apply = bridged(lambda: module, X, mutable=filled).apply
        (_, changed), new = apply(params, state, None)
        assert_identical(new["net/stats"], changed["stats"])
        return hk_bridge.to_flax(params, state, name=NAME), changed

    order = [native, ours] if first == "native" else [ours, native]
    results = [run() for run in (*order, *order)]
    for result in results[1:]:
        assert_identical(result, results[0])


@pytest.mark.parametrize("lift", CACHED)
def test_many_inits_are_one_like_the_other(lift):
    """Flax compares what `nn.jit` goes by through hashes alone."""
    module = CACHED[lift](fresh(Sower))()
    f = bridged(lambda: module, X)
    for _ in range(12):
        assert list(f.init(KEY)[1]) == ["net/stats"]
