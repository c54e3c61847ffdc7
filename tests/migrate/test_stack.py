"""`stack` and `unstack`: layers one by one, as the layers of one scan, and back."""

import collections
import functools

from boxes import Box
from flax import nnx
import flax.core
import flax.linen as nn
import haiku as hk
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import VariablesError
from hk_bridge import _layout
from hk_bridge import migrate
from hk_bridge.migrate import stack
from hk_bridge.migrate import unstack
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 3, 8))
LAYERS = 3


def layers(count, leaf=lambda i: np.full((2, 3), i, np.float32)):
    return {f"net/layers_{i}": {"w": leaf(i)} for i in range(count)}


# Networks: the layers one by one and in a scan compute the same.


class Block(nn.Module):
    """A block of a transformer, which counts its calls."""

    @nn.compact
    def __call__(self, x, _=None):
        calls = self.variable("stats", "calls", lambda: jnp.zeros([], jnp.int32))
        if not self.is_initializing():
            calls.value += 1
        y = nn.LayerNorm()(x)
        x += nn.MultiHeadDotProductAttention(num_heads=2)(y)
        y = nn.Dense(16)(nn.LayerNorm()(x))
        return x + nn.Dense(8)(nn.gelu(y)), None


class Unrolled(nn.Module):
    count: int = LAYERS

    @nn.compact
    def __call__(self, x):
        for i in range(self.count):
            x, _ = Block(name=f"layers_{i}")(x)
        return nn.LayerNorm(name="norm")(x)


class Scanned(nn.Module):
    axis: int = 0

    @nn.compact
    def __call__(self, x):
        axes = {"params": self.axis, "stats": 0}
        scan = nn.scan(
            Block, variable_axes=axes, split_rngs={"params": True}, length=LAYERS
        )
        return nn.LayerNorm(name="norm")(scan(name="layers")(x, None)[0])


def unrolled(x):
    return FlaxModule(Unrolled(), name="net")(x)


def scanned(x):
    return FlaxModule(Scanned(), name="net")(x)


def block(x):
    return FlaxModule(Block(), name="block")(x)[0]


def haikus_loop(x):
    for _ in range(LAYERS):
        x = block(x)
    return FlaxModule(nn.LayerNorm(), name="norm")(x)


def layer_stack(x, name=None):
    x = hk.experimental.layer_stack(LAYERS, name=name)(block)(x)
    return FlaxModule(nn.LayerNorm(), name="norm")(x)


OWN = "__layer_stack_no_per_layer"
LOOP = ["block", *(f"block_{i}" for i in range(1, LAYERS))]
# From which network to which, and the moves of its params and of its state.
WAYS = {
    "nn.scan": (
        unrolled, scanned,
        [("net/layers_{}", "net/layers")],
        [("net/stats/layers_{}", "net/stats/layers")],
    ),
    "layer_stack": (
        haikus_loop, layer_stack, [(LOOP, f"{OWN}/block")], [(LOOP, f"{OWN}/block")],
    ),
}  # fmt: skip


def moved(tree, moves):
    for names, into in moves:
        tree = stack(tree, names, into=into)
    return tree


def back(tree, moves):
    for names, into in reversed(moves):
        tree = unstack(tree, into, into=names)
    return tree


def loss_and_grads(f, params, state):
    def loss(params):
        y, new = f.apply(params, state, None, X)
        return (y**2).mean(), (y, new)

    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parametrize(
    "way", [pytest.param("nn.scan", marks=pytest.mark.weekly), "layer_stack"]
)
def test_layers_one_by_one_and_scanned_compute_the_same(way):
    one_by_one, in_scan, of_params, of_state = WAYS[way]
    f, g = map(hk.transform_with_state, (one_by_one, in_scan))
    params, state = jax.jit(f.init)(KEY, X)
    stacked, stacked_state = moved(params, of_params), moved(state, of_state)
    specs = jax.eval_shape(g.init, KEY, X)
    assert_identical(jax.eval_shape(lambda: (stacked, stacked_state)), specs)
    with jax.disable_jit():  # so both run op by op, and the arithmetic is the same
        (loss, (y, new)), grads = loss_and_grads(f, params, state)
        (its_loss, (its_y, its_new)), its = loss_and_grads(g, stacked, stacked_state)
    assert_identical((its_loss, its_y), (loss, y))
    assert_identical(its, moved(grads, of_params))
    assert_identical(its_new, moved(new, of_state))
    assert_identical(back(its, of_params), grads)
    assert_identical(back(its_new, of_state), new)
    (_, (compiled, _)), _ = jax.jit(functools.partial(loss_and_grads, g))(
        stacked, stacked_state
    )
    np.testing.assert_allclose(compiled, y, rtol=0, atol=1e-5)


def test_the_names_of_a_layer_stack_with_a_name():
    made = jax.eval_shape(hk.transform_with_state(unrolled).init, KEY, X)
    named = functools.partial(layer_stack, name="stack")
    params, state = jax.eval_shape(hk.transform_with_state(named).init, KEY, X)
    params["net/norm"] = params.pop("norm")
    ours = stack(made[0], "net/layers_{}", into="stack/block")
    assert_identical(ours, params)
    ours = stack(made[1], "net/stats/layers_{}", into="stack/block/stats")
    assert_identical(ours, state)


@functools.cache
def variables_of_all():
    return jax.jit(Unrolled().init)(KEY, X)


@pytest.mark.parametrize("axis", [1, -1])
def test_the_axes_of_nn_scan(axis):
    module, variables = Unrolled(), variables_of_all()
    axes = {"params": axis, "stats": 0}
    stacked = stack(variables, "layers_{}", into="layers", axis=axes)
    made = jax.eval_shape(Scanned(axis).init, KEY, X)
    assert_identical(jax.eval_shape(lambda: stacked), made)
    run = lambda module, variables: module.apply(variables, X, mutable="stats")[0]
    ours, theirs = (
        jax.jit(functools.partial(run, module))(variables)
        for module, variables in ((Scanned(axis), stacked), (module, variables))
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    apart = unstack(stacked, "layers", into="layers_{}", axis=axes)
    assert_identical(apart, variables)


def test_hk_scan_over_the_layers():
    variables = variables_of_all()
    blocks = {"params": {k: v for k, v in variables["params"].items() if k != "norm"}}
    params, state = hk_bridge.to_haiku({**variables, **blocks}, name="net")
    xs = [
        stack(params, "net/layers_{}", into="block"),
        stack(state, "net/stats/layers_{}", into="block/stats"),
    ]
    f = hk.transform_with_state(block)

    def forward(x, xs):
        return hk.scan(lambda x, layer: (f.apply(*layer, None, x)[0], None), x, xs)[0]

    y = hk.transform(forward).apply({}, None, X, xs)
    expected = X
    step = jax.jit(lambda own, x: Block().apply(own, x, mutable="stats")[0][0])
    for i in range(LAYERS):
        expected = step({c: v[f"layers_{i}"] for c, v in variables.items()}, expected)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


class Chain(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.BatchNorm(3, rngs=rngs) for _ in range(12)])


class Tower(nnx.Module):
    def __init__(self, rngs):
        make = nnx.vmap(lambda rngs: nnx.BatchNorm(3, rngs=rngs))
        self.layers = nnx.split_rngs(splits=12)(make)(rngs)


def test_lists_of_nnx_and_their_numbers():
    chain, tower = Chain(nnx.Rngs(0)), Tower(nnx.Rngs(0))
    for i, layer in enumerate(chain.layers):
        layer.bias[...] = jnp.full(3, i, jnp.float32)
    state = nnx.state(chain)
    stacked = stack(state, "layers/%i{}", into="layers")
    assert stacked["params"]["layers"]["bias"][:, 0].tolist() == list(range(12))
    like = nnx.state(tower)
    (params, kept) = hk_bridge.to_haiku(stacked, name="net")
    nnx.update(tower, hk_bridge.to_flax(params, kept, name="net", like=like))
    assert tower.layers.bias[11].tolist() == [11.0] * 3
    apart = unstack(stacked, "layers", into="layers/%i{}")
    assert_identical(apart, _layout.opened(state))
    params, _ = hk_bridge.to_haiku(state, name="net")
    haikus = stack(params, "net/layers/%i{}", into="net/layers")
    assert haikus["net/layers"]["bias"][:, 0].tolist() == list(range(12))


# Names.


def test_numbers_are_numbers():
    stacked = stack(layers(12), "net/layers_{}", into="net/layers")
    assert list(stacked) == ["net/layers"]
    assert stacked["net/layers"]["w"][:, 0, 0].tolist() == list(range(12))


def test_modules_at_and_below_the_name_and_beside_it():
    head = np.ones(2)
    params = {
        "net/~/layers_0": {"w": np.zeros(2)}, "net/~/layers_0/~/a": {"b": np.zeros(1)},
        "net/~/layers_1": {"w": np.ones(2)}, "net/~/layers_1/~/a": {"b": np.ones(1)},
        "net/~/layers_": {"w": head}, "net/~/layers_01": {"w": head},
        "net/~/layers_x": {"w": head}, "other/net/~/layers_0": {"w": head},
    }  # fmt: skip
    stacked = stack(params, "net/~/layers_{}", into="net/~/layers")
    assert stacked["net/~/layers"]["w"].tolist() == [[0, 0], [1, 1]]
    assert stacked["net/~/layers/~/a"]["b"].tolist() == [[0], [1]]
    rest = params.keys() & stacked.keys()
    assert len(rest) == 4
    assert all(stacked[name]["w"] is head for name in rest)
    assert_identical(unstack(stacked, "net/~/layers", into="net/~/layers_{}"), params)


def test_a_number_in_the_middle_and_several_stacks():
    params = {
        f"net/{side}_{i}/{part}": {"w": np.full(2, 10 * i + len(part))}
        for side in ("enc", "dec")
        for i in range(2)
        for part in ("mlp", "attention")
    }
    stacked = stack(params, "net/enc_{}/mlp", into="net/enc/mlp")
    stacked = stack(stacked, "net/dec_{}", into="net/dec")
    assert stacked["net/enc/mlp"]["w"].tolist() == [[3, 3], [13, 13]]
    assert stacked["net/dec/attention"]["w"].tolist() == [[9, 9], [19, 19]]
    assert stacked["net/enc_1/attention"] == params["net/enc_1/attention"]
    apart = unstack(stacked, "net/dec", into="net/dec_{}")
    apart = unstack(apart, "net/enc/mlp", into="net/enc_{}/mlp")
    assert_identical(apart, params)


def test_stacks_of_stacks():
    params = {
        f"s_{i}/b_{j}": {"w": np.full(1, 10 * i + j)} for i in (0, 1) for j in (0, 1)
    }
    stacked = params
    for i in (0, 1):
        stacked = stack(stacked, f"s_{i}/b_{{}}", into=f"s_{i}/b")
    stacked = stack(stacked, "s_{}", into="s", axis=1)
    assert stacked["s/b"]["w"][..., 0].tolist() == [[0, 10], [1, 11]]


def test_names_in_a_list_are_in_its_order():
    stacked = stack(layers(3), ["net/layers_2", "net/layers_0"], into="some")
    assert stacked["some"]["w"][:, 0, 0].tolist() == [2, 0]
    assert list(stacked) == ["net/layers_1", "some"]
    apart = unstack(stacked, "some", into=["net/layers_2", "net/layers_0"])
    assert_identical(apart, layers(3))


def test_a_name_that_is_spelled_otherwise_in_haiku():
    variables = {"params": {"a/b0": {"~w": np.zeros(2)}, "a/b1": {"~w": np.ones(2)}}}
    stacked = stack(variables, "a%2Fb{}", into="a%2Fb")
    assert stacked["params"]["a/b"]["~w"].tolist() == [[0, 0], [1, 1]]
    assert_identical(unstack(stacked, "a%2Fb", into="a%2Fb{}"), variables)


# Leaves.

MESH = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
SHARDED = NamedSharding(MESH, P(None, "a"))
KINDS = {
    "numpy": lambda i: np.full((2, 3), i, np.float32),
    "bfloat16": lambda i: np.full((2, 3), i, jnp.bfloat16),
    "other byte order": lambda i: np.full((2, 3), i, ">f4"),
    "records": lambda i: np.full((2, 3), i, [("a", "<i4"), ("b", "<f8")]),
    "bool": lambda i: np.full((2, 3), i % 2 == 0),
    "scalar": lambda i: np.asarray(i, np.int8),
    "empty": lambda i: np.zeros((0, 3)),
    "nan": lambda i: np.full(2, np.nan, np.float16),
    "jax": lambda i: jnp.full((2, 3), i, jnp.float32),
    "jax scalar": lambda i: jnp.full((), i, jnp.int32),
    "weak": lambda i: jnp.asarray(float(i)),
    "keys": lambda i: jax.random.split(jax.random.key(i), 2),
    "key": lambda i: jax.random.key(i, impl="rbg"),
    "abstract": lambda i: jax.ShapeDtypeStruct((2, 3), jnp.bfloat16),
    "sharded": lambda i: jax.ShapeDtypeStruct((2, 3), jnp.int8, sharding=SHARDED),
    "tuple": lambda i: (np.full(2, i), [jnp.full(1, i), None]),
    "none": lambda i: None,
    "mapping": lambda i: collections.OrderedDict(a=np.full(2, i)),
}
FORMS = {
    "haiku": lambda leaf: {
        f"n/a_{i}/x": {"w": leaf(i), "o": np.ones(1)} for i in (0, 1, 2)
    },
    "flax": lambda leaf: {
        "params": {
            "a": {f"b{i}": {"x": {"w": leaf(i)}, "o": np.ones(1)} for i in (0, 1)}
        },
        "stats": {"a": {f"b{i}": {0: leaf(i)} for i in (0, 1)}},
    },
}
NAMES = {"haiku": ("n/a_{}", "n/a"), "flax": ("a/b{}", "c")}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_leaves_of_all_kinds(kind, form):
    tree = FORMS[form](KINDS[kind])
    if kind == "mapping" and form == "haiku":
        tree = FORMS[form](lambda i: _layout.keep(KINDS[kind](i)))
    names, into = NAMES[form]
    stacked = stack(tree, names, into=into)
    apart = unstack(stacked, into, into=names)
    assert jax.tree.structure(apart) == jax.tree.structure(tree)
    for one, two in zip(jax.tree.leaves(apart), jax.tree.leaves(tree), strict=True):
        assert isinstance(one, np.ndarray) == isinstance(two, np.ndarray)
        assert getattr(one, "weak_type", None) == getattr(two, "weak_type", None)
        if isinstance(two, jax.ShapeDtypeStruct):
            assert (one, one.sharding) == (two, two.sharding)
        elif jax.dtypes.issubdtype(two.dtype, jax.dtypes.prng_key):
            assert one.dtype == two.dtype
            assert jnp.array_equal(*map(jax.random.key_data, (one, two)))
        else:
            assert one.dtype.str == two.dtype.str
            assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
            assert one.shape == two.shape


def test_a_sharding_gets_an_axis():
    tree = layers(4, KINDS["sharded"])
    leaf = stack(tree, "net/layers_{}", into="a", axis=1)["a"]["w"]
    assert leaf.shape == (2, 4, 3)
    assert leaf.sharding.spec == P(None, None, "a")


def test_arrays_on_eight_devices_stay_where_they_are():
    mesh = jax.make_mesh((8,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    split = NamedSharding(mesh, P(None, "a"))
    put = lambda i: jax.device_put(np.full((2, 16), i, np.float32), split)
    stacked = stack(layers(3, put), "net/layers_{}", into="a")
    sharding = stacked["a"]["w"].sharding
    assert sharding.is_equivalent_to(NamedSharding(mesh, P(None, None, "a")), 3)
    for bundle in unstack(stacked, "a", into="net/layers_{}").values():
        assert bundle["w"].sharding.is_equivalent_to(split, 2)


def test_numpy_is_not_copied_where_it_need_not_be(tmp_path):
    tree = layers(1)
    (leaf,) = tree["net/layers_0"].values()
    stacked = stack(tree, "net/layers_{}", into="net/layers")["net/layers"]["w"]
    assert type(stacked) is np.ndarray
    assert stacked.shape == (1, 2, 3)
    assert np.shares_memory(stacked, leaf)
    stacked = stack(layers(3), "net/layers_{}", into="a", axis=1)
    apart = unstack(stacked, "a", into="net/layers_{}", axis=1)
    assert all(np.shares_memory(b["w"], stacked["a"]["w"]) for b in apart.values())
    file = np.memmap(tmp_path / "leaf", np.float32, "w+", shape=(2, 3))
    mapped = unstack({"a": {"w": file}}, "a", into="b_{}")
    assert all(np.shares_memory(bundle["w"], file) for bundle in mapped.values())
    assert_identical(stack(mapped, "b_{}", into="a")["a"]["w"], np.asarray(file))


def test_in_a_transform():
    @jax.jit
    def there_and_back(tree):
        stacked = stack(tree, "net/layers_{}", into="a")
        return stacked, unstack(stacked, "a", into="net/layers_{}")

    tree = layers(3, KINDS["jax"])
    stacked, apart = there_and_back(tree)
    assert_identical(stacked, stack(tree, "net/layers_{}", into="a"))
    assert_identical(apart, tree)
    grads = jax.grad(lambda t: stack(t, "net/layers_{}", into="a")["a"]["w"][1].sum())(
        tree
    )
    assert [float(b["w"].sum()) for b in grads.values()] == [0, 6, 0]


# Boxes.


class Annotated(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        init = nn.initializers.lecun_normal()
        up = nn.with_logical_partitioning(init, ("embed", "mlp"))
        tree = nn.with_partitioning(lambda key: {"a": jnp.ones(2)}, ("data",))
        self.param("tree", tree)
        return nn.Dense(8, kernel_init=up)(x), None


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", [None, "layers"])
def test_boxes_get_the_axis_that_nn_scan_gives_them(name, axis):
    class Loop(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i in range(3):
                x, _ = Annotated(name=f"layers_{i}")(x)
            return x

    class InScan(nn.Module):
        @nn.compact
        def __call__(self, x):
            options = {
                "variable_axes": {"params": axis},
                "split_rngs": {"params": True},
                "metadata_params": {nn.PARTITION_NAME: name},
            }
            return nn.scan(Annotated, length=3, **options)(name="layers")(x, None)[0]

    variables = Loop().init(KEY, X)
    params = {nn.PARTITION_NAME: name} if name else None
    options = {"axis": axis, "metadata_params": params}
    stacked = stack(variables, "layers_{}", into="layers", **options)
    made = jax.eval_shape(InScan().init, KEY, X)
    assert jax.tree.structure(stacked) == jax.tree.structure(made)
    apart = unstack(stacked, "layers", into="layers_{}", **options)
    assert_identical(apart, variables)


def test_an_axis_of_another_name_is_flaxs_error_with_the_line():
    names = ("layers", "embed")
    tree = {"params": {"layers": {"w": nn.Partitioned(np.zeros((3, 2)), names)}}}
    with pytest.raises(AssertionError) as error:
        unstack(tree, "layers", into="layers_{}")
    assert 'metadata_params={nn.PARTITION_NAME: "layers"}' in error.value.__notes__[0]


def test_other_boxes_are_asked_too():
    tree = {"params": {f"a_{i}": {"w": Box(np.full(2, i))} for i in range(2)}}
    stacked = stack(tree, "a_{}", into="a")
    assert type(stacked["params"]["a"]["w"]) is Box
    assert_identical(unstack(stacked, "a", into="a_{}"), tree)


# Trees of any shape.

PARTS = st.one_of(st.integers(0, 3), st.sampled_from(["a", "b/c", "~d", "e%", "f"]))
ARRAYS = st.builds(
    lambda shape, fill: np.full(shape, fill, np.float32),
    st.lists(st.integers(0, 2), max_size=2),
    st.integers(0, 9),
)
INSIDE = st.recursive(
    st.dictionaries(PARTS, ARRAYS, min_size=1, max_size=3),
    lambda inner: st.dictionaries(
        PARTS, st.one_of(ARRAYS, inner, st.just({})), min_size=1, max_size=3
    ),
    max_leaves=6,
).map(lambda tree: {**tree, "w": np.zeros(1, np.float32)})
OTHERS = st.dictionaries(st.sampled_from(["layers_x", "norm", "layers_01"]), INSIDE)


def flat(tree, path=()):
    """Each leaf by its path, empty levels too; JAX cannot sort str and int keys."""
    if not _layout.is_level(tree) or not tree:
        return {path: tree}
    return {
        k: v for key, part in tree.items() for k, v in flat(part, (*path, key)).items()
    }


def assert_same(ours, theirs):
    """The same leaves, bit by bit, in plain dicts."""
    ours, theirs = flat(ours), flat(theirs)
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        assert_identical(ours[path], leaf)


def numbered(tree, count):
    """The layers: as `tree`, with other numbers in each."""
    return {
        f"layers_{i}": _layout.map_leaves(
            lambda _, leaf, i=i: leaf + np.float32(i), tree, ("c",)
        )
        for i in range(count)
    }


def untouched(tree):
    """What tells whether a tree has changed: which leaves it has, and their bytes."""
    arrays = [(p, leaf) for p, leaf in flat(tree).items() if hasattr(leaf, "shape")]
    return [(path, id(leaf), leaf.tobytes()) for path, leaf in arrays]


@given(INSIDE, INSIDE, OTHERS, st.integers(1, 12), st.booleans(), st.booleans())
def test_round_trips_are_exact_and_both_sides_are_one(
    inside, state, others, count, deep, frozen
):
    at = (lambda tree: {"deep": tree}) if deep else (lambda tree: tree)
    prefix = "deep/" * deep
    variables = {
        "params": {**others, **at(numbered(inside, count))},
        "stats": at(numbered(state, count)),
    }
    given_tree = flax.core.freeze(variables) if frozen else variables
    before = untouched(given_tree)
    names, into = f"{prefix}layers_{{}}", f"{prefix}layers"
    stacked = stack(given_tree, names, into=into)
    apart = unstack(stacked, into, into=names)
    assert_same(apart, variables)
    assert_same(stack(apart, names, into=into), stacked)
    assert untouched(given_tree) == before
    for name, other in others.items():  # handed over
        assert untouched(stacked["params"][name]) == untouched(other)
    # Of Haiku's trees the same comes out.
    for haikus, whole, where in zip(
        hk_bridge.to_haiku(variables, name="net"),
        hk_bridge.to_haiku(stacked, name="net"),
        ("net", "net/stats"),
        strict=True,
    ):
        names, into = f"{where}/{prefix}layers_{{}}", f"{where}/{prefix}layers"
        ours = stack(haikus, names, into=into)
        assert_same(ours, whole)
        assert_same(unstack(ours, into, into=names), haikus)


# What is refused.

W = np.zeros((2, 3), np.float32)


def other(i, leaf):
    return {**layers(4), f"net/layers_{i}": {"w": leaf}}


REFUSED = {
    "shape": (
        other(3, W.T), "net/layers_{}", {},
        ["'net/layers_3/w' is float32[3,2]", "needs float32[2,3], as the first has"],
    ),
    "dtype": (
        other(1, W.astype("f8")), "net/layers_{}", {}, ["'net/layers_1/w' is float64"],
    ),
    "structure": (
        other(1, (W, W)), "net/layers_{}", {}, ["(float32[2,3], float32[2,3])"],
    ),
    "kind": (
        other(2, jax.ShapeDtypeStruct(W.shape, W.dtype)), "net/layers_{}", {},
        ["'net/layers_2/w' is float32[2,3] in another box, abstract or weak"],
    ),
    "number": (
        other(2, 2.0), "net/layers_{}", {}, ["needs arrays", "jax.numpy.asarray"],
    ),
    "mask": (other(0, np.ma.zeros(2)), "net/layers_{}", {}, ["'net/layers_0/w'"]),
    "axis": (
        layers(2), "net/layers_{}", {"axis": 3},
        ["room for axis 3", "choose another axis="],
    ),
    "lacks": (
        {**layers(3), "net/layers_2": {"v": W}}, "net/layers_{}", {},
        ["there is 'net/layers_0/w', but not 'net/layers_2/w'"],
    ),
    "more": (
        {**layers(3), "net/layers_2": {"w": W, "v": W}}, "net/layers_{}", {},
        ["there is 'net/layers_2/v', but not 'net/layers_0/v'"],
    ),
    "gap": (
        {f"net/layers_{i}": {"w": W} for i in (0, 1, 3, 4)}, "net/layers_{}", {},
        [
            "no 'net/layers_2', while there is 'net/layers_4'",
            "['net/layers_{}'.format(i) for i in [0, 1, 3, 4]]",
        ],
    ),
    "from one": (
        {f"a_{i}": {"w": W} for i in range(1, 9)}, "a_{}", {},
        ["There is no 'a_0'", "['a_{}'.format(i) for i in [1, ..., 8]]"],
    ),
    "haiku's count": (
        {"a": {"w": W}, "a_1": {"w": W}}, "a_{}", {},
        ["There is no 'a_0'", "['a', *('a_{}'.format(i) for i in [1])]"],
    ),
    "none": (
        {"net/block_0": {"w": W}, "net/a": {"w": W}}, "net/blocks_{}", {},
        ["no layers 'net/blocks_{}'", "nearest name is 'net/block_{}'"],
    ),
    "no numbers": ({"net": {"w": W}}, "net_{}", {}, ["No module there has a number"]),
    "empty tree": ({}, "net_{}", {}, ["no layers 'net_{}'"]),
    "numbers of nnx": (
        {"params": {"layers": {0: {"w": W}}}}, "layers/{}", {},
        ["'layers/%i{}'", "is written '%i{}'"],
    ),
    "bare": (
        {f"layers_{i}": {"a": {"w": W}} for i in range(2)}, "layers_{}", {},
        ['stack({"params": tree}, \'layers_{}\', ...)["params"]'],
    ),
    "collection": (
        {"params": {"layers_0": {"w": W}}}, "params/layers_{}", {},
        ["begins with a collection", "write 'layers_{}'"],
    ),
    "listed": (
        layers(2), ["net/layers_0", "net/layer_1"], {},
        ["nothing at 'net/layer_1'", "nearest name is 'net/layers_1'"],
    ),
    "taken": (
        {**layers(2), "into/b": {"v": W}}, "net/layers_{}", {},
        ["'into' is taken: the tree has 'into/b/v'", "another into="],
    ),
    "taken by a leaf": (
        {"params": {"l_0": {"w": W}, "into": W}}, "l_{}", {}, ["has 'params/into'"],
    ),
    "without leaves": (
        {"params": {"l_0": {}, "l_1": {}, "a": {"b": W}}}, "l_{}", {},
        ["no leaves, from 'l_0' on"],
    ),
    "no variables": ({"params": W}, "l_{}", {}, ["'params' must be a dict"]),
    "no dict": ([W], "l_{}", {}, ["must be a dict of collections"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_stack_is_named(case):
    tree, names, options, texts = REFUSED[case]
    with pytest.raises(VariablesError) as error:
        stack(tree, names, into="into", **options)
    for text in texts:
        assert text in str(error.value)


STACK = {"a": {"w": np.zeros((3, 2))}, "a/b": {"w": np.zeros((3, 1))}}
NOT_APART = {
    "sizes": (
        {**STACK, "a/b": {"w": np.zeros((2, 3))}}, "b_{}", 0,
        ["'a/w' has 3 layers", "'a/b/w' has 2"],
    ),
    "no axis": (
        {**STACK, "a/b": {"w": W[0]}}, "b_{}", 1,
        ["'a/b/w' is float32[3]", "an axis 1"],
    ),
    "no array": ({"a": {"w": 1.0}}, "b_{}", 0, ["needs arrays"]),
    "two sizes": ({"a": {"w": (W, W.T)}}, "b_{}", 0, ["one size along axis 0"]),
    "zero": ({"a": {"w": W[:0]}}, "b_{}", 0, ["holds no layers: 'a/w' has 0"]),
    "no leaves": ({"a": {}}, "b_{}", 0, ["holds no layers: no leaf is there"]),
    "nothing": (
        {"ab": {"w": W}}, "b_{}", 0, ["nothing at 'a'", "nearest name is 'ab'"],
    ),
    "taken": ({**STACK, "b_2": {"v": W}}, "b_{}", 0, ["'b_2' is taken"]),
    "flax, taken by a level": (
        {"params": {"a": {"w": W}, "b_1": {}}}, "b_{}", 0, ["has 'params/b_1'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_APART)
def test_what_does_not_come_apart_is_named(case):
    tree, into, axis, texts = NOT_APART[case]
    with pytest.raises(VariablesError) as error:
        unstack(tree, "a", into=into, axis=axis)
    for text in texts:
        assert text in str(error.value)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: stack(layers(2), "net/layers", into="a"), ValueError, "one {}"),
        (lambda: stack(layers(2), "{}/{}", into="a"), ValueError, "one {}"),
        (lambda: stack(layers(2), [], into="a"), TypeError, r"not by \[\]"),
        (lambda: stack(layers(2), 3, into="a"), TypeError, "not by 3"),
        (lambda: stack(layers(2), "net/layers_{}", into="a//b"), ValueError, "a//b"),
        (lambda: stack(layers(2), "net/layers_{}", into=None), TypeError, "not None"),
        (lambda: stack(layers(2), ["a", "a"], into="b"), ValueError, "not two"),
        (lambda: stack(layers(2), ["a/b", "a"], into="b"), ValueError, "not two"),
        (
            lambda: stack(layers(2), "net/layers_{}", into="a", axis=0.0),
            TypeError, "int",
        ),
        (
            lambda: stack(layers(2), "net/layers_{}", into="a", axis={"params": 0}),
            TypeError, "Flax variables",
        ),
        (lambda: unstack(STACK, "a", into="b"), ValueError, "one {}"),
        (lambda: unstack(STACK, "a", into=["b"]), ValueError, "1 names, but 3 layers"),
    ],
)  # fmt: skip
def test_wrong_arguments(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_they_are_public():
    assert {"stack", "unstack"} <= set(migrate.__all__)
