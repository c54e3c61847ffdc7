"""State that is only read stays what it is, whatever hooks are in force."""

import functools
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import pytest
from recorded import FUNCTIONS
from recorded import LIFTS
from recorded import NAME
from recorded import PARAMS_KEY
from recorded import X
from recorded import assert_very_same

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical


class Evaluated(nn.Module):
    @nn.compact
    def __call__(self, x, *_):
        r = self.variable("stats", "r", jnp.full, [], 0.1234567)
        x = nn.Dense(4, dtype=x.dtype)(x)
        x = nn.BatchNorm(use_running_average=True, dtype=x.dtype)(x)
        return x * r.value.astype(x.dtype)


class EvaluatedLayer(Evaluated):
    @nn.compact
    def __call__(self, x, *_):
        return super().__call__(x), None


class Through(nn.Module):
    """Has a lifted function call a submodule."""

    function: Any

    @nn.compact
    def __call__(self, x):
        inner = Evaluated()
        lift = (lambda f: f) if self.is_initializing() else self.function
        return lift(lambda m, x: m(x))(inner, x)


def by_method(lift):
    class Decorated(nn.Module):
        def setup(self):
            self.inner = Evaluated()

        @lift
        def __call__(self, x):
            return self.inner(x)

    return Decorated


def policy(next_getter, value, context):
    return next_getter(value).astype(jnp.bfloat16)


HOOKS = {
    "policy": lambda: hk.mixed_precision.push_policy(
        FlaxModule, jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    ),
    "getter": lambda: hk.custom_getter(policy, params=False, state=True),
    "setter": lambda: hk.custom_setter(lambda put, v, context: put(v * 0.5)),
}
READERS = {
    **{
        name: lambda lift=lift: lift(Evaluated, EvaluatedLayer)()
        for name, lift in LIFTS.items()
    },
    **{
        f"function under {name}": lambda f=f: Through(f)
        for name, f in FUNCTIONS.items()
    },
    "method under remat": lambda: by_method(nn.remat)(),
    "method under jit": lambda: by_method(nn.jit)(),
    "method under both": lambda: by_method(lambda f: nn.jit(nn.remat(f)))(),
}


@functools.cache
def variables_of(reader):
    return jax.jit(READERS[reader]().init)(PARAMS_KEY, X)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("reader", READERS)
def test_evaluation_leaves_state_alone(reader, hook, at_first):
    module = READERS[reader]()
    params, state = hk_bridge.to_haiku(variables_of(reader), name=NAME)

    def forward():
        with HOOKS[hook](), jax.numpy_dtype_promotion("standard"):
            return FlaxModule(module, name=NAME)(X)

    f = hk.transform_with_state(forward)
    for _ in range(2):
        _, new = f.apply(params, state, None)
        assert_very_same(new, state)
    if hook == "policy":  # where a jitted step would compile twice
        assert_identical(jax.jit(f.apply)(params, state, None)[1], state)
