"""A bridged module, and the hk.Module that makes the same leaves by hand."""

from collections.abc import Callable
import functools
from typing import Any

import chex
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import FlaxModule

KEY = jax.random.key(0)
X = jnp.arange(8.0).reshape(2, 4)


def ramp(shape, dtype=jnp.float32):
    """An initial value of any shape, without a key."""
    return jnp.arange(1.0, 1.0 + np.prod(shape)).reshape(shape).astype(dtype)


def keyed(init):
    return lambda key, *args: init(*args)


class Scale(nn.Module):
    """A parameter, and state that counts the calls."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", keyed(ramp), (x.shape[-1],))
        n = self.variable("counts", "n", jnp.ones, ())
        if not self.is_initializing():  # init of Haiku gives what state starts from
            n.value = n.value + 1
        return x * jnp.broadcast_to(w, x.shape) + n.value

    @nn.compact
    def other(self, x):
        return x + self.param("v", keyed(ramp), ())


class ByHand(hk.Module):
    """What `Scale` is, written for Haiku."""

    def __call__(self, x):
        w = hk.get_parameter("w", (x.shape[-1],), init=ramp)
        with hk.name_scope("counts"):
            n = hk.get_state("n", (), init=jnp.ones)
            hk.set_state("n", n + 1)
        return x * jnp.broadcast_to(w, x.shape) + n + 1

    def other(self, x):
        return x + hk.get_parameter("v", (), init=ramp)


class Bridged(FlaxModule):
    """Has the method that it does not leave to `method=`."""

    def other(self, x):
        return self(x, method="other")


def bridged(name):
    return Bridged(Scale(), name=name)


def assert_equal(ours, theirs):
    chex.assert_trees_all_equal_structs(ours, theirs)
    chex.assert_trees_all_equal(ours, theirs, strict=True)


def steps(build, scenario, calls=3):
    """What init gives, and some calls after it, state handed on."""
    f = hk.transform_with_state(lambda x: scenario(build, x))
    params, state = f.init(KEY, X)
    found = [(params, state)]
    for _ in range(calls):
        y, state = f.apply(params, state, KEY, X)
        found.append((y, state))
    return found


def same_as_by_hand(scenario):
    assert_equal(steps(bridged, scenario), steps(ByHand, scenario))


def forced(name):
    return lambda: hk.name_scope(hk.experimental.force_name(name))


class NoState(nn.Module):
    lift: Callable[..., Any] = staticmethod(lambda cls: cls)

    @nn.compact
    def __call__(self, x):
        return self.lift(Weigh)(name="weigh")(x)


class Weigh(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.param("w", keyed(ramp), (x.shape[-1],))
        b = self.param("b", keyed(ramp), (1,), jnp.bfloat16)
        w, b = jnp.broadcast_to(w, x.shape), jnp.broadcast_to(b, x.shape)
        return x * w + b.astype(x.dtype)


class NoStateByHand(hk.Module):
    def __call__(self, x):
        with hk.name_scope("weigh"):
            w = hk.get_parameter("w", (x.shape[-1],), init=ramp)
            b = hk.get_parameter("b", (1,), jnp.bfloat16, init=ramp)
        w, b = jnp.broadcast_to(w, x.shape), jnp.broadcast_to(b, x.shape)
        return x * w + b.astype(x.dtype)


def lifted(lift):
    return lambda name: FlaxModule(NoState(lift), name=name)


PLAIN = lifted(lambda cls: cls)


LIFTS = {"plain": lambda cls: cls, "remat": nn.remat, "jit": nn.jit}


def keep(move, value, context):
    return move(value)


class Stop(Exception):
    pass


class Steps(nn.Module):
    """Three counters one after another, and an error at one place, if asked for."""

    lift: Callable[..., Any] = staticmethod(lambda cls: cls)

    @nn.compact
    def __call__(self, x, stop=None):
        for name in ("one", "two", "three"):
            if stop == f"before {name}":
                raise Stop
            x = self.lift(Scale)(name=name)(x)
            if stop == f"after {name}":
                raise Stop
        w = self.param("last", keyed(ramp), (1,))
        if stop == "end":
            raise Stop
        return x * jnp.broadcast_to(w, x.shape)


class StepsByHand(hk.Module):
    def __call__(self, x, stop=None):
        for name in ("one", "two", "three"):
            if stop == f"before {name}":
                raise Stop
            with forced(f"{self.module_name}/{name}")():
                w = hk.get_parameter("w", (x.shape[-1],), init=ramp)
            with forced(f"{self.module_name}/counts/{name}")():
                n = hk.get_state("n", (), init=jnp.ones)
                if not hk.running_init():
                    n = n + 1
                    hk.set_state("n", n)
            x = x * jnp.broadcast_to(w, x.shape) + n
            if stop == f"after {name}":
                raise Stop
        w = hk.get_parameter("last", (1,), init=ramp)
        if stop == "end":
            raise Stop
        return x * jnp.broadcast_to(w, x.shape)


def steps_of(lift):
    lift = functools.cache(lift)  # one class, as at the top of a file
    return lambda name: FlaxModule(Steps(lift), name=name)
