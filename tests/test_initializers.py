"""Haiku's initialisers in the places of Flax's: known, and fed from Flax's keys."""

import functools

from catalogue import array
from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import _flax
from hk_bridge import initializer
from hk_bridge.testing import assert_identical

# Of `hk.initializers.Orthogonal` and of linen's cells, natively, too.
pytestmark = pytest.mark.usefixtures("promotion")


@pytest.fixture
def promotion():
    with jax.numpy_rank_promotion("allow"):
        yield


KEY, X = jax.random.key(0), array(2, 4)
I = hk.initializers  # noqa: E741


def named(w):
    return getattr(w, "__name__", type(w).__name__)


class Object:
    """Can be called, and has a method."""

    def __call__(self, shape, dtype):
        return I.RandomNormal(2.0)(shape, dtype)

    def method(self, shape, dtype):
        return self(shape, dtype)

    def odd(self, s, d):
        return self(s, d)


def scaled(scale, shape, dtype):
    return scale * jax.random.normal(hk.next_rng_key(), shape, dtype)


HAIKUS = {
    "constant": I.Constant(1.5),
    "normal": I.RandomNormal(0.1),
    "uniform": I.RandomUniform(-1.0, 1.0),
    "truncated": I.TruncatedNormal(0.1),
    "variance": I.VarianceScaling(2.0, "fan_avg", "uniform"),
    "scaling": I.UniformScaling(0.5),
    "orthogonal": I.Orthogonal(),
    "identity": I.Identity(),
    "zeros": jnp.zeros,
    "ones": jnp.ones,
    "array": I.TruncatedNormal(jnp.asarray(0.1)),
    "lambda": lambda shape, dtype: I.RandomNormal()(shape, dtype),
    "default": lambda shape, dtype=jnp.float32, scale=2.0: (
        scale * jnp.ones(shape, dtype)
    ),
    "partial": functools.partial(scaled, 2.0),
    "object": Object(),
    "method": Object().method,
    "jit": jax.jit(jnp.ones, static_argnums=(0, 1)),
    "two_keys": lambda shape, dtype: (
        scaled(1.0, shape, dtype) * scaled(1.0, shape, dtype)
    ),
}
# The class is Flax's own, so what it gives is known, and the names do not matter.
OFFICIAL = {"names": lambda s, d: I.RandomNormal()(s, d), "odd": Object().odd}


def run(forward, *, rng=None, x=X):
    """What `init` makes, and what `apply` gives, with and without jit."""
    f = hk.transform_with_state(forward)
    with jax.checking_leaks():
        params, state = f.init(rng, x)
    outputs = [f.apply(params, state, KEY, x)[0], f.apply(params, state, None, x)[0]]
    outputs.append(jax.jit(f.apply)(params, state, KEY, x)[0])
    assert_identical(outputs[0], outputs[1])
    np.testing.assert_allclose(outputs[0], outputs[2], rtol=1e-5, atol=1e-5)
    return params, outputs[0]


@pytest.mark.parametrize("name", [*HAIKUS, *OFFICIAL])
def test_it_draws_from_the_key_that_flax_gives(name):
    w = {**HAIKUS, **OFFICIAL}[name]
    dtype = jnp.bfloat16 if name in ("truncated", "zeros", "lambda") else jnp.float32
    rngs, config = {"params": KEY}, {"param_dtype": dtype, "dtype": jnp.float32}
    layer = lambda: hk_bridge.nn.Dense(3, kernel_init=w, name="net", **config)
    params, y = run(lambda x: layer()(x, rngs=rngs))
    keys, watch = [], lambda key, *args: keys.append(key) or jnp.zeros(*args)
    nn.Dense(3, kernel_init=watch, **config).init(rngs, X)
    made = hk.transform(lambda: w((4, 3), dtype)).apply({}, keys[0])
    assert_identical(params["net"]["kernel"], made)
    native = nn.Dense(3, kernel_init=initializer(w), **config)
    variables = native.init(rngs, X)
    assert_identical(hk_bridge.to_flax(params, {}, name="net"), variables)
    assert_identical(native.apply(variables, X), y)


SOME = [HAIKUS[name] for name in ("truncated", "orthogonal", "zeros", "partial")]


@pytest.mark.parametrize("w", SOME, ids=named)
def test_a_class_of_ones_own(w):
    @hk_bridge.wrap
    class Net(nn.Module):
        w_init: object = None
        b_initializer: object = None

        @nn.compact
        def __call__(self, x):
            w = self.param("w", self.w_init, (4, 3), jnp.float32)
            return x @ w + self.param("b", self.b_initializer, (1, 3), jnp.float32)

    params, _ = run(lambda x: Net(w, I.Constant(2.0))(x), rng=KEY)
    assert jnp.all(params["net"]["b"] == 2.0)
    assert params["net"]["w"].shape == (4, 3)


@pytest.mark.parametrize("w", SOME, ids=named)
def test_nnx(w):
    net = hk_bridge.wrap(nnx.Linear)
    rngs = lambda: nnx.Rngs(params=KEY)
    forward = lambda x: net(4, 3, kernel_init=w, rngs=rngs(), name="net")(x)
    params, _ = run(forward)
    native = nnx.Linear(4, 3, kernel_init=initializer(w), rngs=rngs())
    assert_identical(params["net"]["kernel"], native.kernel[...])
    run(lambda x: net(4, 3, kernel_init=w, name="net")(x), rng=KEY)


def test_nnx_that_gives_a_stream_and_no_dtype():
    inner = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    norm = nnx.WeightNorm(inner, scale_init=initializer(jnp.ones), rngs=nnx.Rngs(0))
    assert norm(X).shape == (2, 3)


class Scanned(nn.Module):
    w_init: object

    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(4, kernel_init=self.w_init)(x), None


@pytest.mark.parametrize("w", [I.TruncatedNormal(), jnp.ones, I.Identity()], ids=named)
@pytest.mark.parametrize("lift", ["remat", "jit", "vmap", "scan"])
def test_inside_lifted_transforms(lift, w):
    init = initializer(w)
    each = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
    modules = {
        "remat": lambda: nn.remat(nn.Dense)(4, kernel_init=init),
        "jit": lambda: nn.jit(nn.Dense)(4, kernel_init=init),
        "vmap": lambda: nn.vmap(nn.Dense, **each)(4, kernel_init=init),
        "scan": lambda: nn.scan(Scanned, length=3, **each)(init),
    }
    args = (None,) if lift == "scan" else ()

    def forward(x):
        y = FlaxModule(modules[lift](), name="net")(x, *args, rngs={"params": KEY})
        return y[0] if lift == "scan" else y

    params, y = run(forward)
    native = modules[lift]()
    variables = native.init({"params": KEY}, X, *args)
    assert_identical(hk_bridge.to_flax(params, {}, name="net"), variables)
    theirs = native.apply(variables, X, *args)
    assert_identical(y, theirs[0] if lift == "scan" else theirs)


def test_inside_transforms_of_haiku():
    layer = lambda: hk_bridge.nn.Dense(4, kernel_init=I.TruncatedNormal(), name="net")
    run(lambda x: hk.remat(layer())(x), rng=KEY)
    run(lambda x: hk.vmap(layer(), split_rng=False)(x), rng=KEY)
    run(lambda x: hk.layer_stack(3)(lambda x: layer()(x))(x), rng=KEY)
    f = hk.transform(lambda x: layer()(x))
    jax.vmap(f.init, in_axes=(0, None))(jax.random.split(KEY, 3), X)


def test_no_key_is_drawn_where_none_is_used():
    def forward(x):
        before = hk.maybe_get_rng_sequence_state()
        net = hk_bridge.nn.Dense(3, kernel_init=jnp.zeros, bias_init=I.Constant(1.0))
        y = net(x)
        assert hk.maybe_get_rng_sequence_state() == before
        return y

    f = hk.transform(forward)
    for rng in (None, KEY):
        assert_identical(f.apply(f.init(rng, X), rng, X), jnp.ones([2, 3]))
    net = lambda x: hk_bridge.nn.Dense(3, kernel_init=I.RandomNormal())(x)
    with pytest.raises(nn.module.errors.InvalidRngError):
        hk.transform(net).init(None, X)


def test_what_comes_after_has_its_own_key():
    """A parameter without a key counts as one with a key, as in Flax."""

    def bias(kernel_init):
        layer = lambda: hk_bridge.nn.Dense(
            3, kernel_init=kernel_init, bias_init=I.RandomNormal(), name="net"
        )
        return hk.transform(lambda x: layer()(x, rngs={"params": KEY})).init(None, X)

    one, two = bias(jnp.zeros), bias(I.RandomNormal())
    assert_identical(one["net"]["bias"], two["net"]["bias"])


STILL_FLAXS = {
    "zeros": nn.initializers.zeros,
    "lecun": nn.initializers.lecun_normal(),
    "any": lambda *args: jnp.ones(*args[1:]),
    "three": lambda a, b, c: jnp.ones(b, c),
    "default": lambda key, shape, dtype=jnp.float32: jnp.ones(shape, dtype),
    "kernel": nn.with_partitioning(nn.initializers.ones, (None, None)),
}


@pytest.mark.parametrize("init", STILL_FLAXS.values(), ids=STILL_FLAXS)
def test_flaxs_stays_flaxs(init):
    f = hk.transform(lambda x: hk_bridge.nn.Dense(3, kernel_init=init).module)
    assert f.apply({}, None, X).kernel_init is init
    run(lambda x: hk_bridge.nn.Dense(3, kernel_init=init)(x), rng=KEY)


def test_a_function_of_key_and_shape_stays_a_users():
    @hk_bridge.wrap
    class Net(nn.Module):
        w_init: object

        @nn.compact
        def __call__(self, x):
            return x @ self.param("w", self.w_init, (4, 3))

    given = lambda rng, size: jax.random.normal(rng, size)
    run(lambda x: Net(given)(x), rng=KEY)


def test_a_field_of_another_name_is_left_alone():
    @hk_bridge.wrap
    class Net(nn.Module):
        function: object

        def __call__(self, x):
            return self.function(x.shape, x.dtype)

    run(lambda x: Net(jnp.ones)(x))


def test_code_may_still_call_it_as_haiku_does():
    @hk_bridge.wrap
    class Net(nn.Module):
        w_init: object

        @nn.compact
        def __call__(self, x):
            return hk.Linear(3, w_init=self.w_init)(x)

    params, _ = run(lambda x: Net(I.Constant(2.0))(x), rng=KEY)
    assert jnp.all(params["net/~flax/linear"]["w"] == 2.0)


def test_boxes():
    init = nn.with_partitioning(I.RandomNormal(), (None, "model"))
    net = lambda: hk_bridge.nn.Dense(3, kernel_init=init, name="net")
    run(lambda x: net()(x), rng=KEY)
    f = hk.transform_with_state(lambda x: net()(x))
    specs = hk_bridge.sharding.partition_specs(f.init, KEY, X)[0]
    assert specs["net"]["kernel"] == jax.sharding.PartitionSpec(None, "model")
    outer = nn.with_partitioning(initializer(I.RandomNormal()), (None, "model"))
    native = nn.Dense(3, kernel_init=outer).init({"params": KEY}, X)
    assert isinstance(native["params"]["kernel"], nn.Partitioned)


def test_hooks_of_haiku():
    asked, w = [], I.RandomNormal()

    def creator(next_creator, shape, dtype, init, context):
        asked.append(context.name)
        return next_creator(shape, dtype, init) * 2

    def forward(x):
        with hk.custom_creator(creator):
            return hk_bridge.nn.Dense(3, kernel_init=w)(x)

    params = hk.transform(forward).init(KEY, X)
    once = hk.transform(lambda x: hk_bridge.nn.Dense(3, kernel_init=w)(x)).init(KEY, X)
    assert_identical(params, jax.tree.map(lambda x: 2 * x, once))
    assert asked == ["kernel", "bias"]


def test_other_layers():
    x, ids = array(2, 5, 4), jnp.ones([2], jnp.int32)
    layers = {
        "conv": (lambda: hk_bridge.nn.Conv(3, (2,), kernel_init=I.RandomNormal()), x),
        "norm": (lambda: hk_bridge.nn.LayerNorm(scale_init=jnp.ones), x),
        "group": (lambda: hk_bridge.nn.GroupNorm(num_groups=2, bias_init=jnp.ones), x),
        "embed": (
            lambda: hk_bridge.nn.Embed(3, 4, embedding_init=I.RandomNormal()),
            ids,
        ),
        "attention": (
            lambda: hk_bridge.nn.MultiHeadDotProductAttention(
                2, kernel_init=I.VarianceScaling()
            ),
            x,
        ),
    }
    for make, given in layers.values():
        run(lambda x, make=make: make()(x), rng=KEY, x=given)


def test_cells():
    cell = lambda: hk_bridge.nn.LSTMCell(
        3, kernel_init=I.RandomNormal(), recurrent_kernel_init=I.Orthogonal()
    )

    def forward(x):
        core = cell()
        return core(x, core.initial_state(2))[0]

    run(forward, rng=KEY)
    carry = lambda: hk_bridge.nn.LSTMCell(3, carry_init=jnp.ones)
    state = hk.transform(lambda: carry().initial_state(2)).apply({}, KEY)
    assert_identical(state[0], jnp.ones([2, 3]))


# What is known of it.


def test_equal_ones_are_known_to_be():
    one, two = initializer(I.TruncatedNormal(0.1)), initializer(I.TruncatedNormal(0.1))
    other = initializer(I.TruncatedNormal(0.2))
    assert one == two
    assert hash(one) == hash(two)
    assert one != other
    assert nn.Dense(3, kernel_init=one) == nn.Dense(3, kernel_init=two)
    assert initializer(I.Constant(0.0)) != initializer(I.Constant(-0.0))
    assert initializer(jnp.zeros) == initializer(jnp.zeros) != initializer(jnp.ones)
    assert initializer(I.Constant(np.ones(2))) != initializer(I.Constant(np.ones(2)))
    unhashable = type("Unhashable", (Object,), {"__hash__": None})()
    assert initializer(unhashable) == initializer(unhashable)
    assert hash(initializer(unhashable)) == hash(initializer(unhashable))


@pytest.mark.parametrize("name", ["constant", "truncated", "zeros", "lambda", "object"])
def test_layers_stay_known_to_be_values(name):
    layer = lambda w: nn.Dense(3, kernel_init=initializer(w))
    assert _flax.key_of(layer(HAIKUS[name])) == _flax.key_of(layer(HAIKUS[name]))
    assert _flax.key_of(layer(HAIKUS[name])) is not None
    one, two = layer(I.RandomNormal(0.1)), layer(I.RandomNormal(0.2))
    assert _flax.key_of(one) != _flax.key_of(two)


@pytest.mark.parametrize("w", [I.TruncatedNormal(), HAIKUS["array"]], ids=named)
def test_traces_are_shared(w, eager):
    def forward(x):
        with hk_bridge.share_traces():
            for _ in range(4):
                x = hk_bridge.nn.Dense(4, kernel_init=w)(x)
        return x

    run(forward, rng=KEY)


def test_it_runs_once_for_its_shape():
    ran = []

    def w(shape, dtype):
        ran.append(shape)
        return jnp.ones(shape, dtype)

    f = hk.transform(lambda x: hk_bridge.nn.Dense(3, kernel_init=w)(x))
    params = f.init(KEY, X)
    assert len(ran) == 2  # by shapes, for whether it draws; then for its value
    f.apply(params, None, X)
    assert set(ran) == {(4, 3)}


def test_its_text():
    f = hk.transform(lambda: repr(hk_bridge.nn.Dense(3, kernel_init=I.RandomNormal())))
    text = "Dense(features=3, kernel_init=initializer(RandomNormal), name='dense')"
    assert f.apply({}, None) == text


# A function of Flax's form that calls one of Haiku's.


def test_a_function_in_between_draws_from_flaxs_key_too():
    between = lambda key, shape, dtype: I.RandomNormal()(shape, dtype)
    net = lambda init: FlaxModule(nn.Dense(3, kernel_init=init), name="net")
    made = [
        run(lambda x, init=init: net(init)(x, rngs={"params": KEY}))
        for init in (between, initializer(I.RandomNormal()))
    ]
    assert_identical(*made)


@pytest.mark.parametrize(
    "use", [pytest.param("subclass", marks=pytest.mark.weekly), "getter"]
)
def test_nothing_leaks_where_shapes_are_learned_first(use):
    between = lambda key, shape, dtype: I.RandomNormal()(shape, dtype)
    dense = nn.Dense(3, kernel_init=between)

    class Sub(FlaxModule):
        def double(self, x):
            return 2 * self(x)

    def forward(x):
        if use == "subclass":
            return Sub(dense, name="net").double(x)
        getter = lambda next_getter, value, context: next_getter(value)
        with hk.custom_getter(getter):
            return FlaxModule(dense, name="net")(x)

    f = hk.transform(forward)
    params = f.init(KEY, X)
    with jax.checking_leaks():
        y = f.apply(params, KEY, X)
    assert y.shape == (2, 3)


def test_nnx_built_by_shapes_leaks_nothing():
    between = lambda key, shape, dtype: I.RandomNormal()(shape, dtype)

    @hk_bridge.wrap
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(4, 3, kernel_init=between, rngs=rngs)

        def __call__(self, x):
            return self.linear(x)

    def forward(x):
        y = Net(name="net")(x)
        return y + 0 * jax.random.uniform(hk.next_rng_key())

    f = hk.transform(forward)
    f.apply(f.init(KEY, X), KEY, X)


# Errors.


def message(error):
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


REFUSED = {
    "class": (I.RandomNormal, "the class RandomNormal", "RandomNormal(...)"),
    "number": (0.1, "builtins.float", "initializer(hk.initializers.RandomNormal())"),
    "none": (None, "NoneType", "(shape, dtype)"),
    "flax": (nn.initializers.zeros, "zeros", "Give it to the Flax module as it is"),
    "lecun": (nn.initializers.lecun_normal(), "init", "(key, shape, dtype)"),
    "three": (lambda a, b, c: jnp.ones(b, c), "<lambda>", "without initializer(...)"),
}


@pytest.mark.parametrize(("w", "what", "line"), REFUSED.values(), ids=REFUSED)
def test_what_is_none_of_haikus(w, what, line):
    with pytest.raises(TypeError) as caught:
        initializer(w)
    assert what in str(caught.value)
    assert line in str(caught.value)


def test_a_class_in_the_place_of_an_initialiser():
    f = hk.transform(lambda x: hk_bridge.nn.Dense(3, kernel_init=I.Constant)(x))
    with pytest.raises(TypeError, match=r"the class Constant. Write Constant\(...\)"):
        f.init(KEY, X)


class Outer(nn.Module):
    inner: nn.Module

    def __call__(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    "w", [I.RandomNormal(), lambda s, d: jnp.ones(s, d)], ids=named
)
@pytest.mark.parametrize("at", ["init", "apply"])
def test_a_flax_module_of_ones_own_says_what_to_write(w, at):
    inner = nn.Dense(3, kernel_init=w, name="inner")
    f = hk.transform(lambda x: FlaxModule(Outer(inner), name="net")(x))
    params = {"net/inner": {"kernel": jnp.ones([4, 3]), "bias": jnp.ones([3])}}
    with pytest.raises(TypeError, match="positional arguments") as caught:
        f.init(KEY, X) if at == "init" else f.apply(params, None, X)
    assert "hk_bridge.initializer(w)" in message(caught.value)
    assert "is a Haiku initialiser" in message(caught.value)
    broken = nn.Dense(3, kernel_init=lambda *args: jnp.ones(()) + "a")
    with pytest.raises(TypeError) as caught:
        hk.transform(lambda x: FlaxModule(broken)(x)).init(KEY, X)
    assert "Haiku initialiser" not in message(caught.value)


class Keeps(nn.Module):
    w: object

    @nn.compact
    def __call__(self, x):
        return x + self.variable("cache", "noise", self.w, (2, 4), jnp.float32).value


def test_a_variable_draws_from_haiku_outside_of_lifted_transforms():
    run(lambda x: FlaxModule(Keeps(I.RandomNormal()))(x), rng=KEY)


def test_a_variable_inside_a_lifted_transform_has_no_key():
    net = lambda: FlaxModule(nn.remat(Keeps)(I.RandomNormal()), name="net")
    with pytest.raises(ValueError, match="non-None PRNGKey") as caught:
        hk.transform_with_state(lambda x: net()(x)).init(KEY, X)
    text = message(caught.value)
    assert "The initialiser RandomNormal of collection 'cache', path 'noise'" in text
    assert 'lambda: hk_bridge.initializer(w)(self.make_rng("params"), shape, ' in text
    other = FlaxModule
    bad = lambda: other(Keeps(lambda *args: jnp.ones(3).reshape(2)), name="net")
    with pytest.raises(TypeError) as caught:
        hk.transform_with_state(lambda x: bad()(x)).init(KEY, X)
    assert "asks Haiku" not in message(caught.value)


def test_without_any_key():
    small = initializer(I.RandomNormal())
    with pytest.raises(ValueError, match="non-None PRNGKey"):
        small(None, (2,))


@pytest.mark.parametrize("ask", [hk.get_parameter, hk.get_state])
@pytest.mark.parametrize("kind", ["layer", "flax", "nnx"])
def test_one_that_asks_haiku_for_more_than_keys(kind, ask):
    def w(shape, dtype):
        return ask("v", shape, dtype, init=jnp.ones)

    def forward(x):
        if kind == "nnx":
            return hk_bridge.wrap(nnx.Linear)(4, 3, kernel_init=w)(x)
        if kind == "layer":
            return hk_bridge.nn.Dense(3, kernel_init=w)(x)
        return FlaxModule(nn.Dense(3, kernel_init=initializer(w)))(x)

    text = (
        r"initialiser .*w asks Haiku for 'v'.* may draw keys alone.*"
        r"def init\(key, shape, dtype\)"
    )
    with pytest.raises(ValueError, match=text):
        hk.transform_with_state(forward).init(KEY, X)


def test_one_that_runs_another_network():
    inner = hk.transform(lambda x: hk.Linear(3)(x))

    def w(shape, dtype):
        return inner.init(hk.next_rng_key(), jnp.ones(shape[:1]))["linear"]["w"]

    net = hk.transform(lambda x: hk_bridge.nn.Dense(3, kernel_init=w, name="net")(x))
    params = net.init(KEY, X)
    native = nn.Dense(3, kernel_init=initializer(w)).init(KEY, X)
    assert params["net"]["kernel"].shape == native["params"]["kernel"].shape
    net.apply(params, None, X)


@pytest.mark.parametrize("layer", [nn.Dense, hk_bridge.nn.Dense])
def test_an_array_is_no_initialiser(layer):
    def forward(x):
        dense = layer(3, kernel_init=np.ones([4, 3]))
        return (FlaxModule(dense) if layer is nn.Dense else dense)(x)

    with pytest.raises(TypeError, match="'numpy.ndarray' object is not callable"):
        hk.transform(forward).init(KEY, X)
