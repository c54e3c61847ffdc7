"""Leaves that are not Flax's do not get into Flax's variables."""

from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from recorded import AXES
from recorded import KEY
from recorded import NAME
from recorded import PARAMS_KEY
from recorded import Body
from recorded import X

from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical


class Looks(nn.Module):
    """Adds the number of leaves that it sees."""

    lift: Any = staticmethod(lambda cls: cls)
    function: Any = staticmethod(lambda x: x)

    @nn.compact
    def __call__(self, x):
        y = self.function(self.lift(nn.Dense)(4, name="dense")(x))
        return y + len(jax.tree.leaves(self.variables))


def adapted(next_getter, value, context):
    """Adds to each weight a parameter of the getter's own."""
    if context.name.endswith("_delta"):
        return next_getter(value)
    name, half = f"{context.name}_delta", hk.initializers.Constant(0.5)
    return next_getter(value) + hk.get_parameter(name, value.shape, init=half)


@pytest.mark.parametrize(
    "lift",
    [
        lambda cls: cls,
        nn.remat,
        nn.jit,
        lambda cls: nn.vmap(
            cls, variable_axes={"params": 0}, split_rngs={"params": True}
        ),
        lambda cls: nn.remat(nn.jit(cls)),
    ],
    ids=["plain", "remat", "jit", "vmap", "both"],
)
def test_leaves_of_a_getter(lift):
    module = Looks(lift)
    native = module.init(PARAMS_KEY, X)

    def forward():
        with hk.custom_getter(adapted):
            net = FlaxModule(module, name=NAME)
            return net(X, rngs=PARAMS_KEY), net.variables

    # What init knows, apply does not: it may run in another process.
    params, state = hk.transform_with_state(forward).init(None)
    assert len(jax.tree.leaves(params)) == 2 * len(jax.tree.leaves(native))
    (y, variables), _ = hk.transform_with_state(forward).apply(params, state, None)
    assert_identical(variables, jax.tree.map(lambda v: v + 0.5, native))
    assert_identical(y, module.apply(variables, X))


def test_a_scalar_of_a_getter_under_scan():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(4)(x), None

    module = nn.scan(Block, length=3, **AXES)()

    def gained(next_getter, value, context):
        if context.name == "gain":
            return next_getter(value)
        return next_getter(value) * hk.get_parameter("gain", [], init=jnp.ones)

    def forward():
        with hk.custom_getter(gained):
            return FlaxModule(module, name=NAME)(X, None, rngs=PARAMS_KEY)

    f = hk.transform_with_state(forward)
    params, state = f.init(None)
    native = module.init(PARAMS_KEY, X, None)
    assert_identical(f.apply(params, state, None)[0], module.apply(native, X, None))


FIELDS = {
    "linear": lambda: hk.Linear(4),
    "linear_of_a_name_of_flax": lambda: hk.Linear(4, name="dense"),
    "bridged": lambda: FlaxModule(Body(parent=None), name="inner"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_leaves_of_a_function_in_a_field(field):
    seen = []

    def forward():
        function = lambda x: FIELDS[field]()(x)
        net = FlaxModule(Looks(function=function), name=NAME)
        y = net(X, rngs=PARAMS_KEY)
        seen.append((y, net.variables))
        return y

    params, state = hk.transform_with_state(forward).init(KEY)
    hk.transform_with_state(forward).apply(params, state, KEY)
    (_, at_init), (_, at_apply) = seen
    native = Looks().init(PARAMS_KEY, X)
    assert_identical(at_init, native)
    assert_identical(at_apply, native)


def test_leaves_of_a_subclass():
    class Scaled(FlaxModule):
        def __call__(self, x):
            y = super().__call__(x, rngs=PARAMS_KEY)
            scaled = y * hk.get_parameter("scale", [], init=jnp.ones)
            return y, hk.Linear(4, name="dense")(scaled), self.variables

    forward = lambda: Scaled(Looks(), name=NAME)(X)
    params, state = hk.transform_with_state(forward).init(KEY)
    (y, _, seen), _ = hk.transform_with_state(forward).apply(params, state, None)
    native = Looks().init(PARAMS_KEY, X)
    assert_identical(seen, native)
    assert_identical(y, Looks().apply(native, X))
