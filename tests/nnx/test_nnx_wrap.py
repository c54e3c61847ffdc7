"""`wrap` of NNX classes: built at init with keys of Haiku, and by shape at apply."""

import functools

from catalogue import array
from catalogue_nnx import Coder
from catalogue_nnx import Deep
from catalogue_nnx import Nothing
from catalogue_nnx_models import Gemma
from catalogue_nnx_models import Mlp
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from replay import keys_of
from replay import pure
from replay import replayed

from hk_bridge import FlaxModule
from hk_bridge import VariablesError
from hk_bridge import to_flax
from hk_bridge import to_haiku
from hk_bridge import wrap
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


class Reversed(nnx.Module):
    """Asks for dropout's key before that of its parameters."""

    def __init__(self, width, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.layer = nnx.Linear(4, width, rngs=rngs)

    def __call__(self, x):
        return self.layer(self.dropout(x))


def init(cls, *args, x=X, rngs=None, key=KEY, **kwargs):
    def forward(x):
        return wrap(cls)(*args, name="net", **kwargs)(x, rngs=rngs)

    f = hk.transform_with_state(forward)
    return f, *f.init(key, x)


# Bits.


@pytest.mark.parametrize(
    ("cls", "args", "x"),
    [
        (nnx.Linear, (4, 3), X),
        (nnx.BatchNorm, (4,), X),
        (Deep, (), X),
        (Mlp, (4, 8, 3), X),
        (Gemma, (7, 8, 2), jnp.array([[0, 2, 1], [4, 1, 3]])),
    ],
)
def test_values_are_those_of_the_class_with_two_keys(cls, args, x):
    """The first two keys of Haiku, in the order in which the constructor asks."""
    _, params, state = init(cls, *args, x=x)
    keys = dict(zip(("params", "dropout"), keys_of(KEY, 2), strict=True))
    native = cls(*args, rngs=nnx.Rngs(**keys))
    found = to_flax(params, state, name="net")
    assert_identical(found["params"], pure(native, nnx.Param))
    if nnx.state(native, nnx.BatchStat):
        assert_identical(found["batch_stats"], pure(native, nnx.BatchStat))


def test_keys_are_drawn_in_the_order_of_use():
    _, params, _ = init(Reversed, 3)
    keys = keys_of(KEY, 2)
    native = Reversed(3, rngs=nnx.Rngs(dropout=keys[0], params=keys[1]))
    assert_identical(to_flax(params, {}, name="net")["params"], pure(native, nnx.Param))


def test_other_streams_have_a_key_of_their_own():
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Param(rngs.params())
            self.b = nnx.Variable(rngs.noise())
            self.c = nnx.Variable(rngs())

        def __call__(self, x):
            return x

    _, params, state = init(Noisy)
    keys = dict(zip(("params", "default"), keys_of(KEY, 2), strict=True))
    native = Noisy(rngs=nnx.Rngs(**keys))
    found = to_flax(params, state, name="net")
    assert_identical(found["params"], pure(native, nnx.Param))
    assert_identical(found["Variable"], {"b": native.b[...], "c": native.c[...]})


def test_rngs_of_the_call_build_the_module():
    keys = {"params": jax.random.key(5), "dropout": jax.random.key(6)}
    _, params, _ = init(Mlp, 4, 8, 3, rngs=keys, key=None)
    native = Mlp(4, 8, 3, rngs=nnx.Rngs(**keys))
    assert_identical(to_flax(params, {}, name="net")["params"], pure(native, nnx.Param))


def test_rngs_of_the_constructor_build_the_module():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            return self.layer(x)

    f = hk.transform(lambda x: wrap(Net)(name="net", rngs=nnx.Rngs(4))(x))
    params = f.init(None, X)
    native = Net(nnx.Rngs(4))
    assert_identical(to_flax(params, {}, name="net")["params"], pure(native, nnx.Param))
    assert_identical(f.apply(params, None, X), native(X))


def test_calls_are_those_of_the_class():
    f, params, state = init(Mlp, 4, 8, 3)
    keys = dict(zip(("params", "dropout"), keys_of(KEY, 2), strict=True))
    native = Mlp(4, 8, 3, rngs=nnx.Rngs(**keys))
    key = jax.random.key(1)
    y, state = f.apply(params, state, key, X)
    assert_identical(y, replayed(native, X, keys={"dropout": keys_of(key, 1)[0]}))
    native(X)
    stats = to_flax({}, state, name="net")["batch_stats"]
    assert_identical(stats, pure(native, nnx.BatchStat))


# Apply is built by shape.


def test_no_initialiser_is_in_the_program_of_apply():
    f, params, state = init(Mlp, 4, 8, 3)
    program = jax.make_jaxpr(f.apply)(params, state, KEY, X)
    instance = Mlp(4, 8, 3, rngs=nnx.Rngs(params=0, dropout=1))
    same = hk.transform_with_state(lambda x: FlaxModule(instance, name="net")(x))
    expected = jax.make_jaxpr(same.apply)(params, state, KEY, X)
    names = lambda program: [eqn.primitive.name for eqn in program.eqns]
    assert names(program) == names(expected)


def test_no_initialiser_runs_at_apply():
    ran = []

    class Net(nnx.Module):
        def __init__(self, rngs):
            make = nnx.initializers.normal()
            log = lambda *args: ran.append(isinstance(args[0], jax.core.Tracer))
            init = lambda *args: (log(*args), make(*args))[1]
            self.layer = nnx.Linear(4, 3, kernel_init=init, rngs=rngs)

        def __call__(self, x):
            return self.layer(x)

    f, params, state = init(Net)
    assert ran == [False]
    f.apply(params, state, None, X)
    f.apply(params, state, KEY, X)
    assert False not in ran[1:]


def test_apply_needs_no_key_for_what_init_draws():
    f, params, state = init(nnx.Linear, 4, 3)
    y, _ = f.apply(params, state, None, X)
    layer = nnx.Linear(4, 3, rngs=nnx.Rngs(params=keys_of(KEY, 1)[0]))
    assert_identical(y, layer(X))


def test_nothing_that_is_built_outlives_its_trace():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.scale = nnx.Param(jax.random.normal(rngs.params(), [4]))
            self.table = nnx.data(jnp.arange(4.0) + 1.0)

        def __call__(self, x):
            return x * self.scale.get_value()[None] + self.table[None]

    f, params, state = init(Net)
    with jax.checking_leaks():
        jax.make_jaxpr(f.apply)(params, state, None, X)


def test_a_module_that_is_called_twice_is_built_once():
    built = []

    class Net(nnx.Module):
        def __init__(self, rngs):
            built.append(None)
            self.layer = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            return self.layer(x)

    def forward(x):
        net = wrap(Net)(name="net")
        return net(net(x))

    f = hk.transform(forward)
    params = f.init(KEY, X)
    assert len(built) == 1
    f.apply(params, None, X)
    assert len(built) == 2


# The class.


def test_methods():
    Wrapped = wrap(Coder)

    def forward(x):
        net = Wrapped(name="net")
        z = net.encode(x)
        return z, net.decode(z), net(x), net(x, method="encode")

    f = hk.transform(forward)
    params = f.init(KEY, X)
    assert sorted(params) == ["net/decoder", "net/encoder"]
    z, y, whole, again = f.apply(params, None, X)
    native = Coder(nnx.Rngs(params=keys_of(KEY, 1)[0]))
    assert_identical((z, y), (native.encode(X), native(X)))
    assert_identical((whole, again), (y, z))


@pytest.mark.parametrize("lift", [nnx.jit, nnx.remat])
def test_methods_under_transforms(lift):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.Linear(4, 3, rngs=rngs)

        @lift
        def __call__(self, x):
            """What it gives."""
            return self.layer(x)

        @lift
        def twice(self, x, scale):
            return self.layer(x) * scale

        @staticmethod
        def halve(x):
            return x / 2.0

    Wrapped = wrap(Net)

    def forward(x):
        net = Wrapped(name="net")
        return net(x), net.twice(x, 2.0), Wrapped.halve(x)

    f = hk.transform(forward)
    params = f.init(KEY, X)
    native = Net(nnx.Rngs(params=keys_of(KEY, 1)[0]))
    assert_identical(
        f.apply(params, None, X), (native(X), native.twice(X, 2.0), X / 2.0)
    )
    assert Wrapped.__call__.__doc__ == "What it gives."


def test_the_class_is_known():
    Wrapped = wrap(Coder)
    assert Wrapped.flax_class is Coder
    assert Wrapped.__name__ == "Coder"
    assert "several methods" in Wrapped.__doc__.lower()
    assert issubclass(Wrapped, hk.Module)
    params = hk.transform(lambda x: Wrapped()(x)).init(KEY, X)
    assert sorted(params) == ["coder/decoder", "coder/encoder"]


@pytest.mark.parametrize("cls", [Nothing, functools.partial(nnx.PReLU, 0.25)])
def test_classes_that_take_no_rngs(cls):
    if isinstance(cls, functools.partial):
        cls, args = cls.func, cls.args
    else:
        args = ()
    f, params, state = init(cls, *args, key=None)
    y, _ = f.apply(params, state, None, X)
    assert_identical(y, cls(*args)(X))


def test_variables_are_given():
    native = Mlp(4, 8, 3, rngs=nnx.Rngs(7))
    given = {"params": {"linear1": pure(native.linear1)}}
    _, params, _ = init(Mlp, 4, 8, 3, variables=given)
    found = to_flax(params, {}, name="net")["params"]
    assert_identical(found["linear1"], given["params"]["linear1"])
    _, plain, _ = init(Mlp, 4, 8, 3)
    rest = to_flax(plain, {}, name="net")["params"]
    assert_identical(found["linear2"], rest["linear2"])


@pytest.mark.parametrize(
    ("args", "kwargs", "match"),
    [((), {}, "in_features"), ((4, 3), {"widht": 2}, "widht"), ((4, 3, 2), {}, "arg")],
)
def test_what_the_constructor_refuses(args, kwargs, match):
    f = hk.transform(lambda x: wrap(nnx.Linear)(*args, **kwargs)(x))
    with pytest.raises(TypeError, match=match):
        f.init(KEY, X)


def test_lists_are_modules_like_others():
    f, params, _ = init(Deep)
    assert "net/rows/%i0/%i1" in params
    assert "net/plain/%i0/w" in params
    variables = to_flax(params, {}, name="net")
    assert list(variables["params"]["rows"]) == [0, 1]
    again, _ = to_haiku(variables, name="net")
    assert_identical(again, params)


def test_a_class_with_all_its_values_needs_no_key():
    """As a linen module that has all its `variables`, and as an instance."""
    _, params, state = init(Deep)
    variables = to_flax(params, state, name="net")
    _, *again = init(Deep, key=None, variables=variables)
    assert_identical(again, [params, state])


def test_a_class_without_all_its_values_says_which_it_lacks():
    _, params, state = init(Deep)
    variables = to_flax(params, state, name="net")
    first = sorted(variables["params"])[0]
    del variables["params"][first]
    with pytest.raises(VariablesError, match=f"'{first}/.*give init a key"):
        init(Deep, key=None, variables=variables)
