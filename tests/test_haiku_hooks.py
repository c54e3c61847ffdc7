"""Haiku's hooks, policies, tables and looks, on a bridged module as on one of Haiku's.

Most tests run on a twin, too: a Haiku module of the same shape, under the same name.
"""

import dataclasses
import re
from typing import Any

from catalogue import CASES
from catalogue import Norm
from catalogue import array
import flax.linen as nn
from flax.linen import module as linen_module
import haiku as hk
from haiku._src import mixed_precision
from haiku._src import module as haiku_module
import jax
import jax.numpy as jnp
import jmp
from laws import flax_apply
from laws import flax_init
from laws import names
from laws import network
from laws import transform
import optax
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge._proof import program as _program
from hk_bridge._proof.sides import total
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)
tree_map = jax.tree.map


def run(forward, *args, rng=KEY, apply_rng=None):
    """`(params, state, output at init, output, new state)`."""
    outputs = []

    def logged(*args):
        outputs.append(forward(*args))
        return outputs[-1]

    f = hk.transform_with_state(logged)
    params, state = f.init(rng, *args)
    return params, state, outputs[0], *f.apply(params, state, apply_rng, *args)


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        x = nn.Dense(4, dtype=x.dtype)(x)
        # The carry keeps its dtype under a policy, too.
        norm = nn.BatchNorm(use_running_average=False, dtype=x.dtype)
        return norm(x), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "batch_stats": 0}
        scan = nn.scan(Layer, axes, split_rngs={"params": True}, length=2)
        return scan(name="layers")(x, None)[0]


@dataclasses.dataclass(frozen=True)
class Net:
    """A network called `net`, bridged or Haiku's own.

    Attributes:
      call: runs it.
      module: the linen module, if there is one.
      kwargs: of the linen module's call.
      twin: the leaves of Haiku's module, under Flax's names.
    """

    name: str
    call: Any
    module: Any = None
    kwargs: Any = dataclasses.field(default_factory=dict)
    twin: Any = None

    def __str__(self):
        return self.name


def bridged(name, module, **kwargs):
    call = lambda x: FlaxModule(module, name="net")(x, **kwargs)
    return Net(name, call, module, kwargs)


def haiku(name, make, twin, **kwargs):
    return Net(name, lambda x: make()(x, **kwargs), twin=twin)


DENSE = bridged("dense", nn.Dense(3))
LINEAR = haiku("linear", lambda: hk.Linear(3, name="net"), {"w": "kernel", "b": "bias"})
LAYER_NORM = bridged("layer_norm", nn.LayerNorm())
HK_LAYER_NORM = haiku(
    "hk_layer_norm",
    lambda: hk.LayerNorm(-1, True, True, name="net"),
    {"scale": "scale", "offset": "bias"},
)
BATCH_NORM = bridged("batch_norm", nn.BatchNorm(use_running_average=False))
HK_BATCH_NORM = haiku(
    "hk_batch_norm",
    lambda: hk.BatchNorm(True, True, 0.99, name="net"),
    {"scale": "scale", "offset": "bias"},
    is_training=True,
)


class Dtypes(nn.Module):
    """Says what it is given."""

    log: Any  # a function: Flax makes a tuple of a list

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.ones, (1, 1))
        mean = self.variable("stats", "mean", jnp.zeros, (1, 1))
        self.log((x.dtype, w.dtype, mean.value.dtype))
        return x * w + mean.value


class HaikuDtypes(hk.Module):
    def __init__(self, log, name):
        super().__init__(name=name)
        self.log = log

    def __call__(self, x):
        w = hk.get_parameter("w", (1, 1), x.dtype, jnp.ones)
        mean = hk.get_state("mean", (1, 1), x.dtype, jnp.zeros)
        self.log((x.dtype, w.dtype, mean.dtype))
        return x * w + mean


VARIABLES = bridged("variables", Dtypes(id))
HAIKU_VARIABLES = Net("haiku_variables", lambda x: HaikuDtypes(id, "net")(x), twin={})
LIFTED = [
    bridged("remat", nn.remat(Norm)()),
    bridged("scan", Scanned()),
]
TWINS = [(DENSE, LINEAR), (LAYER_NORM, HK_LAYER_NORM), (BATCH_NORM, HK_BATCH_NORM)]
twins = pytest.mark.parametrize(("ours", "theirs"), TWINS, ids=lambda net: str(net))
nets = pytest.mark.parametrize("net", [*TWINS[0], *TWINS[2], *LIFTED], ids=str)


def floats(change):
    """`change` on each float of a tree."""
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    return lambda tree: tree_map(lambda x: change(x) if is_float(x) else x, tree)


# Creators.


def creation(net, change=None):
    """What a creator sees of `net`, a row a leaf."""
    rows = []

    def creator(next_creator, shape, dtype, init, context):
        owner = context.module
        assert isinstance(owner, hk.Module)
        assert owner.name == owner.module_name.split("/")[-1]
        assert init is context.original_init
        rows.append(
            (
                owner.module_name,
                context.module_name,
                (net.twin or {}).get(context.name, context.name),
                context.full_name.rsplit("/", 1)[0],
                tuple(n for n in shape if n != 1),  # hk.BatchNorm's are [1, C]
                tuple(shape) == tuple(context.original_shape),
                jnp.dtype(dtype),
                jnp.dtype(context.original_dtype),
                context.lifted_prefix_name,
            )
        )
        if change is not None:
            change(shape, dtype, init)
        return next_creator(shape, dtype, init)

    def forward(x):
        with hk.custom_creator(creator):
            return net.call(x)

    hk.transform_with_state(forward).init(KEY, X)
    return rows


@twins
def test_a_creator_sees_of_each_leaf_what_it_sees_of_the_twins(ours, theirs):
    assert creation(ours) == creation(theirs)


@pytest.mark.parametrize("net", [*TWINS[0], *TWINS[1]], ids=str)
def test_the_initialiser_works_for_any_shape_and_dtype(net):
    def check(shape, dtype, init):
        assert init(shape, dtype).shape == tuple(shape)
        assert init(shape, jnp.bfloat16).dtype == jnp.bfloat16
        assert init([7 for _ in shape], dtype).shape == (7,) * len(shape)

    assert creation(net, check)


@nets
def test_the_initialiser_gives_what_the_module_makes(net):
    def creator(next_creator, shape, dtype, init, context):
        return context.original_init(shape, dtype)

    def forward(x):
        with hk.custom_creator(creator, state=True):
            return net.call(x)

    assert_identical(run(forward, X), run(net.call, X))


class Order(nn.Module):
    """Leaves and submodules in another order than the alphabet's."""

    @nn.compact
    def __call__(self, x):
        x = x * self.param("w", nn.initializers.ones, (1, 1))
        x = nn.BatchNorm(name="z", use_running_average=False)(nn.Dense(4, name="y")(x))
        x = nn.Dense(4, name="b")(x) + self.param("v", nn.initializers.ones, (1, 1))
        return nn.BatchNorm(name="a", use_running_average=False)(x)


def test_leaves_are_created_in_the_order_of_the_module():
    created = {"params": [], "state": []}

    def creator(kind):
        def log(next_creator, shape, dtype, init, context):
            created[kind].append(context.full_name)
            return next_creator(shape, dtype, init)

        return log

    def forward(x):
        with (
            hk.custom_creator(creator("params")),
            hk.custom_creator(creator("state"), params=False, state=True),
        ):
            return FlaxModule(Order(), name="net")(x)

    hk.transform_with_state(forward).init(KEY, X)
    dense = ("kernel", "bias")
    assert created["params"] == [
        "net/w",
        *(f"net/y/{k}" for k in dense),
        "net/z/scale",
        "net/z/bias",
        *(f"net/b/{k}" for k in dense),
        "net/v",
        "net/a/scale",
        "net/a/bias",
    ]
    assert created["state"] == [
        f"net/batch_stats/{m}/{k}" for m in "za" for k in ("mean", "var")
    ]


# Hooks that change what there is: what is stored, and what the module gets to see.


ones = jnp.ones_like


def twice(x):
    return 2.0 * x


def bf16(x):
    return x.astype(jnp.bfloat16)


def same(x):
    return x


def create(hook):
    return lambda: hk.custom_creator(
        lambda next_creator, shape, dtype, init, context: hook(
            next_creator, shape, dtype, init
        ),
        state=True,
    )


def get(hook):
    return lambda: hk.custom_getter(
        lambda next_getter, value, context: next_getter(hook(value)), state=True
    )


def if_float(then):
    """Leaves the integers of `hk.BatchNorm` alone."""

    def hook(next_creator, shape, dtype, init):
        if not jnp.issubdtype(dtype, jnp.floating):
            return next_creator(shape, dtype, init)
        return then(next_creator, shape, dtype, init)

    return hook


# What is done, what it makes of what is stored, and of what is read.
HOOKS = {
    "other_init": (create(if_float(lambda n, s, d, i: n(s, d, jnp.ones))), ones, same),
    "scaled": (create(if_float(lambda n, s, d, i: 2.0 * n(s, d, i))), twice, same),
    "made_bf16": (create(if_float(lambda n, s, d, i: bf16(n(s, d, i)))), bf16, same),
    "got_scaled": (get(floats(lambda x: 2.0 * x)), same, twice),
    "got_bf16": (get(floats(bf16)), same, bf16),
}


@nets
@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_the_forward_pass_uses_what_hooks_return(net, hook):
    manager, stored, read = hook[0], *map(floats, hook[1:])
    if net is HK_BATCH_NORM and hook[1] is not same:
        net = HAIKU_VARIABLES  # hk.BatchNorm writes in training what no creator made

    def forward(x):
        with manager():
            return net.call(x)

    # Haiku's modules mix the dtypes that these hooks bring about, and so do Flax's.
    with jax.numpy_dtype_promotion("standard"):
        params, state, y_init, y, new = run(forward, X)
        plain = hk.transform_with_state(net.call)
        assert_identical((params, state), stored(plain.init(KEY, X)))
        expected, expected_new = plain.apply(read(params), read(state), None, X)
        assert_identical((y, new), (expected, expected_new))
        assert_identical(y_init, y)
        if net.module is not None:
            variables = hk_bridge.to_flax(read(params), read(state), name="net")
            mutable = [c for c in variables if c != "params"]
            flax_y, _ = net.module.apply(variables, X, mutable=mutable, **net.kwargs)
            assert_identical(y, flax_y)


@pytest.mark.parametrize("net", [VARIABLES, HAIKU_VARIABLES], ids=str)
def test_a_creator_of_state_asks_for_another_dtype(net):
    def forward(x):
        creator = lambda n, s, d, i, context: n(s, jnp.float16, i)
        with hk.custom_creator(creator, params=False, state=True):
            return net.call(x)

    with jax.numpy_dtype_promotion("standard"):  # float16 meets float32
        _, state = hk.transform_with_state(forward).init(KEY, X)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float16")}


@pytest.mark.parametrize("lift", ["none", "remat"])
@pytest.mark.parametrize("kind", ["bridged", "haiku"])
def test_state_that_is_not_written_keeps_its_value_under_a_getter(kind, lift):
    def forward(x):
        with hk.custom_getter(lambda n, v, context: n(2 * v), params=False, state=True):
            if kind == "bridged":
                norm = nn.remat(nn.BatchNorm) if lift == "remat" else nn.BatchNorm
                return FlaxModule(norm(use_running_average=True), name="net")(x)
            norm = hk.BatchNorm(True, True, 0.9, name="net")
            evaluate = lambda x: norm(x, is_training=hk.running_init())
            return (hk.remat(evaluate) if lift == "remat" else evaluate)(x)

    with jax.numpy_dtype_promotion("standard"):  # hk.BatchNorm's counter is an integer
        _, state, _, _, new = run(forward, X)
    assert_identical(new, state)


def test_state_that_is_not_written_at_init_is_as_it_was_for_the_next_call():
    stored = []

    def cast(next_getter, value, context):
        stored.append(value.dtype)
        return next_getter(value.astype(jnp.bfloat16))

    class Reads(nn.Module):
        @nn.compact
        def __call__(self, x):
            start = self.variable("stats", "start", jnp.ones, [])
            return x + start.value.astype(x.dtype)

    def forward(x):
        with hk.custom_getter(cast, params=False, state=True):
            net = FlaxModule(nn.remat(Reads)(), name="net")
            return net(net(x))

    jax.eval_shape(hk.transform_with_state(forward).init, KEY, X)
    assert stored == [jnp.float32] * 2


def test_a_tuple_that_is_not_written_keeps_its_value_under_a_getter():
    class Reads(nn.Module):
        @nn.compact
        def __call__(self, x):
            start = self.variable("stats", "pair", lambda: (jnp.ones([]), jnp.ones([])))
            return x + sum(start.value)

    def forward(x):
        doubled = lambda get, value, _: get(tree_map(twice, value))
        with hk.custom_getter(doubled, state=True):
            return FlaxModule(nn.map_variables(Reads, "params")(), name="net")(x)

    _, state, _, _, new = run(forward, X)
    assert_identical(new, state)


@pytest.mark.parametrize("net", [*TWINS[0], LIFTED[0], LIFTED[1]], ids=str)
def test_frozen_leaves_have_no_gradient(net):
    def freeze(next_getter, value, context):
        frozen = (net.twin or {}).get(context.name, context.name) == "kernel"
        return next_getter(jax.lax.stop_gradient(value) if frozen else value)

    def forward(x):
        with hk.custom_getter(freeze):
            return net.call(x)

    f, plain = map(hk.transform_with_state, (forward, net.call))
    params, state = f.init(KEY, X)

    def grads(f):
        return jax.grad(lambda p: total(f.apply(p, state, None, X)[0]))(params)

    expected = {
        module: {
            k: jnp.zeros_like(v) if k in ("kernel", "w") else v
            for k, v in bundle.items()
        }
        for module, bundle in grads(plain).items()
    }
    assert_identical(grads(f), expected)


class TwoLayers(nn.Module):
    """A parameter and a variable that are tuples."""

    @nn.compact
    def __call__(self, x):
        pair = lambda *_: (jnp.ones([4]), jnp.full([4], 2.0))
        a, b = self.param("pair", pair)
        c, d = self.variable("stats", "pair", pair).value
        return (a, b), (c, d)


GETTERS = {
    "before": lambda get, value, context: get(tree_map(lambda x: 3 * x, value)),
    "after": lambda get, value, context: tree_map(lambda x: 3 * x, get(value)),
}


@pytest.mark.parametrize("getter", GETTERS.values(), ids=GETTERS)
def test_a_getter_sees_a_tuple_as_it_is(getter):
    def forward(x):
        net = FlaxModule(TwoLayers(), name="net")
        with hk.custom_getter(GETTERS["after"]), hk.custom_getter(getter, state=True):
            return net(x)

    plain = hk.transform_with_state(lambda x: FlaxModule(TwoLayers(), name="net")(x))
    params, state, _, (param, variable), new = run(forward, X)
    assert_identical(params, plain.init(KEY, X)[0])
    assert_identical(new, state)
    pair = params["net"]["pair"]
    assert_identical(param, tree_map(lambda x: 9 * x, pair))
    assert_identical(variable, tree_map(lambda x: 3 * x, state["net/stats"]["pair"]))


def test_a_creator_cannot_give_another_shape():
    for net in (DENSE, LINEAR):

        def forward(x, net=net):
            creator = lambda n, s, d, i, c: n([7 for _ in s], d, i)
            with hk.custom_creator(creator):
                return net.call(x)

        with pytest.raises(ValueError, match=r"'net/\w+' with retrieved shape \(7"):
            hk.transform(forward).init(KEY, X)


@pytest.mark.parametrize("net", [*TWINS[0], *TWINS[1]], ids=str)
def test_an_initialiser_that_is_not_called_does_not_run(net):
    def forward(x):
        with hk.custom_creator(lambda n, s, d, i, c: jnp.full(s, 0.5, d)):
            return net.call(x)

    # No key, which the initialiser would ask for.
    params, *_ = run(forward, X, rng=None)
    assert_identical(
        params, tree_map(lambda w: jnp.full_like(w, 0.5), run(net.call, X)[0])
    )


@pytest.mark.parametrize("net", TWINS[2], ids=str)
@pytest.mark.parametrize("kind", ["scaled", "dropped"])
def test_a_setter_sees_and_changes_each_write(net, kind):
    written = {}

    def setter(next_setter, value, context):
        assert context.original_shape == value.shape
        assert context.original_dtype == value.dtype
        assert isinstance(context.module, hk.Module)
        assert context.module_name == context.module.module_name
        written[context.full_name] = value
        return (
            next_setter(value * 2.0) if value.dtype == jnp.float32 and scaled else drop
        )

    scaled, drop = kind == "scaled", hk.DO_NOT_STORE

    def forward(x):
        with hk.custom_setter(setter):
            return net.call(x)

    params, state = hk.transform_with_state(net.call).init(KEY, X)
    y, expected = hk.transform_with_state(net.call).apply(params, state, None, X)
    hooked_y, new = hk.transform_with_state(forward).apply(params, state, None, X)
    assert_identical(hooked_y, y)
    changes = lambda old, x: 2.0 * x if scaled and x.dtype == jnp.float32 else old
    assert_identical(new, tree_map(changes, state, expected))
    assert sorted(written) == names(state)


# Sharing.


def keep_outside(bank, only=lambda context: True):
    """Leaves live in `bank`, not in Haiku: `hk.DO_NOT_STORE`."""

    def creator(next_creator, shape, dtype, init, context):
        if not only(context):
            return next_creator(shape, dtype, init)
        return hk.DO_NOT_STORE

    def getter(next_getter, value, context):
        if value is hk.DO_NOT_STORE:
            value = bank[context.module_name][context.name]
        return next_getter(value)

    return creator, getter


@pytest.mark.parametrize("net", TWINS[0], ids=str)
def test_what_is_shared_needs_no_key(net):
    bank, _ = hk.transform_with_state(net.call).init(KEY, X)
    creator, getter = keep_outside(bank)

    def forward(x):
        with hk.custom_creator(creator), hk.custom_getter(getter):
            return net.call(x)

    f = hk.transform(forward)
    assert f.init(None, X) == {}
    assert_identical(f.apply({}, None, X), hk.transform(net.call).apply(bank, None, X))


@nets
@pytest.mark.parametrize("which", ["all", "some"])
def test_params_shared_from_outside(net, which):
    plain = hk.transform_with_state(net.call)
    bank, state = plain.init(KEY, X)
    expected, new = plain.apply(bank, state, None, X)
    only = lambda context: which == "all" or context.name in ("kernel", "w", "scale")

    def forward(x):
        creator, getter = keep_outside(bank, only)
        with hk.custom_creator(creator), hk.custom_getter(getter):
            return net.call(x)

    params, ours_state, y_init, y, ours_new = run(forward, X)
    assert set(names(params)).isdisjoint(
        {n for n in names(bank) if which == "all" or n.split("/")[-1] == "kernel"}
    )
    assert_identical((y, ours_state, ours_new), (expected, state, new))
    if which == "all":
        assert params == {}
        assert_identical(y_init, y)


@pytest.mark.parametrize("net", [*TWINS[2], LIFTED[1]], ids=str)
def test_state_shared_from_outside(net):
    plain = hk.transform_with_state(net.call)
    params, bank = plain.init(KEY, X)
    bank = floats(lambda x: x + 1.0)(bank)
    expected, _ = plain.apply(params, bank, None, X)

    def forward(x):
        creator, getter = keep_outside(bank)
        with (
            hk.custom_creator(creator, params=False, state=True),
            hk.custom_getter(getter, params=False, state=True),
            hk.custom_setter(lambda n, v, context: hk.DO_NOT_STORE),
        ):
            return net.call(x)

    _, state, y_init, y, new = run(forward, X)
    assert not jax.tree.leaves((state, new))
    assert_identical((y_init, y), (expected, expected))


# Four real uses.


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(y)
        y = nn.relu(nn.Dense(8, name="up")(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1], name="down")(y)


class Transformer(nn.Module):
    lift: Any = lambda module: module

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(5, 4, name="embed")(ids)
        for i in range(2):
            x = self.lift(Block)(name=f"block-{i}")(x)
        return nn.Dense(5, name="head")(x)


IDS = jnp.array([[0, 2, 1], [4, 1, 3]])


def low_rank(value, a, b):
    return value + (a @ b).reshape(value.shape)


def lora(next_getter, value, context):
    if context.name in ("lora_a", "lora_b"):
        return next_getter(value)
    value = jax.lax.stop_gradient(value)
    if context.name in ("kernel", "w"):
        rows, columns = value.shape[0], value.size // value.shape[0]
        normal = hk.initializers.RandomNormal(0.1)
        a = hk.get_parameter("lora_a", [rows, 2], init=normal)
        b = hk.get_parameter("lora_b", [2, columns], init=jnp.zeros)
        value = low_rank(value, a, b)
    return next_getter(value)


LORA = {
    "transformer": (lambda: FlaxModule(Transformer(), name="net"), IDS, Transformer()),
    "remat": (
        lambda: FlaxModule(Transformer(nn.remat), name="net"),
        IDS,
        Transformer(),
    ),
    "linear": (lambda: hk.Linear(3, name="net"), X, None),
}


@pytest.mark.parametrize(
    ("use", "stored"),
    [("transformer", True), ("remat", False), ("linear", True), ("linear", False)],
)
def test_lora(use, stored):
    """The low-rank leaves alone learn; merged, plain Flax gives the same."""
    make, x, module = LORA[use]
    plain = hk.transform(lambda x: make()(x))
    pretrained = plain.init(KEY, x)
    creator, getter = keep_outside(
        pretrained, lambda context: not stored and "lora" not in context.name
    )
    if stored:

        def creator(next_creator, shape, dtype, init, context):
            if "lora" in context.name:
                return next_creator(shape, dtype, init)
            return pretrained[context.module_name][context.name]

    def forward(x):
        with (
            hk.custom_creator(creator),
            hk.custom_getter(getter),
            hk.custom_getter(lora),
        ):
            return make()(x)

    f = hk.transform(forward)
    params = f.init(jax.random.key(1), x)
    ours, theirs = hk.data_structures.partition(lambda m, n, v: "lora" in n, params)
    assert_identical(theirs, pretrained if stored else {})
    kernels = [n for n in names(pretrained) if n.split("/")[-1] in ("kernel", "w")]
    assert len(names(ours)) == 2 * len(kernels)
    assert_identical(f.apply(params, None, x), plain.apply(pretrained, None, x))

    @jax.jit
    def step(params):
        loss = lambda p: jnp.mean((f.apply(p, None, x) - 1.0) ** 2)
        value, grads = jax.value_and_grad(loss)(params)
        return (
            value,
            grads,
            optax.apply_updates(params, tree_map(lambda g: -0.1 * g, grads)),
        )

    losses = []
    for _ in range(3):
        value, grads, params = step(params)
        losses.append(value)
    assert losses[2] < losses[1] < losses[0]
    ours, theirs = hk.data_structures.partition(lambda m, n, v: "lora" in n, grads)
    assert not any(jnp.any(g) for g in jax.tree.leaves(theirs))
    assert all(jnp.any(g) for g in jax.tree.leaves(ours))

    def merge(module, name, value):
        leaves = params.get(module, {})
        if name not in ("kernel", "w"):
            return value
        return low_rank(value, leaves["lora_a"], leaves["lora_b"])

    merged = hk.data_structures.map(merge, pretrained)
    y = f.apply(params, None, x)
    assert_identical(y, plain.apply(merged, None, x))
    if module is not None:
        variables = hk_bridge.to_flax(merged, {}, name="net")
        assert_identical(y, module.apply(variables, x))


@pytest.mark.parametrize("net", [*TWINS[0], LIFTED[0]], ids=str)
def test_an_average_of_the_weights_by_tree(net):
    ema = hk.transform_with_state(lambda tree: hk.EMAParamsTree(0.5)(tree))
    f = hk.transform_with_state(net.call)
    params, state = f.init(KEY, X)
    _, ema_state = ema.init(None, params)
    average = tree_map(jnp.zeros_like, params)
    for step in range(1, 4):
        params = tree_map(lambda x: x + 0.5, params)
        (averaged, ema_state) = ema.apply({}, ema_state, None, params)
        average = tree_map(lambda a, x: 0.5 * a + 0.5 * x, average, params)
        debiased = tree_map(lambda a, step=step: a / (1.0 - 0.5**step), average)
        assert jax.tree.structure(averaged) == jax.tree.structure(params)
        assert all(jax.tree.leaves(tree_map(jnp.allclose, averaged, debiased)))
    y, _ = f.apply(averaged, state, None, X)
    if net.module is not None:
        variables = hk_bridge.to_flax(averaged, state, name="net")
        assert_identical(y, net.module.apply(variables, X, mutable=True)[0])


def test_parameters_put_before_they_are_asked_for_stay():
    class Puts(nn.Module):
        @nn.compact
        def __call__(self, x):
            if not self.is_initializing():
                self.put_variable("params", "w", x)
            return x * self.param("w", nn.initializers.ones, (4,))

    def forward(x):
        with hk.custom_getter(lambda next_getter, value, _: next_getter(0.5 * value)):
            return FlaxModule(Puts(), name="net")(x, mutable=["params"])

    params = {"net": {"w": jnp.ones([4])}}
    y, new = hk.transform(forward).apply(params, None, X[0])
    variables = {"params": {"w": jnp.full([4], 0.5)}}
    expected = Puts().apply(variables, X[0], mutable=["params"])
    assert_identical((y, new), expected)


def averaging(next_getter, value, context):
    """Keeps an average of each leaf in state, and uses it."""
    module = hk.ExponentialMovingAverage(0.5, name=f"{context.name}_average")
    return next_getter(module(value))


def normalising(next_getter, value, context):
    if context.name in ("kernel", "w"):
        value = hk.SpectralNorm(name=f"{context.name}_norm")(value)
    return next_getter(value)


@pytest.mark.parametrize("net", [*TWINS[0], LIFTED[0]], ids=str)
@pytest.mark.parametrize("getter", [averaging, normalising])
def test_a_getter_with_state_of_its_own(net, getter):
    """An average of the weights; spectral normalisation."""

    def forward(x):
        with hk.custom_getter(getter):
            return net.call(x)

    f = hk.transform_with_state(forward)
    plain = hk.transform_with_state(net.call)
    params, state = f.init(KEY, X)
    assert_identical(params, plain.init(KEY, X)[0])
    own = {m: bundle for m, bundle in state.items() if m in plain.init(KEY, X)[1]}
    for _ in range(2):
        # By hand, module by module, with the state that the getter had.
        read = {}
        for module, bundle in params.items():
            read[module] = {}
            for name, value in bundle.items():
                kind = "average" if getter is averaging else "norm"
                prefix = f"{module}/{name}_{kind}"
                if prefix not in state:
                    read[module][name] = value
                    continue
                by_hand = hk.transform_with_state(
                    lambda value: (
                        hk.ExponentialMovingAverage(0.5, name="it")(value)
                        if getter is averaging
                        else hk.SpectralNorm(name="it")(value)
                    )
                )
                read[module][name], new = by_hand.apply(
                    {}, {"it": state[prefix]}, None, value
                )
        expected, own = plain.apply(read, own, None, X)
        y, state = f.apply(params, state, None, X)
        assert_identical(y, expected)
        assert_identical({m: state[m] for m in own}, own)
        params = tree_map(lambda x: x * 1.5, params)


@pytest.mark.parametrize("net", [*TWINS[0], *LIFTED[:2]], ids=str)
def test_a_prior_on_each_leaf(net):
    """Leaves are drawn from a prior of their own, and weighed by it."""
    scales = {"kernel": 0.5, "w": 0.5, "bias": 2.0, "b": 2.0, "scale": 1.0}
    log_priors = []

    def draw(next_creator, shape, dtype, init, context):
        scale = scales[context.name]
        return next_creator(shape, dtype, hk.initializers.RandomNormal(scale))

    def weigh(next_getter, value, context):
        value = next_getter(value)
        log_prior = jax.scipy.stats.norm.logpdf(value, 0.0, scales[context.name])
        log_priors.append(jnp.sum(log_prior))
        return value

    def forward(x):
        del log_priors[:]
        with hk.custom_creator(draw), hk.custom_getter(weigh):
            return net.call(x), sum(log_priors)

    params, state, _, (y, log_prior), _ = run(forward, X)
    expected = sum(
        jnp.sum(jax.scipy.stats.norm.logpdf(value, 0.0, scales[name]))
        for bundle in params.values()
        for name, value in bundle.items()
    )
    assert_identical(log_prior, expected)
    assert_identical(
        y, hk.transform_with_state(net.call).apply(params, state, None, X)[0]
    )
    assert all(jnp.all(leaf != 0.0) for leaf in jax.tree.leaves(params))


# Mixed precision.


@pytest.fixture
def policy():
    """A policy; none is left afterwards, nor the interceptor that Haiku adds."""
    before = list(haiku_module.interceptor_stack._storage)
    yield jmp.get_policy("params=float32,compute=bfloat16,output=float16")
    classes = (FlaxModule, hk_bridge.nn.GroupNorm, Own, HaikuDtypes, hk.BatchNorm)
    for cls in classes:
        hk.mixed_precision.clear_policy(cls)
    haiku_module.interceptor_stack._storage.clear()
    haiku_module.interceptor_stack._storage.extend(before)
    mixed_precision.reset_thread_local_state_for_test()


class Own(FlaxModule):
    """A class of the user's."""


@pytest.mark.parametrize("cls", [FlaxModule, Own, HaikuDtypes])
@pytest.mark.parametrize("how", ["set", "push"])
def test_the_dtypes_of_a_policy_hold_inside(policy, cls, how):
    log = []

    # Haiku's getters reach state after a first pass.
    @jax.numpy_dtype_promotion("standard")
    def forward(x):
        arg = log.append if cls is HaikuDtypes else Dtypes(log.append)
        if how == "set":
            hk.mixed_precision.set_policy(cls, policy)
            return cls(arg, name="net")(x)
        with hk.mixed_precision.push_policy(cls, policy):
            return cls(arg, name="net")(x)

    params, _, y_init, y, _ = run(forward, X)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert {dtype for row in log[-2:] for dtype in row} == {jnp.dtype("bfloat16")}
    assert y.dtype == y_init.dtype == jnp.float16
    hk.mixed_precision.clear_policy(cls)
    arg = log.append if cls is HaikuDtypes else Dtypes(log.append)
    assert run(lambda x: cls(arg, name="net")(x), X)[3].dtype == jnp.float32


# One a kind. Not `scan` and `remat_scan`: as in Flax's init, a carry that is cast does
# not agree with parameters that are made inside the scan and are not (see `Scanned`).
POLICY_CASES = ("leaves", "values", "variables", "streams", "batch_norm", "sow")
POLICY_CASES += ("remat", "vmap", "boxes", "branches", "attention")


def cases(*wanted):
    return [case for case in CASES if case.name in wanted]


@pytest.mark.parametrize("case", cases(*POLICY_CASES), ids=str)
def test_a_policy_is_flax_on_cast_arrays(policy, case):
    hk.mixed_precision.set_policy(FlaxModule, policy)
    f = transform(case)
    # Flax mixes dtypes where a module makes arrays of its own.
    with jax.numpy_dtype_promotion("standard"):
        params, state = f.init(None, case.train, case.rngs(0, init=True))
        variables = flax_init(case)
        cast = policy.cast_to_compute
        assert_identical(
            hk_bridge.to_flax(params, {}, name="net").get("params", {}),
            policy.cast_to_param(variables.get("params", {})),
        )
        args = dataclasses.replace(case, args=cast(case.args))
        y, new = f.apply(params, state, None, case.train, case.rngs(1))
        flax_variables = cast(hk_bridge.to_flax(params, state, name="net"))
        expected, flax_new = flax_apply(
            args, flax_variables, cast(case.train), case.rngs(1)
        )
        assert_identical(y, policy.cast_to_output(expected))
        written = jax.tree.leaves(hk_bridge.to_flax({}, new, name="net"))
        assert len(written) == len(
            jax.tree.leaves({c: v for c, v in flax_new.items() if c != "params"})
        )


def test_a_policy_on_group_norm_alone(policy):
    x = array(2, 3, 3, 4)

    def forward(x):
        x = hk_bridge.nn.GroupNorm(num_groups=2, dtype=None)(x)
        assert x.dtype == jnp.float16
        return FlaxModule(nn.Dense(2), name="dense")(x.astype(jnp.float32))

    # GroupNorm computes its statistics in float32.
    with (
        jax.numpy_dtype_promotion("standard"),
        hk.mixed_precision.push_policy(hk_bridge.nn.GroupNorm, policy),
    ):
        params, _, _, y, _ = run(forward, x)
    assert y.dtype == jnp.float32
    native = nn.GroupNorm(num_groups=2, epsilon=1e-5)
    variables = hk_bridge.to_flax(params, {}, name="group_norm")
    cast = policy.cast_to_compute
    with jax.numpy_dtype_promotion("standard"):
        middle = native.apply(cast(variables), cast(x)).astype(jnp.float16)
    dense = hk_bridge.to_flax(params, {}, name="dense")
    assert_identical(y, nn.Dense(2).apply(dense, middle.astype(jnp.float32)))


def test_a_policy_on_an_outer_haiku_module(policy):
    class Outer(hk.Module):
        def __call__(self, x):
            return FlaxModule(nn.Dense(3), name="dense")(x), hk.Linear(3)(x)

    with hk.mixed_precision.push_policy(Outer, policy):
        params, _, _, (ours, theirs), _ = run(lambda x: Outer()(x), X)
    assert ours.dtype == theirs.dtype == jnp.float16
    variables = hk_bridge.to_flax(params, {}, name="outer/dense")
    cast = policy.cast_to_compute
    expected = nn.Dense(3).apply(cast(variables), cast(X))
    assert_identical(ours, policy.cast_to_output(expected))


@pytest.mark.parametrize("net", [*TWINS[2], LIFTED[1]], ids=str)
def test_state_under_a_policy(policy, net):
    """What is kept is float32; what is read, and so what is written, is not."""
    cls = FlaxModule if net.module else hk.BatchNorm
    # BatchNorm computes its statistics in float32.
    with (
        jax.numpy_dtype_promotion("standard"),
        hk.mixed_precision.push_policy(cls, policy),
    ):
        params, state, _, y, new = run(net.call, X)
        if net.module:
            cast = policy.cast_to_compute
            variables = cast(hk_bridge.to_flax(params, state, name="net"))
            expected, stats = net.module.apply(
                variables, cast(X), mutable=["batch_stats"]
            )
            assert_identical(y, policy.cast_to_output(expected))
            assert_identical(hk_bridge.to_flax({}, new, name="net"), stats)
            assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32"}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert y.dtype == jnp.float16


# Tables.


class Table(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(4, use_bias=False, name="0")(x)
        x = nn.remat(Norm, static_argnums=(2,))(name="norm")(x, train)
        return nn.Dropout(0.5, deterministic=not train)(x) + self.param(
            "bias", nn.initializers.zeros, (1, 2)
        )


def rows(f, *args):
    """A table as data: name, class, text, method, own leaves, in, out, stack, count."""
    result = {}
    for call in hk.experimental.eval_summary(f)(*args):
        details = call.module_details
        module = details.module
        own = {
            key.rsplit("/", 1)[1]: str(spec)
            for key, spec in details.params.items()
            if key.rsplit("/", 1)[0] == module.module_name
        }
        count = sum(spec.size for spec in details.params.values())
        stack = [state.module.module_name for state in call.call_stack]
        result.setdefault(module.module_name, []).append(
            (
                type(module).__name__,
                repr(module),
                details.method_name,
                own,
                str(call.args_spec),
                str(call.output_spec),
                stack,
                count,
            )
        )
    return result


def test_a_table_has_a_row_for_each_submodule():
    forward = lambda x: FlaxModule(Table(), name="net")(x, train=False)
    table = rows(forward, X)
    x, y = "f32[2,4]", "f32[2,2]"
    own = lambda **leaves: leaves
    net = "FlaxModule(Table(), name='net')"
    assert table == {
        "net": [
            ("FlaxModule", net, "__call__", own(bias="f32[1,2]"), f"({x},)", y)
            + (["net"], 16 + 20 + 8 + 10 + 2)
        ],
        "net/0": [
            ("Dense", "Dense(features=4, use_bias=False)", "__call__")
            + (own(kernel="f32[4,4]"), f"({x},)", x, ["net/0", "net"], 16)
        ],
        "net/norm": [
            ("Norm", "Norm()", "__call__", own())
            + (f"({x}, False)", y, ["net/norm", "net"], 38)
        ],
        "net/norm/Dense_0": [
            ("Dense", "Dense(features=4)", "__call__")
            + (own(bias="f32[4]", kernel="f32[4,4]"), f"({x},)", x)
            + (["net/norm/Dense_0", "net/norm", "net"], 20)
        ],
        "net/norm/BatchNorm_0": [
            ("BatchNorm", "BatchNorm(use_running_average=True, momentum=0.5)")
            + ("__call__", own(bias="f32[4]", scale="f32[4]"), f"({x},)", x)
            + (["net/norm/BatchNorm_0", "net/norm", "net"], 8)
        ],
        "net/norm/Dense_1": [
            ("Dense", "Dense(features=2)", "__call__")
            + (own(bias="f32[2]", kernel="f32[4,2]"), f"({x},)", y)
            + (["net/norm/Dense_1", "net/norm", "net"], 10)
        ],
        "net/Dropout_0": [
            ("Dropout", "Dropout(rate=0.5, deterministic=True)", "__call__", own())
            + (f"({y},)", y, ["net/Dropout_0", "net"], 0)
        ],
    }


class HaikuMlp(hk.Module):
    def __call__(self, x):
        return hk.Linear(2, name="b")(hk.Linear(3, name="a")(x))


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="b")(nn.Dense(3, name="a")(x))


def test_a_table_is_as_the_twins():
    ours = rows(lambda x: FlaxModule(Mlp(), name="net")(x), X)
    theirs = rows(lambda x: HaikuMlp(name="net")(x), X)
    assert list(ours) == list(theirs)
    for name in ours:
        (one,), (two,) = ours[name], theirs[name]
        leaves = {"w": "kernel", "b": "bias"}
        assert one[2] == two[2]
        assert one[3] == {leaves[k]: v for k, v in two[3].items()}
        assert one[4:] == two[4:]


TABLE_CASES = ("leaves", "nested", "shared_by_field", "odd_names", "batch_norm", "sow")
TABLE_CASES += ("scan", "vmap", "remat", "boxes", "attention", "weight_norm")


@pytest.mark.parametrize("case", cases(*TABLE_CASES), ids=str)
def test_no_leaf_is_counted_twice(case):
    params, _ = transform(case).init(None, case.train, case.rngs(0, init=True))
    table = rows(lambda: network(case)(case.train, case.rngs(0, init=True)))
    (root,) = table["net"]
    assert root[-1] == hk.data_structures.tree_size(params)
    own = [
        f"{module}/{name}" for module, calls in table.items() for name in calls[0][3]
    ]
    assert sorted(own) == names(params)


def test_tabulate_prints_names_classes_settings_and_sizes():
    f = hk.transform_with_state(lambda x: FlaxModule(Table(), name="net")(x))
    text = hk.experimental.tabulate(f)(X)
    for part in (
        r"net \(FlaxModule\) .* FlaxModule\(Table\(\), name='net'\) .* 56 .* 224.00 B",
        r"net/0 \(Dense\) .* Dense\(features=4, use_bias=False\) .* kernel: f32\[4,4\]"
        r" .* f32\[2,4\] .* f32\[2,4\] .* 16 .* 64.00 B",
        r"└ net \(FlaxModule\)",
        r"net/norm/BatchNorm_0 \(BatchNorm\)",
    ):
        assert re.search(part, text), part


def test_calls_of_other_methods_and_shared_modules_are_rows_too():
    class Twice(nn.Module):
        def setup(self):
            self.layer = Sub()

        def __call__(self, x):
            return self.layer.double(self.layer(x))

    class Sub(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(x)

        def double(self, x):
            return self(2.0 * x)

    table = rows(lambda x: FlaxModule(Twice(), name="net")(x), X)
    methods = [call[2] for call in table["net/layer"]]
    assert methods == ["__call__", "double", "__call__"]
    assert len(table["net/layer/Dense_0"]) == 2


# Interceptors.


def scanned():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(4, name="a")(x), None

    return nn.scan(Body, {"params": 0}, split_rngs={"params": True}, length=2)


def vmapped():
    return nn.vmap(nn.Dense, {"params": 0}, split_rngs={"params": True})


class Lifts(nn.Module):
    """Each lifted transform that there is most use of."""

    @nn.compact
    def __call__(self, x):
        x = nn.remat(nn.Dense)(4, name="remat")(x)
        x, _ = scanned()(name="scan")(x, None)
        return vmapped()(4, name="vmap")(x)


LIFT_NAMES = ["net/remat", "net/scan", "net/scan/a", "net/vmap"]


@pytest.mark.parametrize("phase", ["init", "apply"])
def test_an_interceptor_sees_each_submodules_call(phase):
    seen = []

    def interceptor(next_fun, args, kwargs, context):
        if context.method_name == "__call__":
            seen.append((context.module.module_name, type(context.module).__name__))
            assert context.orig_class is type(context.module)
            assert hk.current_name() == context.module.module_name
        return next_fun(*args, **kwargs)

    def forward(x):
        with hk.intercept_methods(interceptor):
            return FlaxModule(Lifts(), name="net")(x)

    plain = lambda x: FlaxModule(Lifts(), name="net")(x)
    f = hk.transform(forward)
    params = f.init(KEY, X)
    assert_identical(params, hk.transform(plain).init(KEY, X))
    if phase == "apply":
        del seen[:]
        y = f.apply(params, None, X)
        assert_identical(y, hk.transform(plain).apply(params, None, X))
    # JAX may trace a body more than once.
    assert list(dict.fromkeys(name for name, _ in seen)) == ["net", *LIFT_NAMES]
    assert dict(seen)["net/scan/a"] == "Dense"


@pytest.mark.parametrize("lift", [None, "remat", "scan", "vmap"])
def test_an_interceptor_changes_arguments_and_results(lift):
    make = {
        None: lambda: nn.Dense(4, name="layer"),
        "remat": lambda: nn.remat(nn.Dense)(4, name="layer"),
        "scan": lambda: scanned()(name="layer"),
        "vmap": lambda: vmapped()(4, name="layer"),
    }[lift]
    args = (None,) if lift == "scan" else ()

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return make()(x, *args)

    inner = "net/layer/a" if lift == "scan" else "net/layer"

    def haiku_hook(next_fun, args, kwargs, context):
        # Haiku intercepts constructors, which run before there is a name.
        if context.method_name != "__call__" or context.module.module_name != inner:
            return next_fun(*args, **kwargs)
        return next_fun(args[0] * 2.0, **kwargs) + 1.0

    def flax_hook(next_fun, args, kwargs, context):
        path = "/".join(("net", *context.module.path))
        if path != inner or context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        return next_fun(args[0] * 2.0, **kwargs) + 1.0

    def forward(x):
        with hk.intercept_methods(haiku_hook):
            return FlaxModule(Outer(), name="net")(x)

    params, _, y_init, y, _ = run(forward, X)
    variables = hk_bridge.to_flax(params, {}, name="net")
    with nn.intercept_methods(flax_hook):
        expected = Outer().apply(variables, X)
    assert_identical(y, expected)
    # At init the scan also makes the parameters, which is another program.
    assert all(jax.tree.leaves(tree_map(jnp.allclose, y_init, expected)))
    assert not jnp.all(
        jax.tree.leaves(y)[0] == jax.tree.leaves(Outer().apply(variables, X))[0]
    )


def test_an_interceptor_can_skip_a_submodule():
    def skip(next_fun, args, kwargs, context):
        if context.method_name == "__call__" and context.module.name == "a":
            return jnp.ones([2, 3])
        return next_fun(*args, **kwargs)

    def forward(x, make):
        with hk.intercept_methods(skip):
            return make()(x)

    for make in (
        lambda: FlaxModule(Mlp(), name="net"),
        lambda: HaikuMlp(name="net"),
    ):
        params, _, y_init, y, _ = run(lambda x, make=make: forward(x, make), X)
        assert list(params) == ["net/b"]
        assert_identical(y_init, y)


class Foreign(nn.Module):
    """Runs modules that are not its own: an unbound one, and others in `apply`."""

    @nn.compact
    def __call__(self, x):
        class Helper(nn.Module):
            def double(self, x):
                return 2 * x

        f = hk.transform_with_state(lambda x: FlaxModule(Mlp(), name="deep")(x))
        y = hk.experimental.flax.Module(f, name="haiku")(x)
        y += Mlp().apply({"params": self.variables["params"]["haiku"]["deep"]}, x)
        return nn.Dense(4, name="own")(Helper(parent=None).double(y))


def test_only_the_modules_own_submodules_are_seen():
    seen = []

    def interceptor(next_fun, args, kwargs, context):
        if context.method_name == "__call__":
            seen.append(context.module.module_name)
        return next_fun(*args, **kwargs)

    forward = lambda x: FlaxModule(Foreign(), name="net")(x)
    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    with hk.intercept_methods(interceptor):
        y, _ = f.apply(params, state, None, X)
    assert_identical(y, f.apply(params, state, None, X)[0])
    assert seen == ["net", "net/haiku", "deep", "deep/a", "deep/b", "net/own"]


def interceptors_in_flax(forward):
    """How many interceptors Flax holds while the module runs at apply."""
    counts = []

    class Counts(nn.Module):
        @nn.compact
        def __call__(self, x):
            counts.append(len(list(linen_module._global_interceptor_stack)))
            return nn.Dense(3)(x)

    run(lambda x: forward(FlaxModule(Counts(), name="net"), x), X)
    return counts[-1]


def test_nothing_is_set_up_where_nobody_looks(policy):
    look = lambda next_fun, args, kwargs, context: next_fun(*args, **kwargs)

    def seen(net, x):
        with hk.intercept_methods(look):
            return net(x)

    assert interceptors_in_flax(lambda net, x: net(x)) == 0
    assert interceptors_in_flax(seen) == 1


def test_a_policy_once_set_does_not_set_up_anything_for_ever(policy):
    hk.mixed_precision.set_policy(hk.Linear, policy)
    hk.mixed_precision.clear_policy(hk.Linear)
    assert interceptors_in_flax(lambda net, x: net(x)) == 0


def test_being_seen_changes_no_equation():
    look = lambda next_fun, args, kwargs, context: next_fun(*args, **kwargs)

    def seen(x):
        with hk.intercept_methods(look):
            return FlaxModule(Lifts(), name="net")(x)

    f = hk.transform(lambda x: FlaxModule(Lifts(), name="net")(x))
    params = f.init(KEY, X)
    one, two = (
        jax.make_jaxpr(hk.transform(g).apply)(params, None, X)
        for g in (seen, lambda x: FlaxModule(Lifts(), name="net")(x))
    )
    assert _program.difference(one, two) is None


# Scopes in profiles.


def scopes(jaxpr):
    return list(
        dict.fromkeys(str(eqn.source_info.name_stack) for eqn in jaxpr.jaxpr.eqns)
    )


class Outer(hk.Module):
    def __init__(self, net, name="outer"):
        super().__init__(name=name)
        self.net = net

    def __call__(self, x):
        return self.net(x)


def test_scopes_are_haikus_name_then_flaxs():
    f = hk.transform(lambda x: Outer(FlaxModule(Mlp(), name="net"))(x))
    params = f.init(KEY, X)
    jaxpr = jax.make_jaxpr(f.apply)(params, None, X)
    assert scopes(jaxpr) == ["outer/net/Mlp/a", "outer/net/Mlp/b"]
    variables = hk_bridge.to_flax(params, {}, name="net")
    native = jax.make_jaxpr(Mlp().apply)(variables, X)
    assert scopes(jaxpr) == [f"outer/net/{scope}" for scope in scopes(native)]
    text = jax.jit(f.apply).lower(params, None, X).compile().as_text()
    assert "outer/net/Mlp/a/dot_general" in text

    twin = hk.transform(lambda x: Outer(HaikuMlp(name="net"))(x))
    jaxpr = jax.make_jaxpr(twin.apply)(twin.init(KEY, X), None, X)
    assert scopes(jaxpr) == ["outer/net/a", "outer/net/b"]


def test_jaxpr_info_nests_flaxs_scopes_in_haikus():
    def tree(forward):
        f = hk.transform(forward)
        params = f.init(KEY, X)
        apply = lambda x: f.apply(params, None, x)
        info = hk.experimental.jaxpr_info.make_model_info(
            apply, name="apply", include_module_info=False
        )(X)

        def names(module):
            return {
                e.submodule.name: names(e.submodule)
                for e in module.expressions
                if e.submodule
            }

        assert "dot_general" in hk.experimental.jaxpr_info.format_module(info)
        return names(info)

    ours = tree(lambda x: Outer(FlaxModule(Mlp(), name="net"))(x))
    assert ours == {"outer": {"net": {"Mlp": {"a": {}, "b": {}}}}}
    theirs = tree(lambda x: Outer(HaikuMlp(name="net"))(x))
    assert theirs == {"outer": {"net": {"a": {}, "b": {}}}}


# Haiku's look.


def test_repr_is_the_line_that_builds_it():
    texts = []

    def forward(x):
        net = FlaxModule(nn.Dense(3, use_bias=False), name="net")
        texts.extend([repr(net), repr(FlaxModule(Mlp())), repr(Own(nn.Dense(2)))])
        texts.append(repr(hk_bridge.nn.GroupNorm(num_groups=2)))
        texts.append(repr(hk.Linear(3, with_bias=False, name="net")))
        return net(x)

    f = hk.transform(forward)
    f.init(KEY, X)
    assert texts[:3] == [
        "FlaxModule(Dense(features=3, use_bias=False), name='net')",
        "FlaxModule(Mlp(), name='mlp')",
        "Own(Dense(features=2), name='dense')",
    ]
    assert texts[3].startswith("GroupNorm(num_groups=2")
    assert texts[4].startswith("Linear(output_size=3, with_bias=False, name='net'")


def test_repr_shows_no_array():
    variables = nn.Dense(3).init(KEY, X)
    texts = []

    def forward(x):
        texts.append(repr(FlaxModule(nn.Dense(3), variables=variables)))

    hk.transform(forward).init(KEY, X)
    assert texts == ["FlaxModule(Dense(features=3), name='dense')"]


@pytest.mark.parametrize("net", [DENSE, LINEAR, BATCH_NORM, HK_BATCH_NORM], ids=str)
def test_names_and_dicts_are_as_of_any_module(net):
    seen = []

    class Holder(hk.Module):
        def __init__(self):
            super().__init__(name="holder")
            self.net = {
                "dense": lambda: FlaxModule(nn.Dense(3), name="net"),
                "linear": lambda: hk.Linear(3, name="net"),
                "batch_norm": lambda: FlaxModule(
                    nn.BatchNorm(use_running_average=False), name="net"
                ),
                "hk_batch_norm": lambda: hk.BatchNorm(True, True, 0.9, name="net"),
            }[net.name]()

        def __call__(self, x):
            y = (
                self.net(x, is_training=True)
                if net.name == "hk_batch_norm"
                else self.net(x)
            )
            seen.append((self, self.net))
            for module in (self, self.net):
                seen.append((dict(module.params_dict()), dict(module.state_dict())))
            return y

    f = hk.transform_with_state(lambda x: Holder()(x))
    params, state = f.init(KEY, X)
    (holder, module), outer, inner = seen[:3]
    assert (module.name, module.module_name) == ("net", "holder/~/net")
    assert holder.module_name == "holder"
    assert_identical(outer, inner)
    flat = lambda tree: {f"{m}/{k}": v for m, b in tree.items() for k, v in b.items()}
    assert_identical(inner[0], flat(params))
    assert sorted(inner[1]) == names(state)


def test_subclasses_have_methods_and_haiku_modules_of_their_own():
    class Classifier(FlaxModule):
        def __init__(self, classes, name=None):
            super().__init__(Norm(), name=name)
            self.head = hk.Linear(classes)
            self.other = FlaxModule(nn.Dense(classes), name="other")

        def features(self, x):
            return self(x, train=False)

        def classify(self, x):
            x = self.features(x)
            scale = hk.get_parameter("temperature", (1, 1), init=jnp.ones)
            return (self.head(x) + self.other(x)) * scale, hk.Linear(2)(x)

    def forward(x):
        net = Classifier(3)
        return net.classify(x), net.features(x), repr(net)

    params, state, (y_init, _, _), (y, features, text), new = run(forward, X)
    assert text == "Classifier(Norm(), name='norm')"
    assert sorted(params) == [
        "norm",
        "norm/BatchNorm_0",
        "norm/Dense_0",
        "norm/Dense_1",
        "norm/~/linear",
        "norm/~/other",
        "norm/~classify/linear",
    ]
    assert_identical(new, state)
    assert_identical(y_init, y)
    variables = hk_bridge.to_flax(params, state, name="norm")
    assert_identical(features, Norm().apply(variables, X, train=False))


def test_haiku_modules_hold_bridged_ones_in_attributes_lists_and_dicts():
    def build(dense, norm):
        class Holder(hk.Module):
            def __init__(self):
                super().__init__(name="holder")
                self.layers = [dense(f"layer_{i}") for i in range(2)]
                self.heads = {"a": dense("a"), "b": dense("b")}
                self.norm = norm()

            def __call__(self, x):
                for layer in self.layers:
                    x = layer(x)
                return {k: head(self.norm(x)) for k, head in self.heads.items()}

        return hk.transform_with_state(lambda x: Holder()(x))

    ours = build(
        lambda name: FlaxModule(nn.Dense(4), name=name),
        lambda: FlaxModule(nn.LayerNorm(epsilon=1e-5), name="norm"),
    )
    theirs = build(
        lambda name: hk.Linear(4, name=name),
        lambda: hk.LayerNorm(-1, True, True, name="norm"),
    )
    params, state = ours.init(KEY, X)
    leaves = {"w": "kernel", "b": "bias", "offset": "bias"}
    twin_params = {
        module: {k: params[module][leaves.get(k, k)] for k in bundle}
        for module, bundle in theirs.init(KEY, X)[0].items()
    }
    assert sorted(twin_params) == sorted(params)
    y, _ = ours.apply(params, state, None, X)
    twin_y, _ = theirs.apply(twin_params, {}, None, X)
    # The two layer norms sum in another order.
    assert all(
        jax.tree.leaves(tree_map(lambda a, b: jnp.allclose(a, b, atol=1e-5), y, twin_y))
    )


def test_sequential_of_both():
    def forward(x):
        return hk.Sequential(
            [
                hk.Linear(4),
                FlaxModule(nn.Dense(4)),
                jnp.tanh,
                hk_bridge.nn.GroupNorm(num_groups=2),
            ]
        )(x)

    params, *_, y, _ = run(forward, X)
    assert list(params) == ["linear", "dense", "group_norm"]
    assert y.shape == (2, 4)


def test_getters_of_state_are_told_what_was_asked_for():
    """Whatever was written since, as of Haiku's own modules."""

    class Cast(nn.Module):
        @nn.compact
        def __call__(self, x):
            r = self.variable("stats", "r", jnp.ones, [4])
            if not self.is_initializing():
                r.value = r.value.astype(jnp.bfloat16)[:2]
            return x

    class Own(hk.Module):
        def __call__(self, x):
            r = hk.get_state("r", [4], init=jnp.ones)
            if not hk.running_init():
                hk.set_state("r", r.astype(jnp.bfloat16)[:2])
            return x

    def told(build):
        found = []

        def getter(next_getter, value, context):
            found.append((tuple(context.original_shape), context.original_dtype))
            return next_getter(value)

        def forward(x):
            with hk.custom_getter(getter, params=False, state=True):
                net = build()
                return net(net(x))

        f = hk.transform_with_state(forward)
        f.apply(*f.init(None, X), None, X)
        return found

    ours = told(lambda: FlaxModule(Cast(), name="net"))
    assert ours == told(lambda: Own(name="net"))


def test_a_parameter_that_is_a_key_stays_one_under_a_policy():
    """As of Haiku's own modules, whose initialiser gives it whatever is asked for."""
    key = jax.random.key(7)

    class Keyed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * jax.random.uniform(self.param("k", lambda _: key), dtype=x.dtype)

    class Own(hk.Module):
        def __call__(self, x):
            k = hk.get_parameter("k", [], key.dtype, lambda *_: key)
            return x * jax.random.uniform(k, dtype=x.dtype)

    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")

    def made(build, cls):
        def forward(x):
            with hk.mixed_precision.push_policy(cls, policy):
                return build()(x)

        f = hk.transform(forward)
        params = f.init(KEY, X)
        return params, f.apply(params, None, X)

    ours = made(lambda: FlaxModule(Keyed(), name="net"), FlaxModule)
    assert_identical(ours, made(lambda: Own(name="net"), Own))
