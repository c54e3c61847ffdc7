"""Calls of a module inside a call of it, as a Haiku module that calls itself."""

import contextlib
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from recorded import NAME

from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical


class Counts(nn.Module):
    """Counts its calls, and has some of them fail."""

    inner: Any
    fails: bool = False

    @nn.compact
    def __call__(self, depth):
        w = self.variable("stats", "w", jnp.zeros, [])
        if not self.is_initializing():
            w.value = w.value + 1
            if self.fails and depth == 0:
                raise ZeroDivisionError
        if depth:
            with contextlib.suppress(ZeroDivisionError):
                self.inner(depth - 1)
        return w.value


class CountsInHaiku(hk.Module):
    def __init__(self, fails, name):
        super().__init__(name)
        self.fails = fails

    def __call__(self, depth):
        w = hk.get_state("w", [], init=jnp.zeros)
        if not hk.running_init():
            hk.set_state("w", w + 1)
            if self.fails and depth == 0:
                raise ZeroDivisionError
        if depth:
            with contextlib.suppress(ZeroDivisionError):
                self(depth - 1)
        return hk.get_state("w")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_calls_inside_calls(depth, fails):
    def ours():
        net = FlaxModule(Counts(lambda n: net(n), fails), name=NAME)
        return net(depth), net(depth)

    def theirs():
        net = CountsInHaiku(fails, name=NAME)
        return net(depth), net(depth)

    results = []
    for forward in (ours, theirs):
        f = hk.transform_with_state(forward)
        params, state = f.init(None)
        y, new = f.apply(params, state, None)
        results.append((y, *jax.tree.leaves((state, new))))
    assert_identical(*results)


def test_a_call_inside_a_call_that_asked_for_what_it_changed():
    def forward():
        net = FlaxModule(Counts(lambda n: net(n)), name=NAME)
        return net(2, mutable=["stats"])

    f = hk.transform_with_state(forward)
    (y, changed), new = f.apply(*f.init(None), None)
    assert_identical(changed["stats"], new["net/stats"])
    assert_identical(y, jnp.asarray(3.0))
