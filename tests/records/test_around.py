"""Haiku's transforms around, as around a Haiku module."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from recorded import LIFTS
from recorded import NAME
from recorded import X
from recorded import assert_very_same
from recorded import copied
from recorded import listening

from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical


class BodyInHaiku(hk.Module):
    def __call__(self, x):
        r = hk.get_state("r", [], init=hk.initializers.Constant(0.5))
        w = hk.get_state("w", [], init=jnp.zeros)
        if not hk.running_init():
            hk.set_state("w", w := w + x.sum())
        return x * r + w


class Stateful(nn.Module):
    @nn.compact
    def __call__(self, x):
        r = self.variable("stats", "r", jnp.full, [], 0.5)
        w = self.variable("stats", "w", jnp.zeros, [])
        if not self.is_initializing():
            w.value = w.value + x.sum()
        return x * r.value + w.value


AROUND = {
    "remat": lambda f, x: hk.remat(f)(x),
    "cond": lambda f, x: hk.cond(x.sum() < 1e9, f, lambda x: x, x),
    "other_branch": lambda f, x: hk.cond(x.sum() < 1e9, lambda x: x, f, x),
    "switch": lambda f, x: hk.switch(1, [lambda x: x, f], x),
    "scan": lambda f, x: hk.scan(lambda c, _: (f(c), c), x, None, length=3),
    "fori_loop": lambda f, x: hk.fori_loop(0, 3, lambda i, x: f(x), x),
    "while_loop": lambda f, x: hk.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 1, f(c[1])), (0, x)
    ),
    "grad": lambda f, x: (f(x), hk.grad(lambda x: f(x).sum())(x)),
    "map": lambda f, x: hk.map(f, jnp.stack([x, x])),
    "remat_of_scan": lambda f, x: hk.remat(lambda x: AROUND["scan"](f, x))(x),
    "scan_of_cond": lambda f, x: AROUND["scan"](lambda x: AROUND["cond"](f, x), x),
    "eval_shape": lambda f, x: (hk.eval_shape(f, x).shape, f(x)),
}


@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "jit_remat"])
@pytest.mark.parametrize("around", AROUND)
def test_transforms_of_haiku_around(around, lift):
    cls = LIFTS[lift](Stateful, None)

    def result(build):
        put = []

        def forward(x):
            net = build()
            with listening(put):
                return net(x) if hk.running_init() else AROUND[around](net, x)

        f = hk.transform_with_state(forward)
        params, state = jax.jit(f.init)(None, X)
        results = []
        for apply in (f.apply, f.apply, jax.jit(f.apply)):
            del put[:]
            before, own = copied(state), state
            y, state = apply(params, state, None, X)
            assert_very_same(own, before)
            results.append((y, *state.values(), list(put)))
        return results

    ours = result(lambda: FlaxModule(cls(), name=NAME))
    assert_identical(ours, result(lambda: BodyInHaiku(name=NAME)))
