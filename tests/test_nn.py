"""`hk_bridge.nn.GroupNorm` against linen's, the paper's formula and Haiku's own."""

import inspect

from catalogue import array
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 5, 3, 8) * 3.0 + 1.0
SCALE, BIAS = array(8, seed=1), array(8, seed=2)


def apply(layer, x, scale=SCALE, bias=BIAS):
    """The output of a bridged layer with the parameters given."""
    f = hk.transform(jax.numpy_dtype_promotion("standard")(lambda x: layer()(x)))
    params = f.init(KEY, x)
    assert jax.tree.map(jnp.shape, params) == {
        "group_norm": {"scale": scale.shape, "bias": bias.shape}
    }
    return f.apply({"group_norm": {"scale": scale, "bias": bias}}, None, x)


CONFIGS = [
    {"num_groups": 4},
    {"num_groups": 1, "epsilon": 1e-2},
    {"group_size": 2},
    {"num_groups": None, "group_size": 4},
    {"num_groups": 2, "use_fast_variance": False},
    {"num_groups": 2, "reduction_axes": (2, 3)},
    {"num_groups": 2, "dtype": jnp.bfloat16},
    {"num_groups": 2, "dtype": None},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_is_linens(config):
    ours = apply(lambda: hk_bridge.nn.GroupNorm(**config), X)
    theirs = {"epsilon": 1e-5, "dtype": jnp.float32, **config}
    if "group_size" in config:
        theirs["num_groups"] = None
    module = nn.GroupNorm(**theirs)
    with jax.numpy_dtype_promotion("standard"):
        variables = {"params": {"scale": SCALE, "bias": BIAS}}
        assert_identical(ours, module.apply(variables, X))
    f = hk.transform(lambda: hk_bridge.nn.GroupNorm(**config).module)
    assert f.apply({}, None) == module


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_it_is_the_papers_formula(groups):
    """Equations 1, 7 and 8 of arxiv.org/abs/1803.08494, in float64."""
    x = np.asarray(X, np.float64)
    expected = np.empty_like(x)
    channels = x.shape[-1] // groups
    for n in range(x.shape[0]):
        for g in range(groups):
            s = (n, ..., slice(g * channels, (g + 1) * channels))
            mean = x[s].mean()
            variance = ((x[s] - mean) ** 2).mean()
            expected[s] = (x[s] - mean) / np.sqrt(variance + 1e-5)
    expected = expected * np.asarray(SCALE, np.float64) + np.asarray(BIAS, np.float64)
    ours = apply(lambda: hk_bridge.nn.GroupNorm(num_groups=groups), X)
    # float32 carries 24 bits, and the fast variance loses some of them.
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_it_is_haikus_with_equal_epsilon(groups):
    with jax.numpy_rank_promotion("allow"):
        f = hk.transform(lambda x: hk.GroupNorm(groups)(x))
        theirs = f.apply({"group_norm": {"scale": SCALE, "offset": BIAS}}, None, X)
    ours = apply(lambda: hk_bridge.nn.GroupNorm(num_groups=groups), X)
    # The two compute the variance in different ways.
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8), (3, 5, 8), (3, 2, 2, 2, 8)])
def test_any_number_of_spatial_axes_and_no_look_at_the_batch(shape):
    x = array(*shape)
    layer = lambda: hk_bridge.nn.GroupNorm(num_groups=2)
    whole = apply(layer, x)
    assert whole.shape == shape
    alone = jnp.concatenate([apply(layer, x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(whole, alone, rtol=1e-6, atol=1e-6)


def test_it_keeps_no_state():
    f = hk.transform_with_state(lambda x: hk_bridge.nn.GroupNorm(num_groups=2)(x))
    assert f.init(KEY, X)[1] == {}


def test_a_mask():
    mask = jnp.ones(X.shape, bool).at[:, 3:].set(False)
    f = hk.transform(lambda x: hk_bridge.nn.GroupNorm(num_groups=2)(x, mask=mask))
    module = nn.GroupNorm(2, epsilon=1e-5, dtype=jnp.float32)
    variables = module.init(KEY, X)
    ours = f.apply({"group_norm": variables["params"]}, None, X)
    assert_identical(ours, module.apply(variables, X, mask=mask))


@jax.numpy_dtype_promotion("standard")  # linen itself mixes dtypes
def test_flax_initialisers():
    layer = lambda: hk_bridge.nn.GroupNorm(
        num_groups=2,
        scale_init=nn.initializers.normal(2.0),
        bias_init=nn.initializers.constant(3.0),
        param_dtype=jnp.bfloat16,
        name="norm",
    )
    params = hk.transform(lambda x: layer()(x)).init(KEY, X)
    assert params["norm"]["scale"].dtype == jnp.bfloat16
    assert jnp.all(params["norm"]["bias"] == 3.0)
    module = nn.GroupNorm(
        2,
        scale_init=nn.initializers.normal(2.0),
        param_dtype=jnp.bfloat16,
    )
    key = next(hk.PRNGSequence(KEY))
    expected = module.init(key, X)["params"]["scale"]
    assert_identical(params["norm"]["scale"], expected)


def test_without_parameters():
    layer = lambda: hk_bridge.nn.GroupNorm(
        num_groups=2, use_bias=False, use_scale=False
    )
    f = hk.transform(lambda x: layer()(x))
    assert f.init(None, X) == {}
    module = nn.GroupNorm(2, epsilon=1e-5, use_bias=False, use_scale=False)
    assert_identical(f.apply({}, None, X), module.apply({}, X))


@pytest.mark.parametrize("num_groups", [4.7, 4.0, "8"])
def test_a_number_of_groups_that_is_no_whole_one(num_groups):
    make = lambda: hk_bridge.nn.GroupNorm(num_groups=num_groups)
    kind = type(num_groups).__name__
    with pytest.raises(TypeError, match=f"'{kind}' object cannot be interpreted as an"):
        hk.transform(make).init(None)


def test_a_number_of_groups_of_numpy():
    f = hk.transform(lambda: hk_bridge.nn.GroupNorm(num_groups=np.int64(4)).module)
    assert type(f.apply({}, None).num_groups) is int


def test_the_signature():
    parameters = inspect.signature(hk_bridge.nn.GroupNorm).parameters
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    defaults = {name: p.default for name, p in parameters.items()}
    assert list(defaults) == [
        "num_groups", "group_size", "epsilon", "dtype", "use_bias", "use_scale",
        "bias_init", "scale_init", "param_dtype", "reduction_axes", "axis_name",
        "axis_index_groups", "use_fast_variance", "force_float32_reductions", "name",
    ]  # fmt: skip
    assert defaults["num_groups"] == 32
    assert defaults["group_size"] is None
    assert defaults["epsilon"] == 1e-5
    assert defaults["dtype"] == jnp.float32
    linen = inspect.signature(nn.GroupNorm).parameters
    ours = {"num_groups", "epsilon", "dtype", "name"}
    for name in set(defaults) - ours - {"bias_init", "scale_init"}:
        assert defaults[name] == linen[name].default, name
    assert set(linen) - {"parent"} == set(defaults)


def test_the_docstring_names_the_differences():
    text = inspect.getdoc(hk_bridge.nn.GroupNorm)
    for part in ("1e-6", "`offset`", "eps=1e-5", "1803.08494", "never over the batch"):
        assert part in text
