"""Streams that only lifted code asks for."""

import re
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import pytest
from recorded import KEY
from recorded import X
from recorded import bridged
from recorded import fresh

from hk_bridge.testing import assert_identical


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        if not self.has_rng("noise"):
            return x
        return x + jax.random.normal(self.make_rng("noise"), x.shape)


class Holds(nn.Module):
    cls: Any

    @nn.compact
    def __call__(self, x):
        return self.cls(name="noisy")(x)


NOISY = {
    "plain": lambda cls: cls,
    "remat": nn.remat,
    "jit": nn.jit,
    "remat_remat": lambda cls: nn.remat(nn.remat(cls)),
    "jit_remat": lambda cls: nn.jit(nn.remat(cls)),
    "remat_jit": lambda cls: nn.remat(nn.jit(cls)),
    "vmap": lambda cls: nn.vmap(cls, variable_axes={}, split_rngs={"noise": True}),
    "vmap_all": lambda cls: nn.vmap(cls, variable_axes={}, split_rngs={True: True}),
    "vmap_jit": lambda cls: nn.vmap(
        nn.jit(cls), variable_axes={}, split_rngs={"noise": True}
    ),
    "map_variables": lambda cls: nn.map_variables(cls, "params"),
}


# There no key of Haiku can be drawn, and nothing outside names the stream.
REFUSED = ("remat", "jit", "remat_remat", "jit_remat", "remat_jit", "vmap_all")


@pytest.mark.parametrize("lift", NOISY)
def test_noise_is_not_silently_left_out(lift):
    """Haiku's key is used, or it is an error that names the line to write."""
    module = Holds(NOISY[lift](fresh(Noisy)))
    f = bridged(lambda: module, X)
    line = re.escape("rngs={'noise': hk.next_rng_key(), ...}")
    if lift in REFUSED:
        with pytest.raises(flax.errors.InvalidRngError, match=line):
            f.apply({}, {}, KEY)
    else:
        assert (f.apply({}, {}, KEY)[0] != X).all()
    assert_identical(f.apply({}, {}, None)[0], X)
    rngs = {"noise": KEY}
    y, _ = bridged(lambda: module, X, rngs=rngs).apply({}, {}, None)
    assert_identical(y, module.apply({}, X, rngs=rngs))
