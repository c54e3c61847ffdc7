"""`match`: leaves are found without names, proven, given back, or it says where not."""

from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hk_bridge import _errors
from hk_bridge import migrate
from hk_bridge.migrate._matching.distances import distance
from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.prints import print_of
from hk_bridge.migrate._matching.quick import matmul
from hk_bridge.migrate._matching.quick import quick
from hk_bridge.testing import assert_identical


def made(module, *args, **kwargs):
    return module.init(jax.random.key(1), *args, **kwargs)


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def held_to_its_laws(found, variables):
    """What has to hold of each match that is one."""
    assert found.ok, found
    assert found.parting is None
    assert not found.missing
    table = found.table()
    assert migrate.LeafTable.parse(table.text()) == table
    assert_identical(table.to_haiku(variables), (found.params, found.state))
    assert_identical(found.to_flax(found.params, found.state), variables)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.relu(nn.Dense(8)(x)))
        x = x + nn.MultiHeadDotProductAttention(2, qkv_features=8)(x)
        return nn.Dense(3)(x)


class Recurrent(nn.Module):
    cell: type

    @nn.compact
    def __call__(self, tokens):
        x = nn.RNN(self.cell(5))(nn.Embed(10, 6)(tokens))
        return nn.Dense(10)(x)


def attention(x):
    x = jax.nn.relu(hk.Linear(8)(x))
    x = hk.LayerNorm(-1, True, True, eps=1e-6)(x)
    init = hk.initializers.VarianceScaling()
    x = x + hk.MultiHeadAttention(2, 4, w_init=init)(x, x, x)
    return hk.Linear(3)(x)


def recurrent(tokens):
    core = hk.LSTM(5)
    x = hk.Embed(10, 6)(tokens)
    start = core.initial_state(tokens.shape[0])
    x, _ = hk.dynamic_unroll(core, x, start, time_major=False)
    return hk.Linear(10)(x)


class Grouped(nn.Module):
    """Flax has the scale beside the deviation, Haiku after it."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(jnp.tanh(nn.GroupNorm(num_groups=2)(nn.Dense(6)(x))))


def grouped(x):
    return hk.Linear(3)(jnp.tanh(hk.GroupNorm(2, eps=1e-6)(hk.Linear(6)(x))))


TOKENS = jax.random.randint(jax.random.key(0), (2, 6), 0, 10)
CASES = {
    "attention": (Attention(), attention, normal(2, 5, 4)),
    "group_norm": (Grouped(), grouped, normal(2, 5, 4)),
    "lstm": (Recurrent(nn.LSTMCell), recurrent, TOKENS),
    "optimized_lstm": (Recurrent(nn.OptimizedLSTMCell), recurrent, TOKENS),
}


@pytest.mark.parametrize("name", CASES)
def test_the_laws(name):
    module, function, x = CASES[name]
    variables = made(module, x)
    haiku = hk.transform(function)
    found = migrate.match(module, variables, haiku, x)
    held_to_its_laws(found, variables)
    outputs = haiku.apply(found.params, None, x), module.apply(variables, x)
    np.testing.assert_allclose(*outputs, rtol=0, atol=1e-5)


class Norms(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        return nn.Dense(3)(x.mean((1, 2)))


def norms(decay):
    def forward(x, is_training):
        x = hk.Conv2D(4, 3)(x)
        x = jax.nn.relu(hk.BatchNorm(True, True, decay)(x, is_training))
        return hk.Linear(3)(x.mean((1, 2)))

    return hk.transform_with_state(forward)


@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_keeps_one_statistic_thrice(train):
    x = normal(4, 6, 6, 2)
    variables = made(Norms(), x, train=False)
    kwargs = {
        "flax_kwargs": {"train": train},
        "haiku_kwargs": {"is_training": train},
    }
    with jax.numpy_dtype_promotion("standard"):  # which Haiku needs in training
        found = migrate.match(Norms(), variables, norms(0.9), x, **kwargs)
    held_to_its_laws(found, variables)
    assert set(found.state["batch_norm/~/mean_ema"]) == {"hidden", "average", "counter"}


def test_another_momentum_is_seen_in_training():
    x = normal(4, 6, 6, 2)
    variables = made(Norms(), x, train=False)
    kwargs = {"flax_kwargs": {"train": True}, "haiku_kwargs": {"is_training": True}}
    with jax.numpy_dtype_promotion("standard"):
        found = migrate.match(Norms(), variables, norms(0.99), x, **kwargs)
    assert not found.ok
    assert "batch_norm" in found.parting.haiku.layer
    kwargs = {"flax_kwargs": {"train": False}, "haiku_kwargs": {"is_training": False}}
    assert migrate.match(Norms(), variables, norms(0.99), x, **kwargs).ok


def test_a_module_of_nnx_is_matched_by_its_own_values_or_by_those_given():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(4, 3, rngs=rngs)
            self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.inner(x))

    def forward(x):
        return hk.BatchNorm(True, True, 0.99)(hk.Linear(3)(x), False)

    model, x = Net(nnx.Rngs(0)), normal(5, 4)
    haiku = hk.transform_with_state(forward)
    found = migrate.match(model, None, haiku, x)
    assert found.ok, found
    assert found.params["linear"]["w"].shape == (4, 3)
    back = found.to_flax(found.params, found.state)
    assert_identical(back["params"]["inner"]["kernel"], model.inner.kernel[...])
    other = nnx.state(Net(nnx.Rngs(1)))
    found = migrate.match(model, other, haiku, x)
    np.testing.assert_array_equal(found.params["linear"]["w"], other.inner.kernel[...])
    with pytest.raises(_errors.VariablesError, match="no collection 'params' on top"):
        migrate.match(model, {"inner": {"kernel": 1}}, haiku, x)


class Branches(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(5)(x)) + nn.relu(nn.Dense(5)(x)))


def branches(x):
    both = jax.nn.relu(hk.Linear(5)(x)) + jax.nn.relu(hk.Linear(5)(x))
    return hk.Linear(3)(both)


def test_what_cannot_be_told_apart_is_told():
    x = normal(4, 6)
    variables = made(Branches(), x)
    found = migrate.match(Branches(), variables, hk.transform(branches), x)
    held_to_its_laws(found, variables)
    assert ("params/Dense_1/kernel", "params/Dense_2/kernel") in found.ambiguous


def test_an_epsilon_is_seen_and_both_lines_are_shown():
    x = normal(2, 5, 4)

    def wrong(x):
        x = jax.nn.relu(hk.Linear(8)(x))
        x = hk.LayerNorm(-1, True, True, eps=1e-5)(x)
        init = hk.initializers.VarianceScaling()
        x = x + hk.MultiHeadAttention(2, 4, w_init=init)(x, x, x)
        return hk.Linear(3)(x)

    variables = made(Attention(), x)
    parting = migrate.match(Attention(), variables, hk.transform(wrong), x).parting
    assert "epsilon: 1e-05 in Haiku, 1e-06 in Flax" in parting.cause
    assert parting.haiku.layer == "layer_norm"
    assert parting.flax.layer.endswith("LayerNorm_0")
    for place in (parting.haiku, parting.flax):
        assert place.line.startswith("test_match.py:")


def test_the_proof_does_not_trust_the_search():
    x = normal(2, 3)

    class Stopped(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(jax.lax.stop_gradient(nn.Dense(4)(x)))

    haiku = hk.transform(lambda x: hk.Linear(2)(hk.Linear(4)(x)))
    found = migrate.match(Stopped(), made(Stopped(), x), haiku, x)
    assert found.parting is None
    assert found.proof.gradients > 0.1
    assert not found.ok


@jax.custom_vjp
def reversed_slope(x):
    return x


reversed_slope.defvjp(lambda x: (x, None), lambda _, slope: (-slope,))


@pytest.mark.parametrize("both", [True, False])
def test_a_rule_for_derivatives_is_part_of_the_proof(both):
    x = normal(2, 3)

    class Ruled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(reversed_slope(nn.Dense(4)(x)))

    def forward(x):
        x = hk.Linear(4)(x)
        return hk.Linear(2)(reversed_slope(x) if both else x)

    found = migrate.match(Ruled(), made(Ruled(), x), hk.transform(forward), x)
    assert found.parting is None
    assert found.ok == both
    assert (found.proof.gradients < 1e-6) == both


CONVOLUTIONS = {
    "strides": ((2, 1), ((1, 2), (0, 3)), (1, 1), (1, 2), 1, 1),
    "groups": ((1, 2), ((-1, 1), (2, 0)), (2, 1), (1, 1), 2, 1),
    "slope": ((1, 1), ((2, 2), (2, 2)), (1, 1), (2, 2), 1, 2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("size", [2, 5])
def test_a_convolution_in_numpy_is_that_of_jax(name, size):
    strides, padding, spread, rates, groups, batches = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2 * batches, 2 * groups, 7, 6))
    kernel = rng.standard_normal((4, 2, min(size, 3), size))
    with jax.enable_x64(True):
        given = {"feature_group_count": groups, "batch_group_count": batches}
        convolve = lambda x, kernel: jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            spread,
            rates,
            ("NCHW", "OIHW", "NHWC"),
            **given,
        )
        (eqn,) = jax.make_jaxpr(convolve)(x, kernel).eqns
        expected = np.asarray(convolve(x, kernel))
    made = quick(eqn.primitive.name, eqn.params, [x, kernel])
    assert made.shape == expected.shape
    assert expected.size
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 70, 600), (1, 4000, 90)])
def test_a_product_in_pieces_is_the_product(shape):
    m, k, n = shape
    one, two = np.random.default_rng(0).standard_normal((2, m, k)), np.ones((k, n))
    np.testing.assert_allclose(matmul(one, two), one @ two, rtol=0, atol=1e-10)


def test_stacked_layers_are_unstacked():
    x = normal(2, 6)

    class Stacked(nn.Module):
        @nn.compact
        def __call__(self, x):
            body = lambda dense, x, _: (jnp.tanh(dense(x)), None)
            over = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            dense = nn.Dense(6, name="layers")
            return nn.scan(body, length=3, **over)(dense, x, None)[0]

    def unrolled(x):
        for _ in range(3):
            x = jnp.tanh(hk.Linear(6)(x))
        return x

    variables = made(Stacked(), x)
    found = migrate.match(Stacked(), variables, hk.transform(unrolled), x)
    held_to_its_laws(found, variables)
    rows = {row.haiku: row.flax_part for row in found.table().rows}
    assert rows["params/linear_2/w"] == "[2]"


def test_a_table_for_other_sizes_is_refused():
    table = migrate.LeafTable.parse("params/l/w\t(2,)\tparams/a\t(2,)\t")
    with pytest.raises(migrate.MatchError, match=r"'params/a' has shape \[3\]"):
        table.to_haiku({"params": {"a": np.ones(3)}})
    with pytest.raises(migrate.MatchError, match="names the leaf 'params/a'"):
        table.to_haiku({"params": {}})


def test_what_is_no_network_is_refused():
    with pytest.raises(migrate.MatchError, match=r"Write hk\.transform\(f\)"):
        migrate.match(nn.Dense(2), made(nn.Dense(2), normal(2, 3)), lambda x: x)


class Two(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x), jnp.tanh(x)


MASK = jnp.array([0, 0, 0, 1])


class Masked(nn.Module):
    fill: float

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(4)(x)
        return jnp.where(MASK, self.fill, y)


class Zeros(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.Dense(4)(x))
        return nn.Dense(2, kernel_init=nn.initializers.zeros)(x)


def spare(x):
    hk.get_parameter("spare", [3], init=jnp.zeros)
    return hk.Linear(3)(x), jnp.tanh(x)


NOT_THE_SAME = {
    "fewer outputs": (Two(), lambda x: hk.Linear(3)(x)),
    "no outputs": (Two(), lambda x: None),
    "more outputs": (nn.Dense(3), lambda x: (hk.Linear(3)(x), x)),
    "another shape": (nn.Dense(3), lambda x: hk.Linear(3)(x)[:, None]),
    "another dtype": (nn.Dense(3, dtype=jnp.bfloat16), lambda x: hk.Linear(3)(x)),
    "a leaf that is never read": (Two(), spare),
    "zeros at the end": (Zeros(), lambda x: hk.Linear(2)(jnp.sin(hk.Linear(4)(x)))),
    **{
        f"beside {fill}": (
            Masked(fill),
            lambda x, fill=fill: jnp.where(MASK, fill, jnp.sin(hk.Linear(4)(x))),
        )
        for fill in (-1e9, -np.inf, np.nan)
    },
}


@pytest.mark.parametrize("name", NOT_THE_SAME)
def test_is_not_proven(name):
    module, function = NOT_THE_SAME[name]
    x = normal(3, 4)
    found = migrate.match(module, made(module, x), hk.transform(function), x)
    assert not found.ok


@pytest.mark.parametrize("fill", [-1e9, -np.inf, np.nan])
def test_a_mask_does_not_hide_the_rest(fill):
    one = np.array([1.0, 2.0, fill, 3.0])
    assert distance(one, one) == 0
    assert distance(one, np.array([1.0, 2.1, fill, 3.0])) > 0.01
    assert distance(one, np.array([1.0, 2.0, 3.0, fill])) >= 1
    assert distance(np.array([300_000]), np.array([300_001])) == np.inf
    other = print_of(np.array([1.0, 2.1, fill, 3.0]))
    assert np.isfinite(fill) or not are_close(print_of(one), other)


def test_what_is_tied_in_flax_alone_has_no_way_back_once_it_differs():
    class Tied(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            embed = nn.Embed(5, 3)
            return embed.attend(jnp.tanh(embed(tokens)))

    def untied(tokens):
        x = jnp.tanh(hk.Embed(5, 3)(tokens))
        return hk.Linear(5, with_bias=False)(x)

    tokens = jnp.arange(5)[None]
    found = migrate.match(Tied(), made(Tied(), tokens), hk.transform(untied), tokens)
    assert found.ok
    found.params["linear"]["w"] = found.params["linear"]["w"] + 1
    with pytest.raises(
        migrate.MatchError, match=r"'params/linear/w' of Haiku are both"
    ):
        found.to_flax(found.params)


def test_static_arguments_are_given_to_both():
    class Static(nn.Module):
        @nn.compact
        def __call__(self, x, bend):
            return nn.tanh(nn.Dense(3)(x)) if bend else x

    x = normal(2, 3)
    haiku = hk.transform(lambda x, bend: jnp.tanh(hk.Linear(3)(x)) if bend else x)
    assert migrate.match(Static(), made(Static(), x, True), haiku, x, True).ok
