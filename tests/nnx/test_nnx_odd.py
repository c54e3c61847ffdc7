"""Odd NNX modules in Haiku, against the same in Flax: names, values, structure."""

import enum

from catalogue import array
from flax import errors
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replay import keys_of
from replay import pure
from replay import replayed

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import to_flax
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


def transform(module, **options):
    forward = lambda *args: FlaxModule(module, name="net")(*args, **options)
    return hk.transform_with_state(forward)


class Kind(enum.StrEnum):
    A = "a/b"
    B = "b"


class Named(nnx.Module):
    """Keys of every kind that NNX takes."""

    def __init__(self):
        self.kinds = nnx.data({kind: nnx.Param(jnp.ones(4)) for kind in Kind})
        self.pairs = nnx.data({(1, 2): nnx.Param(jnp.ones(4)), (0, 3): None})
        setattr(self, "%i0", nnx.Param(jnp.ones(4)))
        self.__hidden = nnx.BatchStat(jnp.ones(4))

    def __call__(self, x):
        self.__hidden[...] *= 2.0
        x = x * self.kinds[Kind.A][...][None] + getattr(self, "%i0")[...][None]
        return x * self.pairs[1, 2][...][None] + self.__hidden[...][None]


def test_keys_of_every_kind():
    params, state = transform(Named()).init(None, X)
    assert sorted(params) == ["net", "net/kinds", "net/pairs"]
    assert sorted(params["net/kinds"]) == ["a%2Fb", "b"]
    assert list(params["net/pairs"]) == ["(1, 2)"]
    assert list(params["net"]) == ["%25i0"]
    assert list(state["net/batch_stats"]) == ["_Named__hidden"]
    copy = Named()
    for _ in range(2):
        y, state = transform(Named()).apply(params, state, None, X)
        assert_identical(y, copy(X))


def test_types_of_one_name():
    """Two types may have the same name: each Variable keeps its own."""

    def made(factor):
        class Stat(nnx.Variable):
            pass

        Stat.factor = factor
        return Stat

    one, two = made(2.0), made(3.0)

    class Stats(nnx.Module):
        def __init__(self):
            self.one, self.two = one(jnp.ones(4)), two(jnp.ones(4))

        def __call__(self):
            for stat in (self.one, self.two):
                stat[...] *= stat.factor
            return type(self.one) is one, type(self.two) is two

    f = transform(Stats())
    params, state = f.init(None)
    types, state = f.apply(params, state, None)
    assert types == (True, True)
    found = {name: float(x[0]) for name, x in state["net/Stat"].items()}
    assert found == {"one": 2.0, "two": 3.0}


def test_variables_change_places():
    class Swaps(nnx.Module):
        def __init__(self):
            self.a, self.b = nnx.Cache(jnp.zeros(4)), nnx.Cache(jnp.ones(4))

        def __call__(self):
            self.a, self.b = self.b, self.a
            self.a[...] += 2.0

    f, copy = transform(Swaps()), Swaps()
    params, state = f.init(None)
    for _ in range(3):
        _, state = f.apply(params, state, None)
        copy()
        assert_identical(to_flax({}, state, name="net")["cache"], pure(copy))


def test_objects_that_are_no_modules():
    class Holder(nnx.Pytree):
        def __init__(self):
            self.layer = nnx.Linear(4, 3, rngs=nnx.Rngs(0))

    class Holds(nnx.Module):
        def __init__(self):
            self.holder = Holder()

        def __call__(self, x):
            return self.holder.layer(x)

    module = Holds()
    for method in (None, module.holder.layer.__call__, module.holder.layer):
        f = transform(module, method=method)
        params, state = f.init(None, X)
        assert list(params) == ["net/holder/layer"]
        assert_identical(f.apply(params, state, None, X)[0], module(X))


def test_streams_in_many_places():
    class Drops(nnx.Module):
        def __init__(self, rngs):
            make = lambda: nnx.Dropout(0.5, rngs=rngs.fork())
            self.z = make()
            self.rows = nnx.List([make() for _ in range(11)])
            self.named = nnx.data({"k10": make(), "k9": make()})

        def __call__(self, x):
            for row in self.rows:
                x = x + row(x)
            return x + self.named["k9"](x) + self.named["k10"](x) + self.z(x)

    module = Drops(nnx.Rngs(0))
    f = transform(module)
    params, state = f.init(KEY, X)
    keys = {"default": keys_of(KEY, 1)[0]}
    y = f.apply(params, state, KEY, X)[0]
    assert_identical(y, replayed(module, X, keys=keys))


# What a call makes.


class Late(nnx.Module):
    """Makes Variables in a call wherever there is a place."""

    def __init__(self):
        self.last = nnx.data(None)
        self.rows = nnx.List([])
        self.named = nnx.Dict({})
        self.part = nnx.data({"inner": LatePart()})

    def __call__(self):
        if self.last is None:
            self.last = nnx.Cache(jnp.zeros(4))
            self.named["a"] = nnx.Cache(jnp.zeros(4))
        for i in range(len(self.rows), 11):
            self.rows.append(nnx.Cache(jnp.full([4], float(i))))
        for variable in (self.last, self.rows[10], self.named["a"]):
            variable[...] += 1.0
        return self.last[...], self.rows[10][...], self.part["inner"]()


class LatePart(nnx.Pytree):
    def __init__(self):
        self.mean = nnx.data(None)

    def __call__(self):
        if self.mean is None:
            self.mean = nnx.BatchStat(jnp.zeros(4))
        self.mean[...] += 3.0
        return self.mean[...]


def test_what_a_call_makes_lasts():
    seen = []

    def forward():
        net = FlaxModule(Late(), name="net")
        outputs = [net(), net(), net()]
        seen.append(outputs)
        return outputs

    f = hk.transform_with_state(forward)
    params, state = f.init(None)
    copy = Late()
    assert_identical(seen, [[copy(), copy(), copy()]])
    copy = Late()
    copy()  # as init gives what the first call left
    for apply in (f.apply, jax.jit(f.apply)):
        y, state = apply(params, state, None)
        assert_identical(y, [copy(), copy(), copy()])


def test_its_type_may_be_unknown():
    """As where init ran in another process."""

    class Unheard(nnx.Variable):
        pass

    class Makes(nnx.Module):
        def __init__(self):
            self.last = nnx.data(None)

        def __call__(self):
            if self.last is None:
                self.last = Unheard(jnp.zeros(4))
            self.last[...] += 1.0
            return self.last[...]

    state = {"net/Unheard": {"last": jnp.full([4], 5.0)}}
    y, after = transform(Makes()).apply({}, state, None)
    assert_identical((y, after["net/Unheard"]["last"]), (jnp.full([4], 6.0),) * 2)


@pytest.mark.parametrize("collection", ["cache", "params"])
def test_modules_that_a_call_makes_are_an_error(collection):
    class Makes(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.data(None)
            self.rngs = rngs

        def __call__(self, x):
            if self.layer is None and collection == "params":
                self.layer = nnx.Linear(4, 3, rngs=self.rngs)
            elif self.layer is None:
                self.layer = nnx.data({"kernel": nnx.Cache(jnp.zeros(4))})
            return x

    f = transform(Makes(nnx.Rngs(0)))
    params, state = f.init(KEY, X)
    with pytest.raises(hk_bridge.StateStructureError, match="in __init__") as caught:
        f.apply(params, state, KEY, X)
    assert collection in str(caught.value)
    module = Makes(nnx.Rngs(0))

    def twice(x):
        net = FlaxModule(module)
        return net(net(x))

    with pytest.raises(hk_bridge.StateStructureError, match="before it is given"):
        hk.transform_with_state(twice).init(KEY, X)


# What is written.


class Writes(nnx.Module):
    def __init__(self):
        self.w = nnx.Param(jnp.ones(4))

    def __call__(self):
        self.w[...] += 1.0
        return self.w[...].sum()


@pytest.mark.parametrize("over", [jax.grad, jax.jit, jax.vmap])
def test_parameters_are_not_written_under(over):
    f = transform(Writes())
    params, state = f.init(None)
    if over is jax.vmap:
        params = jax.tree.map(lambda x: jnp.stack([x, x]), params)
    with pytest.raises(errors.ModifyScopeVariableError, match="w"):
        over(lambda params: f.apply(params, state, None)[0])(params)


def test_what_passed_through_is_not_written_under_grad_and_vmap():
    class Passes(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            run = lambda norm, x: norm(x, use_running_average=True)
            return nnx.remat(run)(self.norm, x)

    f = transform(Passes(), mutable=False)
    params, state = f.init(None, X)
    loss = lambda params, state, x: f.apply(params, state, None, x)[0].sum()
    for number in (0, 1, 2):
        given = [params, state, X]
        jax.grad(loss, argnums=number)(*given)
        given[number] = jax.tree.map(lambda x: jnp.stack([x, x]), given[number])
        axes = [0 if i == number else None for i in range(3)]
        jax.vmap(loss, in_axes=axes)(*given)


@pytest.mark.parametrize("lift", [nnx.jit, nnx.remat])
@pytest.mark.parametrize("over", [lambda f: f, jax.jit, jax.grad])
def test_arrays_in_attributes_pass_through(lift, over):
    class Passes(nnx.Module):
        def __init__(self):
            self.array, self.numbers = jnp.ones(4), np.ones(4, np.float32)
            self.w = nnx.Param(jnp.ones(4))

        def __call__(self, x):
            scale = lambda m, x: x * m.array[None] * m.numbers[None] * m.w[...][None]
            return lift(scale)(self, x).sum()

    f = transform(Passes())
    params, state = f.init(None, X)
    run = over(lambda params: f.apply(params, state, None, X)[0])
    model = nnx.split(Passes(), nnx.Param, ...)
    expected = over(lambda params: nnx.merge(model[0], params, model[2])(X))(model[1])
    expected = nnx.to_pure_dict(expected) if over is jax.grad else expected
    expected = {"net": expected} if over is jax.grad else expected
    assert_identical(run(params), expected)


def test_variables_of_hijax_are_refused():
    class Refers(nnx.Module):
        def __init__(self):
            self.mean = nnx.Cache(jnp.zeros(4), hijax=True)

        def __call__(self):
            self.mean[...] += 1.0

    module = Refers()
    with pytest.raises(hk_bridge.ModuleTypeError, match="'mean' .* hijax=False"):
        transform(module).init(None)
    assert not module.mean[...].any()


@pytest.mark.parametrize("where", ["attribute", "variable"])
def test_arrays_of_numpy_are_not_written_in_place(where):
    class InPlace(nnx.Module):
        def __init__(self):
            self.attribute = np.zeros(4, np.float32)
            self.variable = nnx.Cache(np.zeros(4, np.float32))

        def __call__(self):
            written = self.attribute
            if where == "variable":
                written = self.variable.get_raw_value()
            written += 1.0

    module = InPlace()
    with pytest.raises(ValueError, match="read-only"):
        transform(module).init(None)
    assert not module.attribute.any()
    assert not module.variable.get_raw_value().any()


# What is seen.


def test_functions_sow():
    def log(module, x):
        module.sow(nnx.Intermediate, "h", x)

    class Logs(nnx.Module):
        def __call__(self, x):
            log(self, x)
            return x

    f = transform(Logs(), mutable=["intermediates"])
    params, state = f.init(None, X)
    (_, mutated), _ = f.apply(params, state, None, X)
    assert_identical(mutated, {"intermediates": {"h": (X,)}})
    method = lambda module, x: log(module, x + 1.0)
    f = transform(Logs(), mutable=["intermediates"], method=method)
    (_, mutated), _ = f.apply(params, state, None, X)
    assert_identical(mutated, {"intermediates": {"h": (X + 1.0,)}})


def test_classes_are_not_registered_twice():
    """What a user does to each class is not done to those that tell."""
    registered = []

    class Base(nnx.Module):
        def __init_subclass__(cls, *, tag, **kwargs):
            super().__init_subclass__(**kwargs)
            registered.append(tag)

    class Tagged(Base, tag="a"):
        def __init__(self):
            self.inner = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.inner(x)

    module = Tagged()
    f = transform(module, capture_intermediates=True, mutable=["intermediates"])
    params, state = f.init(None, X)
    (y, mutated), _ = f.apply(params, state, None, X)
    assert_identical(y, module(X))
    assert set(mutated["intermediates"]) == {"__call__", "inner"}
    assert registered == ["a"]
