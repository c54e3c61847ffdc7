"""`carry`: a trained Haiku network with its layers swapped; and masks by names."""

import itertools

from catalogue import array
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.migrate import carry
from hk_bridge.testing import assert_identical
from hk_bridge.testing import compare_masks

KEY, X = jax.random.key(0), array(2, 6)
IMAGE = array(2, 5, 5, 4)
ours = hk_bridge.nn
pytestmark = pytest.mark.usefixtures("promotion")


@pytest.fixture
def promotion():
    """As Haiku's own layers need it, natively, too."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def trained(f, *args):
    """Params and state in which no leaf is what an initialiser makes."""
    params, state = f.init(KEY, *args)
    leaves, tree = jax.tree.flatten((params, state))
    moved = [
        x if x.dtype == jnp.int32 else jnp.abs(x) + array(*x.shape, seed=i) ** 2
        for i, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, moved)


def heads(layer, **config):
    return lambda x: layer(2, **config)(x, x, x)


def lstm(cell):
    def forward(x):
        core = cell()
        return hk.dynamic_unroll(core, x[:, None], core.initial_state(1))[0]

    return forward


SCALING = hk.initializers.VarianceScaling(1.0)
SWAPS = {
    "dense": (lambda x: hk.Linear(3)(x), lambda x: ours.Dense(3)(x), X),
    "no_bias": (
        lambda x: hk.Linear(3, with_bias=False)(x),
        lambda x: ours.Dense(3, use_bias=False)(x),
        X,
    ),
    "conv": (
        lambda x: hk.Conv2D(3, 2)(x),
        lambda x: ours.Conv(3, (2, 2))(x),
        IMAGE,
    ),
    "transposed": (
        lambda x: hk.Conv2DTranspose(3, 2)(x),
        lambda x: ours.ConvTranspose(3, (2, 2))(x),
        IMAGE,
    ),
    "embed": (
        lambda x: hk.Embed(7, 3)(x),
        lambda x: ours.Embed(7, 3)(x),
        jnp.arange(4),
    ),
    "layer_norm": (
        lambda x: hk.LayerNorm(-1, True, True, use_fast_variance=True)(x),
        lambda x: ours.LayerNorm(epsilon=1e-5)(x),
        X,
    ),
    "rms": (lambda x: hk.RMSNorm(-1)(x), lambda x: ours.RMSNorm(epsilon=1e-5)(x), X),
    "group": (
        lambda x: hk.GroupNorm(2)(x),
        lambda x: ours.GroupNorm(num_groups=2, use_fast_variance=False)(x),
        IMAGE,
    ),
    "lstm": (lstm(lambda: hk.LSTM(3)), lstm(lambda: ours.LSTMCell(3)), X),
    "attention": (
        heads(hk.MultiHeadAttention, key_size=3, w_init=SCALING),
        heads(ours.MultiHeadAttention, qkv_features=6),
        array(2, 5, 6),
    ),
}
EXACT = {"dense", "no_bias", "conv", "transposed", "embed", "layer_norm"}


@pytest.mark.parametrize("name", SWAPS)
def test_there_and_back(name):
    old, new, x = SWAPS[name]
    old, new = map(hk.transform_with_state, (old, new))
    params, state = trained(old, x)
    if name == "attention":  # its output is [..., 2 * 3], linen's that of its input
        assert params["multi_head_attention/linear"]["w"].shape == (6, 6)
    made, kept, report = carry(old, params, state, new, x)
    assert report.ok, report
    assert jax.tree.structure((made, kept)) == jax.tree.structure(new.init(KEY, x))
    one, two = old.apply(params, state, KEY, x)[0], new.apply(made, kept, KEY, x)[0]
    if name in EXACT:
        assert_identical(one, two)
    else:  # the twin does the same arithmetic in another order
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    back, _, report = carry(new, made, kept, old, x)
    assert report.ok, report
    if name == "lstm":  # the forget gate's bias was moved by 1, and back
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), back, params)
    else:
        assert_identical(back, params)


def test_batch_norm_with_its_averages():
    old = hk.transform_with_state(
        lambda x, train: hk.BatchNorm(True, True, 0.9)(x, is_training=train)
    )
    new = hk.transform_with_state(
        lambda x, train: ours.BatchNorm(momentum=0.9, epsilon=1e-5)(
            x, use_running_average=not train
        )
    )
    params, state = trained(old, IMAGE, True)
    made, kept, report = carry(old, params, state, new, IMAGE, True)
    average = state["batch_norm/~/mean_ema"]["average"]
    assert_identical(kept["batch_norm/batch_stats"]["mean"], average.reshape(-1))
    assert report.ok, report
    one = old.apply(params, state, None, IMAGE, False)[0]
    two = new.apply(made, kept, None, IMAGE, False)[0]
    assert_identical(one, two)
    back, state, report = carry(new, made, kept, old, IMAGE, True)
    assert report.ok, report
    assert_identical(back, params)
    assert_identical(old.apply(back, state, None, IMAGE, False)[0], one)


class Own(hk.Module):
    def __call__(self, x):
        return x * hk.get_parameter("scale", x.shape[-1:], init=jnp.ones)


def net(dense, norm):
    def forward(x):
        x = Own()(hk.Linear(6)(x))  # stays
        x = hk.nets.MLP([6, 6])(x)  # stays, and has the layers of another kind
        x = jax.nn.relu(norm()(dense(6)(x)))
        return dense(6)(x) + hk.Linear(6)(x) + Own()(x)

    return hk.transform_with_state(forward)


NORMS = (
    lambda: hk.LayerNorm(-1, True, True, use_fast_variance=True),
    lambda: ours.LayerNorm(epsilon=1e-5),
)
HAIKU, FLAX = net(hk.Linear, NORMS[0]), net(ours.Dense, NORMS[1])


def test_a_network_in_which_names_move():
    """All layers have the same shapes: only the order tells them apart."""
    params, state = trained(HAIKU, X)
    made, _, report = carry(HAIKU, params, state, FLAX, X)
    assert report.ok, report
    moved = {pair.old: pair.new for pair in report.pairs}
    assert moved["linear_1"] == "dense"
    assert moved["linear_2"] == "dense_1"
    assert moved["linear_3"] == "linear_1"
    one, two = HAIKU.apply(params, {}, None, X), FLAX.apply(made, {}, None, X)
    assert_identical(one[0], two[0])
    assert_identical(carry(FLAX, made, {}, HAIKU, X)[0], params)


def test_into_one_flax_module():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(6)(x)
            return nn.BatchNorm(use_running_average=True, epsilon=1e-5)(nn.Dense(3)(x))

    def forward(x):
        x = hk.Linear(3)(hk.Linear(6)(x))
        return hk.BatchNorm(True, True, 0.99)(x, is_training=hk.running_init())

    old = hk.transform_with_state(forward)
    new = hk.transform_with_state(lambda x: FlaxModule(Net(), name="net")(x))
    params, state = trained(old, X)
    made, kept, report = carry(old, params, state, new, X)
    assert [pair.new for pair in report.pairs] == [
        "net/Dense_0", "net/Dense_1", "net/BatchNorm_0",
    ]  # fmt: skip
    assert jax.tree.structure((made, kept)) == jax.tree.structure(new.init(KEY, X))
    one, two = old.apply(params, state, None, X), new.apply(made, kept, None, X)
    assert_identical(one[0], two[0])


def test_what_does_not_pair_is_told():
    old = hk.transform(lambda x: hk.Linear(3)(hk.Linear(6)(x)))
    new = hk.transform(lambda x: ours.Dense(4)(ours.Dense(6)(x)))
    params = old.init(KEY, X)
    made, state, report = carry(old, params, None, new, X)
    assert state == {}
    assert not report.ok
    assert list(made) == ["dense_1"]  # the names are in the order of construction
    assert set(report.left) == {"params['linear']['b']", "params['linear']['w']"}
    lines = repr(report).splitlines()
    assert "missing: params['dense']['kernel']" in lines
    made, _, _ = carry(old, params, None, new, X, rng=KEY)
    assert_identical(made["dense_1"]["kernel"], params["linear_1"]["w"])
    fresh = jax.jit(new.init)(KEY, X)
    assert_identical(made["dense"], fresh["dense"])
    new.apply(made, None, X)


def test_what_differs_is_told():
    old = hk.transform(lambda x: hk.LayerNorm(-1, True, True)(x))
    new = hk.transform(lambda x: ours.LayerNorm()(x))
    *_, report = carry(old, old.init(KEY, X), None, new, X)
    assert not report.ok
    assert report.pairs[0].differs == (
        "eps=1e-05 in Haiku, 1e-06 in Flax; use_fast_variance=False in Haiku, True in "
        "Flax"
    )
    conv = hk.transform(lambda x: ours.Conv(4, (2, 2), padding="CIRCULAR")(x))
    old = hk.transform(lambda x: hk.Conv2D(4, 2)(x))
    made, _, report = carry(old, old.init(KEY, IMAGE), None, conv, IMAGE)
    assert made == {}
    assert "has no exact twin in Haiku" in report.pairs[0].differs
    assert len(report.left) == len(report.missing) == 2


class Doubled(hk.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


def flaxs_batch_norm(x):
    norm = ours.BatchNorm(momentum=0.99, epsilon=1e-5)
    return norm(x, use_running_average=False)


DIFFER = {
    "stride": (
        lambda x: hk.Conv2D(3, 2, stride=2)(x),
        lambda x: ours.Conv(3, (2, 2))(x),
        "stride=(2, 2) in Haiku, (1, 1) in Flax",
    ),
    "rate": (
        lambda x: hk.Conv2D(3, 2, rate=2)(x),
        lambda x: ours.Conv(3, (2, 2))(x),
        "kernel_dilation=(2, 2) in Haiku, (1, 1) in Flax",
    ),
    "padding": (
        lambda x: hk.Conv2D(3, 2, padding="VALID")(x),
        lambda x: ours.Conv(3, (2, 2))(x),
        "padding=VALID in Haiku, SAME in Flax",
    ),
    "output_shape": (
        lambda x: hk.Conv2DTranspose(3, 2, 2, output_shape=9)(x),
        lambda x: ours.ConvTranspose(3, (2, 2), (2, 2))(x),
        "output_shape=(9, 9) in Haiku, None in Flax",
    ),
    "axis": (
        lambda x: hk.LayerNorm((1, 2, 3), True, True, use_fast_variance=True)(x),
        lambda x: ours.LayerNorm(epsilon=1e-5)(x),
        "axis=(1, 2, 3) in Haiku, (-1,) in Flax",
    ),
    "param_axis": (
        lambda x: hk.RMSNorm(-1, param_axis=1)(x[..., 0]),
        lambda x: ours.RMSNorm(epsilon=1e-5)(x[..., 0]),
        "param_axis=(1,) in Haiku, (-1,) in Flax",
    ),
    "decay": (
        lambda x: hk.BatchNorm(True, True, 0.9)(x, is_training=True),
        flaxs_batch_norm,
        "mean_ema.decay=0.9 in Haiku, 0.99 in Flax",
    ),
    "subclass": (
        lambda x: Doubled(3)(x),
        lambda x: ours.Dense(3)(x),
        "Doubled has a __call__ of its own",
    ),
}


@pytest.mark.parametrize("name", DIFFER)
def test_whatever_differs_is_told(name):
    old, new, text = DIFFER[name]
    old, new = map(hk.transform_with_state, (old, new))
    params, state = jax.eval_shape(old.init, KEY, IMAGE)
    params, state = jax.tree.map(lambda x: np.zeros(x.shape), (params, state))
    *_, report = carry(old, params, state, new, IMAGE)
    assert not report.ok
    assert text in report.pairs[0].differs


ALIKE = {
    "axis": (
        lambda x: hk.LayerNorm(slice(3, None), True, True, use_fast_variance=True)(x),
        lambda x: ours.LayerNorm(epsilon=1e-5)(x),
    ),
    "param_axis": (
        lambda x: hk.RMSNorm(3, param_axis=3)(x),
        lambda x: ours.RMSNorm(epsilon=1e-5)(x),
    ),
    "padding": (
        lambda x: hk.Conv2D(3, 1, padding="VALID")(x),
        lambda x: ours.Conv(3, (1, 1))(x),
    ),
    "pairs": (
        lambda x: hk.Conv2D(3, 2, padding=[(0, 1), (1, 0)])(x),
        lambda x: ours.Conv(3, (2, 2), padding=((0, 1), (1, 0)))(x),
    ),
    "stride": (
        lambda x: hk.Conv2D(3, 2, stride=2, rate=1, data_format="NHWC")(x),
        lambda x: ours.Conv(3, (2, 2), strides=2)(x),
    ),
    "group": (
        lambda x: hk.GroupNorm(2, axis=slice(1, None))(x),
        lambda x: ours.GroupNorm(group_size=2, use_fast_variance=False)(x),
    ),
    "subclass": (
        lambda x: type("Renamed", (hk.Linear,), {})(3)(x),
        lambda x: ours.Dense(3)(x),
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_only_written_in_another_way_is_no_difference(name):
    old, new = map(hk.transform, ALIKE[name])
    params, _ = trained(hk.transform_with_state(ALIKE[name][0]), IMAGE)
    made, _, report = carry(old, params, None, new, IMAGE)
    assert report.ok, report
    one, two = old.apply(params, None, IMAGE), new.apply(made, None, IMAGE)
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


# Names that were chosen, where the order of calls is another.


class Pair(hk.Module):
    def __init__(self, dense, turned, name=None):
        super().__init__(name)
        self.query, self.key = dense(6, name="query"), dense(6, name="key")
        self.turned = turned

    def __call__(self, x):
        both = {}
        for name in ("key", "query") if self.turned else ("query", "key"):
            both[name] = getattr(self, name)(x)
        return 2 * both["query"] - both["key"]


class FlaxPair(nn.Module):
    @nn.compact
    def __call__(self, x):
        k = nn.Dense(6, name="key")(x)
        return 2 * nn.Dense(6, name="query")(x) - k


def pairs(first, second):
    return lambda x: second()(first()(x))


def named(dense, turned):
    def forward(x):
        blocks = [Pair(dense, False, name=name) for name in ("one", "two")]
        made = [block(x) for block in (blocks[::-1] if turned else blocks)]
        one, two = made[::-1] if turned else made
        return one - 3 * two

    return forward


TURNED = {
    "haiku": (
        pairs(lambda: Pair(hk.Linear, False), lambda: Pair(hk.Linear, False)),
        pairs(lambda: Pair(ours.Dense, True), lambda: Pair(ours.Dense, True)),
    ),
    "flax": (
        pairs(lambda: Pair(hk.Linear, False), lambda: Pair(hk.Linear, False)),
        pairs(lambda: FlaxModule(FlaxPair()), lambda: FlaxModule(FlaxPair())),
    ),
    "parents": (named(hk.Linear, False), named(ours.Dense, True)),
}


@pytest.mark.parametrize("name", TURNED)
def test_chosen_names_come_before_the_order(name):
    old, new = map(hk.transform, TURNED[name])
    params, _ = trained(hk.transform_with_state(TURNED[name][0]), X)
    made, _, report = carry(old, params, None, new, X)
    assert report.ok, report
    assert_identical(old.apply(params, None, X), new.apply(made, None, X))
    back, _, report = carry(new, made, None, old, X)
    assert report.ok, report
    assert_identical(back, params)


# Names that nobody chose, where the order of calls is another.


def turned(forward, names="ab", without_rng=False):
    """Both networks, of which the new one calls its layers the other way round."""

    def net(dense, names):
        def run(x):
            layers = {name: dense(6) for name in names}
            return forward(*[layers[name](x) for name in sorted(names)])

        made = hk.transform(run)
        return hk.without_apply_rng(made) if without_rng else made

    return net(hk.Linear, names), net(ours.Dense, names[::-1])


def two(layer, is_turned):
    """Two of them, of which the second may be called first."""

    def forward(x):
        made = [layer(x), layer(x)]
        one, other = made[::-1] if is_turned else made
        return 2 * one - other

    return forward


STACKED = two(lambda x: hk.Linear(6)(x), False), two(lambda x: ours.Dense(6)(x), True)
RECURRENT = (
    two(lambda x: lstm(lambda: hk.LSTM(3))(x), False),
    two(lambda x: lstm(lambda: ours.LSTMCell(3))(x), True),
)
PLACES = {
    "operands": turned(lambda a, b: 2 * a - b),
    "without_rng": turned(lambda a, b: 2 * a - b, without_rng=True),
    "commuted": (
        turned(lambda a, b: jnp.tanh(a) + b)[0],
        turned(lambda a, b: b + jnp.tanh(a))[1],
    ),
    "commuted inside": (
        turned(lambda a, b: jax.lax.fori_loop(0, 2, lambda i, x: x * i + b, a))[0],
        turned(lambda a, b: jax.lax.fori_loop(0, 2, lambda i, x: b + i * x, a))[1],
    ),
    "in a stack": tuple(
        hk.transform(lambda x, net=net: hk.layer_stack(2)(net)(x)) for net in STACKED
    ),
    "recurrent": tuple(hk.transform(net) for net in RECURRENT),
    "several outputs": turned(lambda a, b, c: {"u": c, "v": (a, b)}, "abc"),
    "inside": turned(
        lambda a, b, c: jax.lax.cond(
            a.sum() > 0, jax.nn.gelu, lambda a: a + 1, hk.remat(jnp.subtract)(c, a * b)
        ),
        "abc",
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_in_the_program_come_before_the_order(name):
    old, new = PLACES[name]
    params, _ = trained(hk.with_empty_state(old), X)
    made, _, report = carry(old, params, None, new, X)
    assert report.ok, report
    key = () if name == "without_rng" else (None,)
    one, two = old.apply(params, *key, X), new.apply(made, *key, X)
    if name == "recurrent":  # the twin does the same arithmetic in another order
        np.testing.assert_allclose(one, two, rtol=1e-4)
    else:
        assert_identical(one, two)
    back, _, report = carry(new, made, None, old, X)
    assert report.ok, report
    if name != "recurrent":  # the forget gate's bias was moved by 1, and back
        assert_identical(back, params)


def attends(heads, dense, is_turned):
    def forward(x):
        order = [0, 1, 2][:: -1 if is_turned else 1]
        q, k, v = dict(sorted((i, dense(6)(x)) for i in order)).values()
        y = heads(2, key_size=3, w_init=SCALING)(q, k, v)
        return jax.nn.relu(dense(6)(y))

    return hk.transform(forward)


def test_places_around_layers_of_many_leaves():
    old = attends(hk.MultiHeadAttention, hk.Linear, False)
    heads = lambda n, key_size, w_init: ours.MultiHeadAttention(n, qkv_features=6)
    new = attends(heads, ours.Dense, True)
    x = array(2, 5, 6)
    params, _ = trained(hk.with_empty_state(old), x)
    made, _, report = carry(old, params, None, new, x)
    assert report.ok, report
    one, two = old.apply(params, None, x), new.apply(made, None, x)
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_places_by_what_goes_in():
    """Behind the two layers, the programs differ."""

    def net(dense, is_turned):
        def forward(x):
            inputs = {"a": x, "b": jnp.sin(x)}
            names = "ba" if is_turned else "ab"
            made = {name: dense(6)(inputs[name]) for name in names}
            return made["a"] / made["b"] if is_turned else made["a"] - made["b"]

        return hk.transform(forward)

    old, new = net(hk.Linear, False), net(ours.Dense, True)
    *_, report = carry(old, old.init(KEY, X), None, new, X)
    assert report.ok, report
    assert [(pair.old, pair.new) for pair in report.pairs] == [
        ("linear", "dense_1"), ("linear_1", "dense"),
    ]  # fmt: skip


def unknown(forward):
    """A network of which nothing is known but the order of calls."""
    made = hk.transform(forward)
    return hk.Transformed(made.init, lambda params, rng, x: x.undefined)


def test_layers_of_one_chosen_name_are_no_pair_for_that():
    """The name is that of the module around them."""

    class Both(hk.Module):
        def __init__(self, dense, combine, name="both"):
            super().__init__(name)
            self.dense, self.combine = dense, combine

        def __call__(self, x):
            return self.combine(self.dense(6)(x), self.dense(6)(x))

    old = hk.transform(lambda x: Both(hk.Linear, jnp.subtract, name="chosen")(x))
    new = hk.transform(lambda x: Both(ours.Dense, jnp.arctan2, name="chosen")(x))
    *_, report = carry(old, old.init(KEY, X), None, new, X)
    assert [line.split(",")[0] for line in report.guessed] == [
        "chosen/linear is chosen/dense", "chosen/linear_1 is chosen/dense_1",
    ]  # fmt: skip


@pytest.mark.parametrize("hidden", [False, True])
def test_a_guess_is_told_with_the_other_choice(hidden):
    old, _ = turned(lambda a, b: 2 * a - b)
    new = hk.transform(lambda x: ours.Dense(6)(x) / jnp.exp(ours.Dense(6)(x)))
    if hidden:
        new = unknown(lambda x: ours.Dense(6)(x) - ours.Dense(6)(x))
    *_, report = carry(old, old.init(KEY, X), None, new, X)
    assert not report.ok
    assert report.guessed == [
        "linear is dense, by the order of calls alone; or dense_1",
        "linear_1 is dense_1, by the order of calls alone; or dense",
    ]
    assert "guessed: linear is dense, by the order" in repr(report)


def stacks(dense, norm):
    def block(x):
        return x + jax.nn.relu(dense(6)(norm()(dense(6)(x))))

    def forward(x):
        two = lambda x: hk.layer_stack(2, name="inner")(block)(x) + dense(6)(x)
        return dense(6)(hk.layer_stack(3)(two)(x))

    return hk.transform_with_state(forward)


def numbers(network, x):
    """Params and state of which each number is another one. Nothing is compiled."""
    made, count = jax.eval_shape(network.init, KEY, x), itertools.count()
    numbered = lambda x: (
        np.arange(x.size, dtype=x.dtype).reshape(x.shape) + 1000 * next(count)
    )
    return jax.tree.map(numbered, made)


def test_layers_in_a_stack():
    old, new = stacks(hk.Linear, NORMS[0]), stacks(ours.Dense, NORMS[1])
    params, _ = numbers(old, X)
    made, _, report = carry(old, params, {}, new, X)
    assert report.ok, report
    shapes = jax.eval_shape(new.init, KEY, X)[0]
    assert jax.tree.map(np.shape, made) == jax.tree.map(np.shape, shapes)
    stack = "__layer_stack_no_per_layer"
    for there, here in ("dense", "linear"), ("inner/dense_1", "inner/linear_1"):
        weights = params[f"{stack}/{here}"]["w"]
        assert_identical(made[f"{stack}/{there}"]["kernel"], weights)
    assert weights.shape == (3, 2, 6, 6)
    assert_identical(carry(new, made, {}, old, X)[0], params)


def test_layers_in_a_stack_that_are_turned_and_keep_averages():
    def net(norm, heads):
        block = lambda x: heads()(x, x, x) + norm(x)
        return hk.transform_with_state(lambda x: hk.layer_stack(3)(block)(x))

    old = net(
        lambda x: hk.BatchNorm(True, True, 0.9)(x, is_training=hk.running_init()),
        lambda: hk.MultiHeadAttention(2, key_size=3, w_init=SCALING),
    )
    new = net(
        lambda x: ours.BatchNorm(momentum=0.9, epsilon=1e-5)(
            x, use_running_average=True
        ),
        lambda: ours.MultiHeadAttention(2, qkv_features=6),
    )
    x = array(2, 5, 6)
    params, state = numbers(old, x)
    made, kept, report = carry(old, params, state, new, x)
    assert report.ok, report
    shapes = jax.eval_shape(new.init, KEY, x)
    assert jax.tree.map(np.shape, (made, kept)) == jax.tree.map(np.shape, shapes)
    stack = "__layer_stack_no_per_layer"
    query = params[f"{stack}/multi_head_attention/query"]["w"]
    assert_identical(
        made[f"{stack}/multi_head_attention/query"]["kernel"],
        query.reshape(3, 6, 2, 3),
    )
    average = state[f"{stack}/batch_norm/~/mean_ema"]["average"]
    assert_identical(
        kept[f"{stack}/batch_norm/batch_stats"]["mean"], average.reshape(3, 6)
    )


def test_networks_without_layers():
    empty = hk.transform(lambda x: x)
    assert carry(empty, {}, None, empty, X)[:2] == ({}, {})
    bare = hk.transform(lambda x: x * hk.get_parameter("w", [], init=jnp.ones))
    made, _, report = carry(bare, bare.init(KEY, X), None, bare, X)
    assert report.ok, report
    assert made


def test_shared_layers_and_nested_transforms():
    def forward(dense):
        def run(x):
            layer = dense(6)
            inner = hk.transform(lambda x: hk.Linear(2)(x))
            lifted = hk.lift(inner.init, name="lifted")(KEY, x)
            return inner.apply(lifted, None, layer(layer(x)))

        return hk.transform(run)

    old, new = forward(hk.Linear), forward(ours.Dense)
    params = old.init(KEY, X)
    made, _, report = carry(old, params, None, new, X)
    assert_identical(new.apply(made, None, X), old.apply(params, None, X))


WRONG = {
    "function": (
        lambda x: x,
        {},
        TypeError,
        "got builtins.function. Write hk.transform",
    ),
    "params": (HAIKU, {}, ValueError, r"params\['linear'\]\['.'\], but the params"),
    "pair": (HAIKU, ({}, {}), ValueError, "params, state = old.init"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_given_is_told(name):
    old, params, error, text = WRONG[name]
    with pytest.raises(error, match=text):
        carry(old, params, None, FLAX, X)


def test_masks_need_networks():
    with pytest.raises(TypeError, match="A transformed network was expected"):
        compare_masks(HAIKU.init, FLAX, lambda m, n, v: True, X)


# Masks.


def test_masks_of_optax():
    is_weight = lambda module_name, name, value: name == "w"
    rows = compare_masks(HAIKU, FLAX, is_weight, X)
    assert {(*row.old, *row.new) for row in rows} == {
        ("linear_1/w", "dense/kernel"),
        ("linear_2/w", "dense_1/kernel"),
    }
    assert all([*row.old.values(), *row.new.values()] == [True, False] for row in rows)
    assert "linear_1/w: True  dense/kernel: False" in repr(rows)
    params, _ = FLAX.init(KEY, X)
    mask = hk.data_structures.map(is_weight, params)
    assert not mask["dense"]["kernel"]
    optax.masked(optax.sgd(0.1), mask).init(params)
    either = lambda module_name, name, value: name in ("w", "kernel")
    assert compare_masks(HAIKU, FLAX, either, X) == ()


def test_masks_by_shape_and_by_module():
    assert not compare_masks(HAIKU, FLAX, lambda m, n, value: value.ndim > 1, X)
    rows = compare_masks(HAIKU, FLAX, lambda m, n, v: m.startswith("layer_norm"), X)
    assert not rows
    rows = compare_masks(HAIKU, FLAX, lambda m, n, v: n == "offset", X)
    assert [(row.old, row.new) for row in rows] == [
        ({"layer_norm/offset": True}, {"layer_norm/bias": False})
    ]


def test_masks_of_one_leaf_for_many():
    old, new, x = SWAPS["lstm"]
    old, new = hk.transform(old), hk.transform(new)
    rows = compare_masks(old, new, lambda m, n, v: n in ("w", "kernel"), x)
    assert not rows
    rows = compare_masks(old, new, lambda m, n, v: m.endswith("hf"), x)
    assert {len(row.new) for row in rows} == {8, 4}


def test_masks_of_what_does_not_pair():
    old = hk.transform(lambda x: hk.Linear(3)(x))
    new = hk.transform(lambda x: ours.Dense(4)(x))
    rows = compare_masks(old, new, lambda m, n, v: True, X)
    assert {(*row.old, *row.new) for row in rows} == {
        ("linear/w",), ("linear/b",), ("dense/kernel",), ("dense/bias",),
    }  # fmt: skip
