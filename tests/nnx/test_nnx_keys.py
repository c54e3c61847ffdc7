"""The keys of an NNX module in Haiku: when they are drawn, and what they give."""

from catalogue import array
from catalogue_nnx import Noise
from catalogue_nnx_lifted import Scan
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

from hk_bridge import FlaxModule
from hk_bridge import to_flax
from hk_bridge import wrap
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


class Two(nnx.Module):
    """Two layers of dropout, of one stream or of two."""

    def __init__(self, rngs, first="dropout", second="dropout"):
        self.one = nnx.Dropout(0.5, rng_collection=first, rngs=rngs)
        self.two = nnx.Dropout(0.5, rng_collection=second, rngs=rngs)

    def __call__(self, x, deterministic=False):
        options = {"deterministic": deterministic}
        return self.one(x, **options), self.two(x, **options)


def dropout():
    return nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=7))


def run(module, *args, key=KEY, **kwargs):
    """The output of a call at apply, and the Haiku key that is drawn after it."""

    def forward():
        y = FlaxModule(module, name="net")(*args, **kwargs)
        return y, None if key is None else hk.next_rng_key()

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY)
    (y, after), _ = f.apply(params, state, key)
    return y, after


# No constant masks.


@pytest.mark.parametrize("make", [dropout, lambda: Two(nnx.Rngs(0)), nnx.Rngs])
def test_no_key_is_an_error(make):
    module = make()
    if isinstance(module, nnx.Rngs):
        module = Noise(nnx.Rngs(0))
    f = hk.transform_with_state(lambda: FlaxModule(module)(X))
    params, state = f.init(KEY)
    with pytest.raises(errors.InvalidRngError) as raised:
        f.apply(params, state, None)
    notes = "\n".join(raised.value.__notes__)
    assert "No Haiku key was at hand. Give one to apply" in notes
    with pytest.raises(errors.InvalidRngError) as raised:
        f.init(None)
    assert "f.init(key, ...)" in "\n".join(raised.value.__notes__)


def test_no_key_is_an_error_in_a_wrapped_class():
    f = hk.transform(lambda: wrap(nnx.Dropout)(0.5)(X))
    with pytest.raises(errors.InvalidRngError):
        f.apply(f.init(KEY), None)


@pytest.mark.parametrize("lift", [nnx.remat, nnx.jit, lambda f: f])
def test_no_key_is_an_error_in_a_transform_of_nnx(lift):
    class Lifted(nnx.Module):
        def __init__(self, rngs):
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x, deterministic=False):
            return lift(lambda m, x: m(x, deterministic=deterministic))(self.dropout, x)

    module = Lifted(nnx.Rngs(0))
    f = hk.transform(lambda train: FlaxModule(module)(X, deterministic=not train))
    params = f.init(KEY, True)
    assert_identical(f.apply(params, None, False), X)
    with pytest.raises(errors.InvalidRngError):
        f.apply(params, None, True)


def test_each_key_has_its_mask():
    outputs = [run(dropout(), X, key=jax.random.key(seed))[0] for seed in (0, 1, 0)]
    assert jnp.any(outputs[0] != outputs[1])
    assert_identical(outputs[0], outputs[2])


def test_each_call_has_its_mask():
    module = dropout()

    def forward():
        net = FlaxModule(module)
        return net(X), net(X)

    f = hk.transform(forward)
    one, two = f.apply(f.init(KEY), KEY)
    assert jnp.any(one != two)
    keys = keys_of(KEY, 2)
    assert_identical(one, replayed(module, X, keys={"dropout": keys[0]}))
    assert_identical(two, replayed(module, X, keys={"dropout": keys[1]}))


def test_two_layers_have_two_masks():
    (one, two), _ = run(Two(nnx.Rngs(0)), X)
    assert jnp.any(one != two)


# How many keys, and which.


@pytest.mark.parametrize(
    ("streams", "count"),
    [
        ({"dropout": 0}, 1),  # two layers of one name
        ({"default": 0}, 1),
        ({"dropout": 0, "late": 1}, 2),
    ],
)
def test_a_key_is_drawn_for_each_name(streams, count):
    second = "late" if "late" in streams else "dropout"
    module = Two(nnx.Rngs(**streams), second=second)
    y, after = run(module, X)
    *keys, next_key = keys_of(KEY, count + 1)
    assert_identical(after, next_key)
    assert_identical(y, replayed(module, X, keys=dict(zip(streams, keys, strict=True))))


def test_keys_are_drawn_in_the_order_of_use():
    """And not in that of the graph, where names are sorted."""

    class Reversed(nnx.Module):
        def __init__(self, rngs):
            self.rngs = rngs

        def __call__(self):
            return self.rngs.b(), self.rngs.a(), self.rngs.b()

    module = Reversed(nnx.Rngs(a=0, b=1))
    y, after = run(module)
    first, second, next_key = keys_of(KEY, 3)
    assert_identical(after, next_key)
    assert_identical(y, replayed(module, keys={"b": first, "a": second}))


def test_unused_streams_draw_nothing():
    module = Noise(nnx.Rngs(0, dropout=1, noise=2))
    f = hk.transform(
        lambda: (FlaxModule(module)(X, deterministic=True), hk.next_rng_key())
    )
    params = f.init(KEY)
    y, after = f.apply(params, KEY)
    assert_identical(after, keys_of(KEY, 1)[0])
    assert_identical(y, module.layer(X))
    f = hk.transform(lambda: FlaxModule(module)(X, deterministic=True))
    assert_identical(f.apply(params, None), y)
    assert_identical(f.init(None), params)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_dropout_that_needs_no_key_draws_none(rate):
    module = nnx.Dropout(rate, rngs=nnx.Rngs(0))
    y, after = run(module, X)
    assert_identical(after, keys_of(KEY, 1)[0])
    assert_identical(y, module(X))


def test_recurrent_layers_need_no_key_for_a_carry_of_zeros():
    module = nnx.RNN(nnx.LSTMCell(4, 3, rngs=nnx.Rngs(0)))
    x = array(2, 5, 4)
    f = hk.without_apply_rng(hk.transform(lambda x: FlaxModule(module)(x)))
    assert_identical(f.apply(f.init(None, x), x), nnx.clone(module)(x))


# `rngs=`.

RNGS = {
    "a key": (KEY, {"default": KEY}),
    "a seed": (5, {"default": 5}),
    "keys": ({"dropout": KEY}, {"dropout": KEY}),
    "a raw key": (
        {"dropout": jax.random.PRNGKey(3)},
        {"dropout": jax.random.wrap_key_data(jax.random.PRNGKey(3))},
    ),
    "seeds": ({"dropout": 3}, {"dropout": 3}),
    "more than are used": ({"dropout": KEY, "params": KEY}, {"dropout": KEY}),
    "both": ({"dropout": KEY, "default": 3}, {"dropout": KEY}),
}


@pytest.mark.parametrize(("rngs", "keys"), RNGS.values(), ids=RNGS)
@pytest.mark.parametrize("key", [None, KEY])
def test_rngs_are_given(rngs, keys, key):
    stream = "default" if "default" in keys else "dropout"
    module = nnx.Dropout(0.5, rngs=nnx.Rngs(**{stream: 9}))
    f = hk.transform(lambda: FlaxModule(module)(X, rngs=rngs))
    y = f.apply(f.init(None), key)
    assert_identical(y, replayed(module, X, keys=keys))


def test_rngs_of_nnx_are_given():
    module = dropout()
    rngs = nnx.Rngs(dropout=3)
    f = hk.transform(lambda: FlaxModule(module)(X, rngs=rngs))
    params = f.init(None)
    keys = [nnx.Rngs(dropout=3).dropout()]
    rngs = nnx.Rngs(dropout=3)
    y = f.apply(params, None)
    assert_identical(y, replayed(module, X, keys={"dropout": keys[0]}))


def test_default_answers_for_other_streams():
    """Each has keys of its own, though the key that they come from is one."""
    module = Two(nnx.Rngs(dropout=0, late=1), second="late")
    f = hk.transform(lambda: FlaxModule(module)(X, rngs={"default": KEY}))
    one, two = f.apply(f.init(None), None)
    assert jnp.any((one == 0.0) != (two == 0.0))
    seeds = nnx.Rngs(KEY)
    copy = nnx.clone(module)
    for part in (copy.one, copy.two):
        part.rngs.key.set_value(seeds())
        part.rngs.count.set_value(jnp.zeros([], jnp.uint32))
    assert_identical((one, two), copy(X))


def test_a_stream_that_rngs_lack_is_an_error():
    """Haiku's keys are not mixed with those that were given, as in linen."""
    module = dropout()
    f = hk.transform(lambda: FlaxModule(module)(X, rngs={"other": KEY}))
    with pytest.raises(errors.InvalidRngError, match="dropout"):
        f.init(KEY)


# Under transforms.


def test_under_jit():
    module = dropout()
    f = hk.transform(lambda: FlaxModule(module)(X))
    params = f.init(KEY)
    step = jax.jit(f.apply)
    for seed in (1, 2):
        key = jax.random.key(seed)
        expected = replayed(module, X, keys={"dropout": keys_of(key, 1)[0]})
        assert_identical(step(params, key), expected)
    assert step._cache_size() == 1


def test_under_grad():
    module = Noise(nnx.Rngs(0, dropout=1, noise=2))
    f = hk.transform(lambda: FlaxModule(module, name="net")(X).sum())
    params = f.init(KEY)
    grads = to_flax(jax.grad(f.apply)(params, KEY), {}, name="net")
    copy = nnx.clone(module)
    names = ("dropout", "noise", "default")
    keys = dict(zip(names, keys_of(KEY, 3), strict=True))
    nnx.reseed(copy, policy="match_shape", **keys)
    expected = nnx.grad(lambda m: m(X).sum())(copy)
    assert_identical(grads["params"], nnx.to_pure_dict(expected))


def test_under_hk_remat():
    module = dropout()
    plain = hk.transform(lambda: FlaxModule(module)(X))
    f = hk.transform(lambda: hk.remat(lambda: FlaxModule(module)(X))())
    assert_identical(f.apply(f.init(KEY), KEY), plain.apply({}, KEY))


def test_under_hk_scan():
    module = dropout()

    def forward():
        net = FlaxModule(module)
        if hk.running_init():
            return net(X)
        return hk.scan(lambda carry, _: (carry, net(X)), None, None, length=3)[1]

    f = hk.transform(forward)
    masks = np.asarray(f.apply(f.init(KEY), KEY)) == 0.0
    assert len({mask.tobytes() for mask in masks}) == 3


def test_split_streams_are_replayed():
    """A stream of a stack has a key for each layer, split from one of Haiku."""
    module = Scan(nnx.Rngs(0))
    y, after = run(module, X)
    key, next_key = keys_of(KEY, 2)
    assert_identical(after, next_key)
    assert_identical(y, replayed(module, X, keys={"default": key}))


# Streams that are kept.


def test_kept_streams_count_in_state():
    module = Two(nnx.Rngs(dropout=3))
    forward = lambda: FlaxModule(module, keep_rngs=True, name="net")(X)
    f = hk.transform_with_state(forward)
    params, state = f.init(None)
    variables = to_flax(params, state, name="net")
    assert_identical(
        variables,
        {"RngCount": pure(module, nnx.RngCount), "RngKey": pure(module, nnx.RngKey)},
    )
    copy = nnx.clone(module)
    for _ in range(3):
        y, state = f.apply(params, state, None)
        assert_identical(y, copy(X))
    counts = to_flax(params, state, name="net")["RngCount"]
    assert_identical(counts, pure(copy, nnx.RngCount))
    assert int(counts["one"]["rngs"]["count"]) == 3


def test_streams_are_no_state_by_default():
    for module in (Two(nnx.Rngs(0)), Noise(nnx.Rngs(0))):
        f = hk.transform_with_state(lambda m=module: FlaxModule(m)(X))
        params, state = f.init(KEY)
        assert state == {}
        assert f.apply(params, state, KEY)[1] == {}
