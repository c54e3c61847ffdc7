"""Wrapped recurrent cells: the call has Haiku's order, all else is as natively."""

import inspect

from catalogue import array
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest

import hk_bridge
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X, CARRY = array(2, 4), array(2, 4) * 3.0  # a batch of two, which unpacks as a pair


class Cell(nn.RNNCellBase):
    num_feature_axes = 1

    @nn.compact
    def __call__(self, carry, x, scale=1.0):
        y = scale * nn.Dense(4, name="dense")(x) + carry
        count = self.variable("stats", "count", jnp.zeros, (1, 1))
        count.value = count.value + 1.0
        return 2.0 * y, y

    def step(self, carry, x):
        return self(carry, x)

    def run(self, carry, x):
        return self(carry, x)[1]  # [2, 4]: two rows

    def norm(self, x):
        return jnp.abs(x).sum()

    def nothing(self):
        return ()

    @nn.nowrap
    def initialize_carry(self, rng, shape):
        return jnp.zeros([*shape[:-1], 4])


class Sub(Cell):
    """Has a call of its own."""

    def __call__(self, carry, x, scale=1.0):
        carry, y = super().__call__(carry, x, scale)
        return carry + 1.0, y - 1.0


Wrapped, WrappedSub = hk_bridge.wrap(Cell), hk_bridge.wrap(Sub)
VARIABLES = {
    "params": {"dense": {"kernel": array(4, 4), "bias": array(4)}},
    "stats": {"count": jnp.ones((1, 1))},
}


def haiku(use, cls=Wrapped):
    """What `use(net)` gives at apply."""
    params, state = hk_bridge.to_haiku(VARIABLES, name="net")
    f = hk.transform_with_state(lambda: use(cls(name="net")))
    return f.apply(params, state, None)[0]


def native(*args, cls=Cell, **kwargs):
    kwargs = {"mutable": ["stats"], **kwargs}
    return cls().apply(VARIABLES, *args, **kwargs)


METHODS = {
    "name": ("step", (CARRY, X)),
    "function": (Cell.step, (CARRY, X)),
    "bound": (Cell().step, (CARRY, X)),
    "lambda": (lambda cell, *args: cell(*args), (CARRY, X)),
    "rows": ("run", (CARRY, X)),
    "rows_by_function": (Cell.run, (CARRY, X)),
    "one_argument": ("norm", (X,)),
    "no_argument": ("nothing", ()),
    "of_the_wrapped_class": (Wrapped.run, (CARRY, X)),
}


@pytest.mark.parametrize(("method", "args"), METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("cls", [Wrapped, WrappedSub])
def test_a_method_gives_what_it_gives_natively(method, args, cls):
    theirs = {"cls": cls.flax_class, "method": getattr(method, "flax_method", method)}
    output, mutated = native(*args, **theirs)
    assert_identical(haiku(lambda net: net(*args, method=method), cls), output)
    options = {"mutable": ["stats"]}
    found = haiku(lambda net: net(*args, method=method, **options), cls)
    assert_identical(found, (output, mutated))
    options = {"mutable": ["stats", "intermediates"], "capture_intermediates": True}
    found = haiku(lambda net: net(*args, method=method, **options), cls)
    assert_identical(found, native(*args, **theirs, **options))


def test_public_methods_are_as_natively():
    assert_identical(
        haiku(lambda net: (net.step(CARRY, X), net.run(CARRY, X))),
        (native(CARRY, X)[0], native(CARRY, X)[0][1]),
    )


@pytest.mark.parametrize("cls", [Wrapped, WrappedSub])
def test_the_call_has_haikus_order_by_whatever_name(cls):
    flax_class = cls.flax_class
    (carry, y), mutated = native(CARRY, X, 2.0, cls=flax_class)
    bound = flax_class().__call__
    for method in (None, "__call__", flax_class.__call__, bound, cls.__call__):
        use = lambda net, method=method, **options: net(
            X, CARRY, 2.0, method=method, **options
        )
        assert_identical(haiku(use, cls), (y, carry))
        found = haiku(lambda net, use=use: use(net, mutable=["stats"]), cls)
        assert_identical(found, ((y, carry), mutated))
    use = lambda net: net(inputs=X, prev_state=CARRY, scale=2.0)
    assert_identical(haiku(use, cls), (y, carry))


def test_the_call_of_a_base_is_a_method():
    found = haiku(lambda net: net(CARRY, X, method=Cell.__call__), WrappedSub)
    assert_identical(found, native(CARRY, X, cls=Sub, method=Cell.__call__)[0])


def test_what_is_captured_is_flaxs():
    options = {"mutable": ["stats", "intermediates"], "capture_intermediates": True}
    found = haiku(lambda net: net(X, CARRY, **options))
    (carry, y), mutated = native(CARRY, X, **options)
    assert_identical(found, ((y, carry), mutated))
    captured = haiku(lambda net: net(X, CARRY, capture_intermediates=True))
    assert_identical(captured, (y, carry))


def test_the_signature_says_the_order():
    names = list(inspect.signature(Wrapped.__call__).parameters)
    assert names == [
        "self", "inputs", "prev_state", "args", "rngs", "mutable",
        "capture_intermediates", "method", "kwargs",
    ]  # fmt: skip
    with pytest.raises(TypeError, match="prev_state"):
        haiku(lambda net: net(X))


def test_a_subclass_in_haiku():
    class Doubled(Wrapped):
        def __call__(self, inputs, prev_state):
            output, state = super().__call__(inputs, prev_state)
            return 2.0 * output, state

    carry, y = native(CARRY, X)[0]
    assert_identical(haiku(lambda net: net(X, CARRY), Doubled), (2.0 * y, carry))


def test_a_method_of_a_decorated_class_may_name_what_to_run():
    @hk_bridge.wrap
    class Net(nn.Module):
        def setup(self):
            self.dense = nn.Dense(4)

        def __call__(self, x):
            return self.dense(x)

        def twice(self, x):
            return self(self(x))

    def forward(x):
        net = Net(name="net")
        return net(x, method=Net.twice), net.twice(x), net(x, method=net.twice)

    f = hk.transform(forward)
    one, two, three = f.apply(f.init(KEY, X), None, X)
    assert_identical(one, two)
    assert_identical(three, two)
