"""Haiku's transforms, raw JAX ones, and the way back, as with Haiku's own modules.

`make` builds a layer called `net`; each test runs with a bridged one and with Haiku's.
"""

import resource
import time

from catalogue import Noise
from catalogue import Norm
from catalogue import array
import diffrax
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from laws import names
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)
DENSE = nn.Dense(4)
tree_map = jax.tree.map


def ours():
    return FlaxModule(DENSE, name="net")


def theirs():
    return hk.Linear(4, name="net")


makes = pytest.mark.parametrize("make", [ours, theirs])


def as_twin(params):
    """Params of bridged Dense layers as those of hk.Linear."""
    leaf = {"kernel": "w", "bias": "b"}
    return {m: {leaf[k]: v for k, v in b.items()} for m, b in params.items()}


def assert_close(ours, theirs):
    """For what is compiled here and not there, so that sums may be in another order."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    close = lambda a, b: jnp.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert all(jax.tree.leaves(tree_map(close, ours, theirs)))


# Each: in Haiku, with a layer; in JAX, with a function.


def loop(while_loop):
    def run(layer, x):
        step = lambda carry: (carry[0] + 1, layer(carry[1]))
        return while_loop(lambda carry: carry[0] < 3, step, (0, x))[1]

    return run


def at_init(otherwise):
    """hk.while_loop asks for it."""
    return lambda layer, x: layer(x) if hk.running_init() else otherwise(layer, x)


def total(layer):
    return lambda x: jnp.sum(jnp.sin(layer(x)))


WRAPS = {
    "vmap": (
        lambda layer, x: hk.vmap(layer, split_rng=False)(x),
        lambda layer, x: jax.vmap(layer)(x),
    ),
    "scan": (
        lambda layer, x: hk.scan(lambda c, y: (layer(c), c + y[None]), x, x),
        lambda layer, x: jax.lax.scan(lambda c, y: (layer(c), c + y[None]), x, x),
    ),
    "remat": (
        lambda layer, x: hk.remat(layer)(x),
        lambda layer, x: jax.checkpoint(layer)(x),
    ),
    "cond": (
        lambda layer, x: hk.cond(x[0, 0] > 0.0, layer, lambda x: -layer(x), x),
        lambda layer, x: jax.lax.cond(x[0, 0] > 0.0, layer, lambda x: -layer(x), x),
    ),
    "switch": (
        lambda layer, x: hk.switch(jnp.int32(1), [layer, lambda x: -layer(x)], x),
        lambda layer, x: jax.lax.switch(1, [layer, lambda x: -layer(x)], x),
    ),
    "while_loop": (at_init(loop(hk.while_loop)), loop(jax.lax.while_loop)),
    "fori_loop": (
        lambda layer, x: hk.fori_loop(0, 3, lambda i, x: layer(x), x),
        lambda layer, x: jax.lax.fori_loop(0, 3, lambda i, x: layer(x), x),
    ),
    "map": (
        lambda layer, x: hk.map(layer, x),
        lambda layer, x: jax.lax.map(layer, x),
    ),
    "grad": (
        lambda layer, x: hk.grad(total(layer))(x),
        lambda layer, x: jax.grad(total(layer))(x),
    ),
    "value_and_grad": (
        lambda layer, x: hk.value_and_grad(total(layer))(x),
        lambda layer, x: jax.value_and_grad(total(layer))(x),
    ),
    "eval_shape": (
        at_init(lambda layer, x: hk.eval_shape(layer, x)),
        lambda layer, x: jax.eval_shape(layer, x),
    ),
}


def outcome(function, *args):
    """What a call gives, or the type and the text of what it raises."""
    try:
        return function(*args), None
    except Exception as error:
        for ours, theirs in (("kernel", "w"), ("bias", "b")):
            error.args = (str(error).replace(f"'{ours}'", f"'{theirs}'"),)
        return None, (type(error), str(error))


@pytest.mark.parametrize("place", ["outside", "inside"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_a_transform_is_jaxs_on_flax_and_as_with_the_twin(wrap, place):
    in_haiku, in_jax = WRAPS[wrap]

    def forward(make):
        def run(x):
            return in_haiku(make() if place == "outside" else lambda x: make()(x), x)

        return hk.transform(run)

    f, twin = forward(ours), forward(theirs)
    params, error = outcome(f.init, KEY, X)
    twin_params, twin_error = outcome(twin.init, KEY, X)
    if twin_error is not None:  # Haiku traces a body twice, and counts two layers
        assert place == "inside"
        assert error[0] is twin_error[0]
        assert wrap == "fori_loop" or sorted(error[1]) == sorted(twin_error[1])
        return
    assert tree_map(jnp.shape, as_twin(params)) == tree_map(jnp.shape, twin_params)
    y = f.apply(params, None, X)
    y_twin = twin.apply(as_twin(params), None, X)
    if wrap == "eval_shape":
        assert y == y_twin == in_jax(lambda x: x, X)
        return
    assert_identical(y, y_twin)
    if len(params) == 1:  # else there is a layer a branch
        native = lambda x: DENSE.apply({"params": params["net"]}, x)
        assert_identical(y, in_jax(native, X))


class Stateful(nn.Module):
    """Of one shape, with state that each call moves."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=True):
        norm = nn.BatchNorm(not train, momentum=0.5, axis_name=self.axis_name)
        return norm(nn.Dense(x.shape[-1])(x))


def same(x):
    return x


# How the calls of a layer follow each other, in Haiku and by hand.
STATEFUL = {
    "scan": (lambda layer, x: hk.scan(lambda c, _: (layer(c), None), x, X)[0], 2),
    "fori_loop": (lambda layer, x: hk.fori_loop(0, 3, lambda i, x: layer(x), x), 3),
    "while_loop": (at_init(loop(hk.while_loop)), 3),
    "remat": (lambda layer, x: hk.remat(layer)(x), 1),
    "cond": (at_init(lambda layer, x: hk.cond(False, same, layer, x)), 1),
    "cond_untaken": (at_init(lambda layer, x: hk.cond(False, layer, same, x)), 0),
    "switch": (at_init(lambda layer, x: hk.switch(1, [same, layer], x)), 1),
    "grad": (
        lambda layer, x: hk.value_and_grad(lambda x: total(layer)(x))(x)[0],
        1,
    ),
    "eval_shape": (at_init(lambda layer, x: hk.eval_shape(layer, x) and x), 0),
}


@pytest.mark.parametrize("wrap", STATEFUL)
def test_state_moves_once_a_call(wrap):
    in_haiku, calls = STATEFUL[wrap]
    f = hk.transform_with_state(
        lambda x: in_haiku(FlaxModule(Stateful(), name="net"), x)
    )
    params, state = f.init(KEY, X)
    y, new = f.apply(params, state, None, X)
    variables, expected = hk_bridge.to_flax(params, state, name="net"), X
    for _ in range(calls):
        expected, stats = Stateful().apply(variables, expected, mutable=["batch_stats"])
        variables = {**variables, **stats}
    expected = total(lambda x: x)(expected) if wrap == "grad" else expected
    assert_close(y, expected)
    assert_close(hk_bridge.to_flax(params, new, name="net"), variables)


def test_map_threads_state_through():
    f = hk.transform_with_state(
        lambda x: hk.map(FlaxModule(Stateful(), name="net"), x[:, None])
    )
    params, state = f.init(KEY, X)
    _, new = f.apply(params, state, None, X)
    variables = hk_bridge.to_flax(params, state, name="net")
    for x in X:
        _, stats = Stateful().apply(variables, x[None], mutable=["batch_stats"])
        variables = {**variables, **stats}
    assert_close(hk_bridge.to_flax(params, new, name="net"), variables)


# vmap.


def norm_ours(axis_name):
    return FlaxModule(nn.BatchNorm(False, axis_name=axis_name), name="net")


def norm_theirs(axis_name):
    norm = hk.BatchNorm(True, True, 0.99, cross_replica_axis=axis_name, name="net")
    return lambda x: norm(x, is_training=True)


@pytest.mark.parametrize("make", [norm_ours, norm_theirs])
def test_batch_norm_over_a_named_axis(make):
    x = array(3, 2, 4)

    def forward(x):
        return hk.vmap(make("i"), axis_name="i", split_rng=False)(x)

    f = hk.transform_with_state(forward)
    with jax.numpy_dtype_promotion("standard"):  # hk.BatchNorm's counter is an integer
        params, state = f.init(KEY, x)
        y, new = f.apply(params, state, None, x)
        whole = hk.transform_with_state(lambda x: make(None)(x))
        flat, new_flat = whole.apply(params, state, None, x.reshape(6, 4))
    assert_close((y.reshape(6, 4), new), (flat, new_flat))
    if make is norm_ours:
        variables = hk_bridge.to_flax(params, state, name="net")
        native = lambda x: nn.BatchNorm(False, axis_name="i").apply(
            variables, x, mutable=["batch_stats"]
        )
        expected, stats = jax.vmap(native, axis_name="i", out_axes=(0, None))(x)
        assert_identical(y, expected)
        assert_identical(hk_bridge.to_flax({}, new, name="net"), stats)


@pytest.mark.parametrize("make", [norm_ours, norm_theirs])
def test_state_that_differs_along_a_mapped_axis_is_haikus_error(make):
    def forward(x, mapped):
        if not mapped:
            return make(None)(x[0])
        return hk.vmap(make(None), split_rng=False)(x)

    f, x = hk.transform_with_state(forward), array(3, 2, 4)
    with jax.numpy_dtype_promotion("standard"):  # hk.BatchNorm's counter is an integer
        params, state = f.init(KEY, x, False)
        with pytest.raises(ValueError, match="out_axes"):
            f.apply(params, state, None, x, True)


@jax.numpy_dtype_promotion("standard")  # it multiplies by booleans
def haiku_dropout(x):
    return hk.dropout(hk.next_rng_key(), 0.5, x)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", ["bridged", "haiku"])
def test_split_rng_tells_whether_rows_share_their_noise(kind, split):
    x = jnp.ones([2, 64])
    dropout = {
        "bridged": lambda x: FlaxModule(nn.Dropout(0.5, deterministic=False))(x),
        "haiku": haiku_dropout,
    }[kind]
    f = hk.transform(
        lambda x: hk.vmap(dropout, split_rng=split and not hk.running_init())(x)
    )
    one, two = f.apply(f.init(KEY, x), KEY, x)
    assert jnp.all(one == two) != split


@makes
def test_splitting_keys_at_init_is_haikus_error(make):
    f = hk.transform(lambda x: hk.vmap(lambda x: make()(x), split_rng=True)(x))
    with pytest.raises(ValueError, match="split_rng"):
        f.init(KEY, X)


@pytest.mark.parametrize("kind", ["scan", "fori_loop", "remat"])
def test_noise_is_new_in_each_call(kind):
    drop = lambda x: FlaxModule(nn.Dropout(0.5, deterministic=False), name="net")(x)

    def forward(x):
        if kind == "scan":
            return hk.scan(lambda c, _: (c, drop(x)), 0, jnp.arange(2))[1]
        if kind == "fori_loop":
            body = lambda i, ys: ys.at[i].set(drop(x))
            return hk.fori_loop(0, 2, body, jnp.zeros([2, 64]))
        return jnp.stack([hk.remat(drop)(x), hk.remat(drop)(x)])

    f = hk.transform(forward)
    x = jnp.ones([64])
    one, two = f.apply(f.init(KEY, x), KEY, x)
    assert jnp.any(one != two)
    assert 0 < int(jnp.sum(one == 0.0)) < 64


# layer_stack.


@makes
@pytest.mark.parametrize("per_layer", [False, True])
def test_layer_stack(make, per_layer):
    ys = array(3, 4, seed=1)

    def forward(x):
        stack = hk.layer_stack(3, with_per_layer_inputs=per_layer, name="stack")
        if per_layer:
            return stack(lambda x, y: (make()(x) + y[None], y.sum()))(x, ys)
        return stack(lambda x: make()(x))(x)

    f = hk.transform(forward)
    params = f.init(KEY, X)
    assert list(params) == ["stack/net"]
    y = f.apply(params, None, X)
    leaves = list(params["stack/net"].values())
    assert [leaf.shape for leaf in leaves] in ([(3, 4, 4), (3, 4)], [(3, 4), (3, 4, 4)])
    assert all(jnp.any(leaf[0] != leaf[1]) for leaf in leaves if leaf.ndim == 3)
    expected = X
    for i in range(3):
        layer = tree_map(lambda w, i=i: w[i], params["stack/net"])
        if make is ours:
            expected = DENSE.apply({"params": layer}, expected)
        else:
            expected = hk.transform(lambda x: make()(x)).apply(
                {"net": layer}, None, expected
            )
        expected = expected + ys[i][None] if per_layer else expected
    assert_close(y, (expected, ys.sum(1)) if per_layer else expected)


@pytest.mark.parametrize("kind", ["bridged", "haiku"])
def test_layer_stack_with_dropout(kind):
    def layer(x, y):
        if kind == "bridged":
            kept = FlaxModule(nn.Dropout(0.5, deterministic=False))(y)
        else:
            kept = haiku_dropout(y)
        return x, kept

    def forward(x):
        ys = jnp.ones([2, 64])
        return hk.layer_stack(2, with_per_layer_inputs=True)(layer)(x, ys)[1]

    f = hk.transform(forward)
    one, two = f.apply(f.init(KEY, X), KEY, X)
    assert jnp.any(one != two)
    assert_identical(f.apply({}, KEY, X), jnp.stack([one, two]))


def test_layer_stack_with_batch_norm():
    def forward(x):
        layer = lambda x: FlaxModule(Stateful(), name="net")(x)
        return hk.layer_stack(3, name="stack")(layer)(x)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    y, new = f.apply(params, state, None, X)
    variables = hk_bridge.to_flax(params, state, name="stack/net")
    x, stats = X, []
    for i in range(3):
        one = tree_map(lambda w, i=i: w[i], variables)
        x, moved = Stateful().apply(one, x, mutable=["batch_stats"])
        stats.append(moved)
    assert_close(y, x)
    expected = tree_map(lambda *leaves: jnp.stack(leaves), *stats)
    assert_close(hk_bridge.to_flax({}, new, name="stack/net"), expected)


# Several functions, transforms in transforms.


class TwoModules(hk.Module):
    def __init__(self, make):
        super().__init__(name="pair")
        self.encoder, self.decoder = make(), make()

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)


@makes
def test_multi_transform(make):
    def build():
        pair = TwoModules(make)
        return lambda x: pair.decode(pair.encode(x)), (pair.encode, pair.decode)

    f = hk.multi_transform(build)
    params = f.init(KEY, X)
    assert list(params) == ["pair/~/net", "pair/~/net_1"]
    encode, decode = f.apply
    plain = lambda name, x: hk.transform(lambda x: make()(x)).apply(
        {"net": params[name]}, None, x
    )
    z = encode(params, None, X)
    assert_identical(z, plain("pair/~/net", X))
    assert_identical(decode(params, None, z), plain("pair/~/net_1", z))


def test_multi_transform_with_state():
    def build():
        net = FlaxModule(Norm(), name="net")
        train, test = (lambda x, t=t: net(x, train=t) for t in (True, False))
        return train, (train, test)

    f = hk.multi_transform_with_state(build)
    params, state = f.init(KEY, X)
    train, test = f.apply
    _, new = train(params, state, None, X)
    variables = hk_bridge.to_flax(params, state, name="net")
    _, stats = Norm().apply(variables, X, mutable=["batch_stats"])
    assert_identical(hk_bridge.to_flax({}, new, name="net"), stats)
    y, same = test(params, new, None, X)
    assert_identical(same, new)
    assert_identical(y, Norm().apply({**variables, **stats}, X, train=False))


@makes
@pytest.mark.parametrize("transparent", [False, True])
def test_lift(make, transparent):
    inner = hk.transform(lambda x: make()(x))

    def forward(x):
        if transparent:
            lifted = hk.transparent_lift(inner.init)
        else:
            lifted = hk.lift(inner.init, name="lifted")
        params = lifted(hk.maybe_next_rng_key(), x)
        return jax.vmap(lambda x: inner.apply(params, None, x))(x)

    f = hk.transform(forward)
    params = f.init(KEY, X)
    (name,) = params
    assert name == ("net" if transparent else "lifted/net")
    expected = jax.vmap(lambda x: inner.apply({"net": params[name]}, None, x))(X)
    assert_identical(f.apply(params, None, X), expected)


def test_lift_with_state():
    inner = hk.transform_with_state(lambda x: FlaxModule(Stateful(), name="net")(x))

    def forward(x):
        lifted, updater = hk.lift_with_state(inner.init, name="lifted")
        params, state = lifted(hk.maybe_next_rng_key(), x)
        y, state = inner.apply(params, state, None, x)
        updater.update(state)
        return y

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    y, new = f.apply(params, state, None, X)
    variables = hk_bridge.to_flax(params, state, name="lifted/net")
    expected, stats = Stateful().apply(variables, X, mutable=["batch_stats"])
    assert_identical(y, expected)
    assert_identical(hk_bridge.to_flax({}, new, name="lifted/net"), stats)


@makes
def test_to_module(make):
    module = hk.to_module(lambda x: make()(x))
    f = hk.transform(lambda x: module(name="outer")(x))
    params = f.init(KEY, X)
    assert list(params) == ["outer/net"]
    plain = hk.transform(lambda x: make()(x))
    expected = plain.apply({"net": params["outer/net"]}, None, X)
    assert_identical(f.apply(params, None, X), expected)


# Recurrent cells.


def own_core(cell):
    """A bridged cell as Haiku calls cores: `core(x, state) -> (y, state)`."""
    net = FlaxModule(cell, name="net")

    def core(x, state):
        state, y = net(state, x)
        return y, state

    return core


CORES = {
    "lstm": lambda: own_core(nn.LSTMCell(3)),
    "gru": lambda: own_core(nn.GRUCell(3)),
    "nn_lstm": lambda: hk_bridge.nn.LSTMCell(3, name="net"),
    "nn_gru": lambda: hk_bridge.nn.GRUCell(3, name="net"),
}
UNROLLS = [(hk.dynamic_unroll, cell) for cell in CORES] + [(hk.static_unroll, "lstm")]


@pytest.mark.parametrize(("unroll", "cell"), UNROLLS)
def test_a_bridged_cell_is_a_core(unroll, cell):
    x = array(5, 2, 4)  # [T, B, D]
    native = nn.LSTMCell(3) if "lstm" in cell else nn.GRUCell(3)
    state = native.initialize_carry(KEY, (2, 4))
    f = hk.transform(lambda x: unroll(CORES[cell](), x, state))
    params = f.init(KEY, x)
    variables = hk_bridge.to_flax(params, {}, name="net")
    carry, y = nn.RNN(native, time_major=True, return_carry=True).apply(
        {"params": {"cell": variables["params"]}}, x
    )
    assert_close(f.apply(params, None, x), (y, carry))
    twin = hk.LSTM if "lstm" in cell else hk.GRU

    def haiku_forward(x):
        core = twin(3)
        return unroll(core, x, core.initial_state(2))

    # hk.GRU adds a bias [3 * H] to a batch.
    with jax.numpy_rank_promotion("allow"):
        twin_params = hk.transform(haiku_forward).init(KEY, x)
        twin_y, _ = hk.transform(haiku_forward).apply(twin_params, None, x)
    assert twin_y.shape == y.shape


# Keys and names.


def test_with_rng_and_reserved_keys_are_what_the_module_draws():
    other = jax.random.key(5)
    module = nn.Dropout(0.5, deterministic=False)
    x = jnp.ones([64])

    def forward(x, kind):
        net = FlaxModule(module)
        if kind == "with_rng":
            with hk.with_rng(other):
                return net(x)
        if kind == "reserve":
            hk.reserve_rng_keys(3)
        return net(x)

    f = hk.transform(forward)
    reserved = hk.PRNGSequence(KEY)
    reserved.reserve(3)
    for kind, keys in {
        "with_rng": hk.PRNGSequence(other),
        "reserve": reserved,
        "plain": hk.PRNGSequence(KEY),
    }.items():
        y = f.apply(f.init(KEY, x, kind), KEY, x, kind)
        assert_identical(y, module.apply({}, x, rngs={"dropout": next(keys)}))


class Named(hk.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def __call__(self, x):
        return self.encode(self.other(x))

    @hk.name_like("__call__")
    def encode(self, x):
        return self.make(None)(x)

    def other(self, x):
        with hk.name_scope("scope"):
            x = self.make("a")(x)
        x = self.make(hk.force_name("forced/b"))(x)
        return self.make(None)(self.make(None)(x))


def test_names_are_the_twins():
    make = lambda name: FlaxModule(nn.Dense(4, name="linear"), name=name)
    f = hk.transform(lambda x: Named(make)(x))
    twin = hk.transform(lambda x: Named(lambda name: hk.Linear(4, name=name))(x))
    params = f.init(KEY, X)
    assert list(params) == list(twin.init(KEY, X))
    y = f.apply(params, None, X)
    assert_identical(y, twin.apply(as_twin(params), None, X))


def test_haikus_data_structures_work_by_name():
    f = hk.transform_with_state(
        lambda x: FlaxModule(Norm(), name="net")(hk.Linear(4)(x))
    )
    params, state = f.init(KEY, X)
    tools = hk.data_structures
    norm, rest = tools.partition(lambda m, n, v: "BatchNorm" in m, params)
    assert list(norm) == ["net/BatchNorm_0"]
    assert list(rest) == ["linear", "net/Dense_0", "net/Dense_1"]
    assert_identical(tools.merge(norm, rest), params)
    assert_identical(tools.filter(lambda m, n, v: m in norm, params), norm)
    doubled = tools.map(lambda m, n, v: 2.0 * v if n == "bias" else v, params)
    one, two = (hk_bridge.to_flax(p, state, name="net") for p in (params, doubled))
    expected = tree_map(lambda x: x, one)
    for module in expected["params"].values():
        module["bias"] = 2.0 * module["bias"]
    assert_identical(two, expected)
    assert tools.tree_size(norm) == 8
    assert sorted(f"{m}/{n}" for m, n, _ in tools.traverse(params)) == names(params)
    immutable = tools.to_immutable_dict(params)
    assert_identical(
        f.apply(immutable, state, None, X), f.apply(params, state, None, X)
    )


# Without memory, and spread over devices.


@pytest.mark.parametrize("module", [Norm, Noise])
def test_shapes_of_init(module):
    f = hk.transform_with_state(lambda x: FlaxModule(module(), name="net")(x))
    shapes = jax.eval_shape(f.init, KEY, X)
    spec = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    assert shapes == tree_map(spec, f.init(KEY, X))
    assert hk.experimental.fast_eval_shape(f.init, KEY, X) == shapes
    net = hk_bridge.to_flax(*shapes, name="net")
    rngs = dict.fromkeys(("params", "dropout", "noise", "late"), KEY)
    assert net == jax.eval_shape(module().init, rngs, X)


WIDTH, DEPTH = 2**15, 19  # 2e10 parameters


class Stack(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(DEPTH):
            x = nn.Dense(WIDTH)(x)
        return x


@pytest.mark.parametrize("kind", ["one_module", "one_a_layer"])
def test_what_is_too_large_to_allocate_initialises_abstractly(kind):
    def forward(x):
        if kind == "one_module":
            return FlaxModule(Stack(), name="net")(x)
        for _ in range(DEPTH):
            x = FlaxModule(nn.Dense(WIDTH))(x)
        return x

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    shapes = jax.eval_shape(
        hk.transform(forward).init, KEY, jax.ShapeDtypeStruct([1, WIDTH], jnp.float32)
    )
    assert time.monotonic() - start < 30.0
    # In KiB; one kernel would be 4 GiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20
    assert hk.data_structures.tree_size(shapes) > 2e10


@makes
def test_sharded_init(make):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    columns = jax.NamedSharding(mesh, jax.P(None, "x"))
    everywhere = jax.NamedSharding(mesh, jax.P())
    wide = lambda: FlaxModule(nn.Dense(16)) if make is ours else hk.Linear(16)
    f = hk.transform(lambda x: wide()(x))
    shapes = jax.eval_shape(f.init, KEY, X)
    shardings = tree_map(lambda x: columns if x.ndim == 2 else everywhere, shapes)
    params = jax.jit(f.init, out_shardings=shardings)(KEY, X)
    assert tree_map(lambda x: x.sharding, params) == shardings
    assert_identical(params, jax.jit(f.init)(KEY, X))
    y = jax.jit(f.apply)(params, None, X)
    assert_close(y, f.apply(jax.device_get(params), None, X))


# Raw JAX and solvers.


def by_solver(apply, variables, x):
    """x' = tanh(f(x)), from 0 to 1."""
    term = diffrax.ODETerm(lambda t, y, args: jnp.tanh(apply(args, y)))
    # diffrax mixes dtypes and ranks itself.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        solution = diffrax.diffeqsolve(
            term,
            diffrax.Euler(),
            0.0,
            1.0,
            0.25,
            x,
            args=variables,
            max_steps=4,
            adjoint=diffrax.DirectAdjoint(),  # the fastest to compile
        )
    return solution.ys[-1]


RAW = {
    "vmap": lambda apply, v, x: jax.vmap(apply, (None, 0))(v, x),
    "scan": lambda apply, v, x: jax.lax.scan(
        lambda c, _: (apply(v, c), None), x, length=3
    )[0],
    "checkpoint": lambda apply, v, x: jax.checkpoint(apply)(v, x),
    "grad": lambda apply, v, x: jax.grad(lambda v: jnp.sum(apply(v, x) ** 2))(v),
    "diffrax": by_solver,
}


@pytest.mark.parametrize("raw", RAW)
def test_raw_jax_on_the_pure_handle(raw):
    at_init = []

    def forward(x):
        net = ours()
        if hk.running_init():
            net(x)
        y = RAW[raw](net.module.apply, net.variables, x)
        at_init.append(y)
        return y

    f = hk.transform(forward)
    params = f.init(KEY, X)
    y = f.apply(params, None, X)
    expected = RAW[raw](DENSE.apply, hk_bridge.to_flax(params, {}, name="net"), X)
    assert_identical((at_init[0], y), (expected, expected))


def test_gradients_flow_through_a_solver():
    def forward(x):
        net = ours()
        if hk.running_init():
            return net(x)
        return by_solver(net.module.apply, net.variables, x)

    f = hk.transform(forward)
    params = f.init(KEY, X)
    grads = jax.grad(lambda p: jnp.sum(f.apply(p, None, X)))(params)
    variables = hk_bridge.to_flax(params, {}, name="net")
    native = lambda v: jnp.sum(by_solver(DENSE.apply, v, X))
    assert_identical(
        hk_bridge.to_flax(grads, {}, name="net"), jax.grad(native)(variables)
    )


@pytest.mark.parametrize("raw", ["vmap", "diffrax"])
def test_raw_jax_before_the_variables_exist(raw):
    def forward(x):
        net = ours()
        return RAW[raw](net.module.apply, net.variables, x)

    with pytest.raises(hk_bridge.NotInitializedError, match="hk.running_init"):
        hk.transform(forward).init(KEY, X)


# The way back.


def mixed(x, train=True):
    x = hk.Linear(4)(x)
    x = FlaxModule(Norm(), name="net")(x, train)
    x = FlaxModule(nn.Dense(3))(x)  # built in line
    with hk.name_scope("scope"):
        return FlaxModule(nn.remat(nn.Dense)(2))(x)


def test_a_transform_with_bridged_modules_is_a_flax_module():
    f = hk.transform_with_state(mixed)
    module = hk.experimental.flax.Module(f)
    variables = module.init(KEY, X)
    flat = hk.experimental.flax.flatten_flax_to_haiku
    params, state = flat(variables["params"]), flat(variables["state"])
    assert tree_map(jnp.shape, (params, state)) == tree_map(
        jnp.shape, tuple(map(dict, f.init(KEY, X)))
    )
    y, moved = module.apply(variables, X, mutable=["state"])
    expected, new = f.apply(params, state, None, X)
    assert_identical(y, expected)
    assert_identical(flat(moved["state"]), dict(new))
    assert_identical(
        module.apply(variables, X, False), f.apply(params, state, None, X, False)[0]
    )


def test_it_works_inside_a_flax_network_and_back_in_haiku():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            inner = hk.experimental.flax.Module(hk.transform_with_state(mixed))
            return nn.Dense(2)(inner(nn.Dense(4)(x)))

    variables = Outer().init(KEY, X)
    y, moved = Outer().apply(variables, X, mutable=["state"])
    assert any(
        jnp.any(a != b)
        for a, b in zip(
            jax.tree.leaves(variables["state"]), jax.tree.leaves(moved), strict=True
        )
    )
    # And once more round.
    f = hk.transform_with_state(lambda x: FlaxModule(Outer(), name="outer")(x))
    params, state = hk_bridge.to_haiku(variables, name="outer")
    ours_y, new = f.apply(params, state, None, X)
    assert_identical(ours_y, y)
    assert_identical(hk_bridge.to_flax({}, new, name="outer"), moved)
    init_params, init_state = f.init(KEY, X)
    assert tree_map(jnp.shape, (init_params, init_state)) == tree_map(
        jnp.shape, (params, state)
    )


def test_each_bridge_sees_its_own_sown_values():
    class Sows(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("losses", "l", x.sum())
            return nn.Dense(2)(x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            f = hk.transform_with_state(lambda x: FlaxModule(nn.remat(Sows)())(x))
            return nn.remat(Sows)()(hk.experimental.flax.Module(f)(x))

    f = hk.transform_with_state(lambda x: FlaxModule(Outer())(x))
    params, state = f.init(KEY, X)
    assert len(params) == 2
    assert state == {}
    _, state = f.apply(params, state, None, X)
    assert state == {}


def test_dropout_on_the_way_back():
    def forward(x):
        return FlaxModule(nn.Dropout(0.5, deterministic=False))(x)

    module = hk.experimental.flax.Module(hk.transform(forward))
    x = jnp.ones([64])
    key = jax.random.key(3)
    variables = module.init({"params": KEY, "apply": key}, x)
    y = module.apply(variables, x, rngs={"apply": key})
    assert 0 < int(jnp.sum(y == 0.0)) < 64
