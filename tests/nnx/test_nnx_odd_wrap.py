"""Odd NNX classes that are wrapped: their arguments, their arrays, their attributes."""

import dataclasses
import gc
import threading
import typing
import weakref

from catalogue import array
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay import keys_of
from replay import pure

from hk_bridge import to_flax
from hk_bridge import wrap
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


def transform(cls, *args, **kwargs):
    net = wrap(cls)
    return hk.transform_with_state(lambda x: net(*args, name="net", **kwargs)(x))


def same_as_class(cls, *args, **kwargs):
    """The class and the wrapped one have the same values and outputs."""
    f = transform(cls, *args, **kwargs)
    params, state = f.init(KEY, X)
    names = ("params", "dropout")
    module = cls(
        *args, rngs=nnx.Rngs(**dict(zip(names, keys_of(KEY, 2), strict=True))), **kwargs
    )
    found = to_flax(params, {}, name="net")["params"]
    assert_identical(found, pure(module, nnx.Param))
    assert_identical(f.apply(params, state, None, X)[0], module(X))


# Constructors.


class Layer(nnx.Module):
    def __init__(self, width, rngs):
        self.layer = nnx.Linear(4, width, rngs=rngs)

    def __call__(self, x):
        return self.layer(x)


class Keywords(Layer):
    def __init__(self, **kwargs):
        super().__init__(3, **kwargs)


class First(Layer):
    def __init__(self, rngs, width=3):
        super().__init__(width, rngs)


@dataclasses.dataclass
class Data(nnx.Module):
    width: int = 3
    rngs: dataclasses.InitVar[nnx.Rngs] = dataclasses.field(kw_only=True)

    def __post_init__(self, rngs):
        self.layer = nnx.Linear(4, self.width, rngs=rngs)

    def __call__(self, x):
        return self.layer(x) * self.width


T = typing.TypeVar("T")


class Generic(Layer, typing.Generic[T]):
    pass


class Special(Generic[int]):
    pass


@pytest.mark.parametrize(
    ("cls", "args", "kwargs"),
    [
        (Layer, (3,), {}),
        (Keywords, (), {}),
        (First, (), {"width": 2}),
        (Data, (), {}),
        (Special, (3,), {}),
    ],
)
def test_constructors(cls, args, kwargs):
    same_as_class(cls, *args, **kwargs)


def other_name(cls):
    class Other(Layer):
        def __init__(self, width, *, generator):
            super().__init__(width, generator)

    return Other


@pytest.mark.parametrize("by", ["position", "name", "other name"])
def test_rngs_that_are_given(by):
    given = nnx.Rngs(3)
    args, kwargs, cls = (3,), {"rngs": given}, Layer
    if by == "position":
        args, kwargs = (3, given), {}
    elif by == "other name":
        kwargs, cls = {"generator": given}, other_name(Layer)
    f = transform(cls, *args, **kwargs)
    params, state = f.init(None, X)
    expected = Layer(3, nnx.Rngs(3))
    assert_identical(f.apply(params, state, None, X)[0], expected(X))
    count = int(given.default.count[...])
    jax.jit(f.apply)(params, state, None, X)
    assert int(given.default.count[...]) == count


def test_modules_are_arguments():
    class Around(Layer):
        def __init__(self, inner, *, rngs):
            super().__init__(3, rngs)
            self.inner = inner

        def __call__(self, x):
            return super().__call__(self.inner(x))

    inner = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    f = transform(Around, inner)
    params, state = f.init(KEY, X)
    y, _ = f.apply(params, state, KEY, X)
    key = keys_of(KEY, 1)[0]
    module = Around(nnx.clone(inner), rngs=nnx.Rngs(params=key))
    nnx.reseed(module, default=key)
    assert_identical(y, module(X))


# Arrays in attributes.


class Arrays(nnx.Module):
    """Its array has other bits if XLA makes one program of what computes it."""

    def __init__(self, *, rngs):
        t = jnp.linspace(-3.0, 7.0, 1000).reshape(10, 100)
        self.table = jax.nn.softmax(t * 1.234 + 0.1) * t / 3.0 + t * t
        self.grid = np.linspace(0, 1, 4)
        self.w = nnx.Param(jax.random.normal(rngs.params(), (4,)))

    def __call__(self, x):
        return self.table, np.sin(self.grid).tobytes(), self.w[...] + x.sum(1)[0]


def test_arrays_have_the_bits_of_the_class():
    same_as_class(Arrays)


def test_arrays_of_numpy_stay_so():
    f = transform(Arrays)
    params, state = f.init(KEY, X)
    text = f.apply(params, state, None, X)[0][1]
    assert text == np.sin(np.linspace(0, 1, 4)).tobytes()


def test_flags_count():
    class Flags(nnx.Module):
        def __init__(self):
            self.numbers = jnp.arange(4) + 1

        def __call__(self, x):
            return self.numbers

    f = transform(Flags)
    for wide in (False, True, False):
        with jax.enable_x64(wide):
            assert_identical(f.apply({}, {}, None, X)[0], Flags()(X))


def test_arrays_that_are_traced():
    class Given(nnx.Module):
        def __init__(self, value):
            self.w, self.twice = nnx.Param(value), value * 2.0

        def __call__(self, x):
            return x * self.w[...][None] + self.twice[None]

    net = wrap(Given)
    f = hk.transform_with_state(lambda value, x: net(value, name="net")(x))
    value = array(4)
    params, state = jax.jit(f.init)(None, value, X)
    y, _ = jax.jit(f.apply)(params, state, None, value, X)
    assert_identical(y, jax.jit(lambda value, x: Given(value)(x))(value, X))


class Reads(nnx.Module):
    """Its constructor reads numbers out of arrays."""

    def __init__(self, depth, *, rngs):
        self.rates = tuple(float(rate) for rate in jnp.linspace(0.0, 0.5, depth))
        self.mask = np.asarray(jnp.tril(jnp.ones([4, 4])))
        self.w = nnx.Param(jax.random.normal(rngs.params(), (4,)) * self.rates[1])

    def __call__(self, x):
        return (x * self.w[...][None]) @ self.mask * sum(self.rates)


class Rows(nnx.Module):
    """A module of which each layer has an array in an attribute."""

    def __init__(self, *, rngs):
        @nnx.vmap(in_axes=0)
        def make(key):
            layer = Layer(4, nnx.Rngs(key))
            layer.shift = jnp.arange(4.0) * 2.0
            return layer

        self.layers = make(jax.random.split(rngs.params(), 3))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(layer, x):
            return layer(x) + layer.shift[None]

        return run(self.layers, x)


@pytest.mark.parametrize(("cls", "args"), [(Reads, (3,)), (Rows, ())])
def test_constructors_that_need_values(cls, args):
    same_as_class(cls, *args)


def test_constructors_that_read_what_a_key_gives():
    class Draws(nnx.Module):
        def __init__(self, *, rngs):
            self.w = nnx.Param(jax.random.normal(rngs.params(), (4,)))
            self.positive = bool(self.w[...].sum() > 0.0)

        def __call__(self, x):
            return x if self.positive else -x

    f = transform(Draws)
    params, state = f.init(KEY, X)
    with pytest.raises(jax.errors.ConcretizationTypeError) as caught:
        f.apply(params, state, None, X)
    assert any("FlaxModule(module)" in note for note in caught.value.__notes__)


# What is remembered.


def test_lists_are_those_of_each_module():
    class Logs(nnx.Module):
        def __init__(self):
            self.log, self.known = [], {"calls": [0]}

        def __call__(self, x):
            self.log.append(x)
            self.known["calls"].append(1)
            return len(self.log), len(self.known["calls"])

    net = wrap(Logs)
    f = hk.transform_with_state(lambda x: (net()(x), net()(x)))
    for _ in range(2):
        assert f.apply({}, {}, None, X)[0] == ((1, 2), (1, 2))


def test_classes_may_change():
    class Wide(nnx.Module):
        width = 3

        def __init__(self, *, rngs):
            self.layer = nnx.Linear(4, self.width, rngs=rngs)

        def __call__(self, x):
            return self.layer(x)

    for width in (3, 2):
        Wide.width = width
        same_as_class(Wide)


def test_nothing_is_kept_alive():
    f = transform(Arrays)
    params, state = f.init(KEY, X)
    y, _ = f.apply(params, state, None, X)
    arrays = [weakref.ref(params["net"]["w"]), weakref.ref(y[2])]
    del params, state, y, f
    gc.collect()
    assert [array() for array in arrays] == [None, None]


def test_many_calls_keep_no_more():
    f = transform(Layer, 3)

    def run():
        params, state = f.init(KEY, X)
        f.apply(params, state, None, X)

    def count():
        gc.collect()
        return len(gc.get_objects())

    for _ in range(3):
        run()
    before = count()
    for _ in range(30):
        run()
    assert count() - before < 30


def test_threads():
    f = transform(Layer, 3)
    params, state = f.init(KEY, X)
    expected = f.apply(params, state, None, X)[0]
    outputs = []

    def run():
        outputs.extend(f.apply(params, state, None, X)[0] for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_identical(outputs, [expected] * 20)
