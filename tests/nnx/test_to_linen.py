"""NNX modules through `flax.nnx.bridge.to_linen`, against `to_linen` in pure Flax."""

from catalogue import array
from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)
RNGS = {"params": KEY, "dropout": jax.random.key(1)}


class Mlp(nnx.Module):
    """An MLP of the user's own, with state and keys."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.first = nnx.Linear(4, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


class Unrolled(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.rnn = nnx.RNN(nnx.LSTMCell(4, 3, rngs=rngs))

    def __call__(self, x):
        return self.rnn(x)


class Deep(nnx.Module):
    """Layers in a list, whose variables have numbers for names."""

    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.norms = nnx.List([nnx.BatchNorm(4, rngs=rngs)])

    def __call__(self, x):
        for layer in (*self.layers, *self.norms):
            x = layer(x)
        return x


class Counts(nnx.Module):
    """A Variable that holds a dict, of which Flax makes an `nnx.State`."""

    def __init__(self, rngs: nnx.Rngs):
        self.seen = nnx.BatchStat({"a": jnp.zeros([4]), "b": {"c": jnp.ones([])}})

    def __call__(self, x):
        seen = jax.tree.map(lambda a: a + 1.0, self.seen.get_value())
        self.seen.set_value(seen)
        return x + seen["a"][None] + seen["b"]["c"]


MODULES = {
    "dict": pytest.param(
        *(lambda: nnx.bridge.to_linen(Counts), X),
        marks=pytest.mark.filterwarnings("ignore:Found unknown module paths"),
    ),
    "list": (lambda: nnx.bridge.to_linen(Deep), X),
    "linear": (lambda: nnx.bridge.to_linen(nnx.Linear, 4, 3), X),
    "batch_norm": (lambda: nnx.bridge.to_linen(nnx.BatchNorm, 4), X),
    "dropout": (lambda: nnx.bridge.to_linen(nnx.Dropout, 0.5), X),
    "mlp": (lambda: nnx.bridge.to_linen(Mlp, 3), X),
    "rnn": (lambda: nnx.bridge.to_linen(Unrolled), array(2, 5, 4)),
}


@pytest.mark.parametrize(("make", "x"), MODULES.values(), ids=MODULES)
def test_nnx_modules(make, x):
    forward = lambda x: hk_bridge.FlaxModule(make(), name="net")(x, rngs=RNGS)
    f = hk.transform_with_state(forward)
    params, state = f.init(None, x)
    variables = nn.unbox(make().init(RNGS, x))
    assert_identical(hk_bridge.to_flax(params, state, name="net"), variables)
    for tree in (params, state):
        for bundle in tree.values():
            assert all(isinstance(leaf, jax.Array) for leaf in bundle.values())
    for _ in range(2):
        y, state = f.apply(params, state, None, x)
        mutable = [c for c in variables if c != "params"]
        expected, new = make().apply(variables, x, rngs=RNGS, mutable=mutable)
        variables = {**variables, **nn.unbox(new)}
        assert_identical(y, expected)
        assert_identical(hk_bridge.to_flax(params, state, name="net"), variables)


def test_a_getter_may_be_in_force_where_init_calls_it_twice():
    # To_linen puts its parameters at each init, and asks for none.
    seen = []

    def look(next_getter, value, context):
        seen.append(context.full_name)
        return next_getter(value)

    def forward(x):
        with hk.custom_getter(look):
            module = nnx.bridge.to_linen(nnx.Linear, 4, 4)
            net = hk_bridge.FlaxModule(module, name="net")
            return net(net(x))

    params = hk.transform(forward).init(KEY, X)
    assert jax.tree.map(jnp.shape, params) == {"net": {"bias": (4,), "kernel": (4, 4)}}
    assert seen == 2 * ["net/bias", "net/kernel"]


def test_layers_in_a_list_are_modules_like_others():
    seen = []

    def creator(next_creator, shape, dtype, init, context):
        seen.append(context.full_name)
        return next_creator(shape, dtype, init)

    def forward(x):
        with hk.custom_creator(creator), hk.custom_getter(lambda get, v, _: get(v * 2)):
            return hk_bridge.wrap(Deep)(name="net")(x)

    f = hk.transform_with_state(forward)
    params, _ = f.init(KEY, X)
    names = [f"net/{name}" for name in ("layers/%i0", "layers/%i1", "norms/%i0")]
    assert sorted(params) == names
    assert {name.rsplit("/", 1)[0] for name in seen} == set(names)
    assert "48" in hk.experimental.tabulate(f)(X)  # parameters in all
    variables = hk_bridge.to_flax(params, {}, name="net")
    assert list(variables["params"]["layers"]) == [0, 1]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".msgpack", ""])
def test_numbers_for_names_in_checkpoints(suffix, tmp_path):
    variables = {"params": {"layers": {0: {"w": np.ones(2)}, 1: {}}, "0": {}}}
    path = tmp_path / f"net{suffix}"
    if suffix in (".npz", ".safetensors"):
        hk_bridge.migrate.save(path, variables)
        assert_identical(hk_bridge.migrate.load(path), variables)
    else:
        with pytest.raises(
            hk_bridge.VariablesError,
            match="cannot hold .*'params', path 'layers/0': its name is a number, not "
            "a str. Nothing was written. Save to a file that can: .safetensors, .npz.",
        ):
            hk_bridge.migrate.save(path, variables)


def test_keys_come_from_haiku():
    make = MODULES["mlp"][0]
    f = hk.transform_with_state(lambda x: hk_bridge.FlaxModule(make())(x))
    params, state = f.init(KEY, X)
    assert {name.split("/")[0] for name in params} == {"mlp"}
    one, two = (f.apply(params, state, jax.random.key(s), X)[0] for s in (1, 2))
    assert jnp.any(one != two)


def test_boxes_made_under_a_mesh():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            init = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "x"))
            logical = nn.with_logical_partitioning(nn.initializers.ones, ("wide",))
            x = nn.Dense(8, kernel_init=init)(x)
            x += self.param("shift", logical, (8,))[None]
            return nn.with_logical_constraint(x, (None, "wide"))

    f = hk.transform(lambda x: hk_bridge.FlaxModule(Net(), name="net")(x))
    plain = f.init(KEY, X)
    rngs = next(hk.PRNGSequence(KEY))
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh), nn.logical_axis_rules([("wide", "x")]):
        params = jax.jit(f.init)(KEY, X)
        boxed = jax.jit(Net().init)(rngs, X)
        y = jax.jit(f.apply)(params, None, X)
        expected = jax.jit(Net().apply)(boxed, X)
    assert_identical(hk_bridge.to_flax(params, {}, name="net", like=boxed), boxed)
    assert_identical(y, expected)
    assert jax.tree.structure(params) == jax.tree.structure(plain)


class Noise(nnx.Module):
    """Draws of a stream of its own name, for which that of `default` answers."""

    def __init__(self, rngs: nnx.Rngs):
        self.rngs = rngs

    def __call__(self, x):
        return x + jax.random.normal(self.rngs.noise(), x.shape)


LIFTED = {
    "jit": nn.jit(lambda m, x: m(x)),
    "remat": nn.remat(lambda m, x: m(x)),
    "cond": lambda m, x: nn.cond(x.size > 0, lambda m, x: m(x), lambda m, x: x, m, x),
    "switch": lambda m, x: nn.switch(x.size % 2, [lambda m, x: m(x)] * 2, m, x),
    "twice": nn.jit(lambda m, x: nn.remat(lambda m, x: m(x))(m, x)),
    "split": lambda m, x: nn.vmap(
        lambda m, x: m(x), variable_axes={True: None}, split_rngs={True: True}
    )(m, x),
}


@pytest.mark.parametrize("lift", LIFTED.values(), ids=LIFTED)
def test_keys_inside_of_lifted_code_come_from_haiku(lift):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            noise = nnx.bridge.to_linen(Noise)
            return noise(x) if self.is_initializing() else lift(noise, x)

    f = hk.transform_with_state(lambda x: hk_bridge.FlaxModule(Net())(x))
    params, state = f.init(KEY, X)
    one, two, other = (
        f.apply(params, state, jax.random.key(i), X)[0] for i in (1, 1, 2)
    )
    assert_identical(one, two)
    assert (one != other).all()
