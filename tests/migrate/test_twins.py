"""`twin`: Haiku's own layers against linen's, with the same weights.

Layers that run the same arithmetic are compared bit by bit. The others sum or round in
another order, so float32 outputs are compared to 1e-6 of what is larger, 1 or the
largest output.
"""

from collections.abc import Callable
import dataclasses
import itertools
from typing import Any

from catalogue import array
import flax.core
import flax.linen as nn
import haiku as hk
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import migrate
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 7, 9, 6)
Q, K, V = array(2, 5, 6, seed=1), array(2, 7, 4, seed=2), array(2, 7, 3, seed=3)
CARRY = (array(2, 4, seed=4), array(2, 4, seed=5))


def class_name(module):
    return type(module).__name__


def call_layer(twin, *args):
    return twin.make()(*args, **twin.call_arguments)


def call_lstm(twin, carry, x):
    c, h = carry
    output, state = twin.make()(x, hk.LSTMState(hidden=h, cell=c))
    return (state.cell, state.hidden), output


@dataclasses.dataclass(frozen=True)
class Case:
    """A linen layer and how to call it, and its twin."""

    module: nn.Module
    args: tuple[Any, ...] = (X,)
    ndim: int | None = None
    call: Callable[..., Any] = call_layer

    def __str__(self):
        fields = dataclasses.fields(self.module)
        given = [
            f"{f.name}={getattr(self.module, f.name)}"
            for f in fields
            if f.name not in ("parent", "name")
            and not f.name.endswith("_init")
            and getattr(self.module, f.name) is not f.default
        ]
        return f"{type(self.module).__name__}({', '.join(given)})"

    def variables(self):
        """Variables of scale 1, none of them at an initial value of 0 or 1."""
        shapes = jax.eval_shape(self.module.init, KEY, *self.args)
        rng = np.random.default_rng(0)

        def draw(path, leaf):
            if path[-1].key in ("scale", "var"):
                value = rng.uniform(0.5, 1.5, leaf.shape)
            else:
                value = rng.normal(0, 0.3, leaf.shape)
            return jnp.asarray(value, leaf.dtype)

        return jax.tree_util.tree_map_with_path(draw, shapes)

    def twin(self, variables, name="net"):
        return migrate.twin(self.module, variables, name=name, ndim=self.ndim)

    def transform(self, twin):
        return hk.transform_with_state(lambda *args: self.call(twin, *args))


CASES = [
    Case(nn.Dense(5)),
    Case(nn.Dense(5, use_bias=False, precision="highest"), (array(6),)),
    Case(nn.Dense(5, dtype=jnp.float32, param_dtype=jnp.float32)),
    Case(nn.Conv(4, (3, 3))),
    Case(nn.Conv(4, (3, 3)), (array(7, 9, 6),)),  # without a batch
    Case(nn.Conv(4, 3, padding="CAUSAL", kernel_dilation=2), (array(2, 9, 3),)),
    Case(nn.Conv(4, (3, 2), precision=jax.lax.Precision.HIGHEST)),
    Case(nn.Conv(4, (2, 2), strides=None, kernel_dilation=None, input_dilation=None)),
    Case(nn.Conv(4, (2, 3), input_dilation=(1, 1), padding="SAME_LOWER")),
    Case(nn.Conv(4, (2, 3), mask=array(2, 3, 6, 4, seed=9))),
    Case(nn.ConvTranspose(4, (3, 2), kernel_dilation=(1, 1))),
    Case(nn.ConvTranspose(4, (3, 2)), (array(7, 9, 6),)),
    Case(nn.ConvTranspose(4, (3, 2), mask=array(3, 2, 6, 4, seed=9))),
    Case(
        nn.ConvTranspose(
            4, (3, 2), mask=array(3, 2, 4, 6, seed=9), transpose_kernel=True
        )
    ),
    Case(nn.Embed(5, 3), (jnp.array([[0, 1], [4, -1]]),)),
    Case(nn.Embed(1, 3), (jnp.array([0, 0]),)),
    Case(nn.LayerNorm()),
    Case(nn.LayerNorm(epsilon=0.1, use_bias=False)),
    Case(nn.LayerNorm(use_scale=False, reduction_axes=(1, 2))),
    Case(nn.LayerNorm(use_scale=False, use_bias=False, reduction_axes=[-1, 2])),
    Case(nn.LayerNorm(feature_axes=(1, -1)), ndim=4),
    Case(nn.LayerNorm(feature_axes=3, reduction_axes=(1, 3)), ndim=4),
    Case(nn.LayerNorm(use_fast_variance=False)),
    Case(nn.RMSNorm()),
    Case(nn.RMSNorm(epsilon=0.1, use_scale=False, use_fast_variance=False)),
    Case(nn.RMSNorm(feature_axes=(2, 1), reduction_axes=(1, 2)), ndim=4),
    Case(nn.GroupNorm(3)),
    Case(nn.GroupNorm(3, epsilon=0.1, use_bias=False, use_fast_variance=False)),
    Case(nn.GroupNorm(2, use_scale=False, use_bias=False), (array(2, 64),)),
    Case(nn.GroupNorm(None, 2, use_scale=False)),
    Case(nn.GroupNorm(3, reduction_axes=(2, 3))),
    Case(nn.GroupNorm(3, reduction_axes=(0, 1, -1))),
    Case(nn.GroupNorm(3, reduction_axes=-1, use_fast_variance=False)),
    Case(nn.BatchNorm(use_running_average=True), ndim=4),
    Case(nn.BatchNorm(use_running_average=False), ndim=4),
    Case(nn.BatchNorm(True, epsilon=0.1, use_bias=False), (array(3, 4),), 2),
    Case(nn.BatchNorm(False, use_scale=False, use_bias=False), (array(3, 4),), 2),
    Case(nn.BatchNorm(False, axis=1), ndim=4),
    Case(nn.BatchNorm(True, axis=(-1, 1)), ndim=4),
    Case(nn.BatchNorm(False, axis=(2, 3)), ndim=4),
    Case(nn.BatchNorm(False, use_fast_variance=False), ndim=4),
    Case(nn.LSTMCell(4), (CARRY, array(2, 6)), call=call_lstm),
    Case(nn.OptimizedLSTMCell(4), (CARRY, array(2, 6)), call=call_lstm),
    Case(nn.MultiHeadDotProductAttention(2), (Q, K, V)),
    Case(nn.MultiHeadDotProductAttention(4, qkv_features=8, out_features=5), (Q, K, V)),
    Case(nn.MultiHeadAttention(2, use_bias=False), (Q, K, V)),
    Case(nn.MultiHeadAttention(1, dropout_rate=0.5, deterministic=True), (Q, Q, Q)),
]
STATEFUL = [case for case in CASES if isinstance(case.module, nn.BatchNorm)]
ONE_EACH = list({type(case.module): case for case in CASES}.values())
OF_A_KERNEL = [c for c in CASES if type(c.module) in (nn.Dense, nn.Conv)]


def linen_apply(case, variables, *args):
    """The output, and the variables after the call."""
    output, new = case.module.apply(variables, *args, mutable=["batch_stats"])
    return output, {**variables, **new}


def assert_close(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = max(1.0, float(jnp.max(jnp.abs(b))))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * scale)


def assert_as_equal_as_said(twin, ours, theirs):
    (assert_identical if twin.exact else assert_close)(ours, theirs)


# hk.ExponentialMovingAverage itself raises a float to an integer power.
standard_promotion = jax.numpy_dtype_promotion("standard")


# What holds for every layer.


@pytest.mark.parametrize("case", CASES, ids=str)
def test_outputs_are_linens(case):
    variables = case.variables()
    twin = case.twin(variables)
    f = case.transform(twin)
    theirs, _ = linen_apply(case, variables, *case.args)
    ours, _ = f.apply(twin.params, twin.state, None, *case.args)
    assert_as_equal_as_said(twin, ours, theirs)


@standard_promotion
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_compiled_outputs_are_linens(case):
    """XLA may fuse the two programs in different ways."""
    variables = case.variables()
    twin = case.twin(variables)
    apply = jax.jit(case.transform(twin).apply)
    ours, _ = apply(twin.params, twin.state, None, *case.args)
    theirs = jax.jit(lambda *args: linen_apply(case, *args)[0])(variables, *case.args)
    assert_close(ours, theirs)


@standard_promotion
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_layer_makes_what_the_twin_has(case):
    twin = case.twin(case.variables())
    # Haiku makes the state of BatchNorm in training only.
    train = {"is_training": True} if twin.state else twin.call_arguments
    twin = dataclasses.replace(twin, call_arguments=train)
    shapes = lambda trees: jax.tree.map(lambda x: (x.shape, x.dtype), trees)
    made = jax.eval_shape(case.transform(twin).init, KEY, *case.args)
    assert shapes(made) == shapes((twin.params, twin.state))
    assert jax.tree.structure(made) == jax.tree.structure((twin.params, twin.state))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_round_trip(case):
    variables = case.variables()
    before = jax.tree.map(jnp.copy, variables)
    frozen = flax.core.freeze(variables)
    boxed = jax.tree.map(lambda x: nn.Partitioned(x, (None,) * x.ndim), variables)
    for given in (variables, frozen, boxed):
        twin = case.twin(given, name="outer/~/net")
        assert type(twin.params) is type(twin.state) is dict
        other = {"linear": {"w": jnp.ones(1)}, "outer/~/net_1": {"w": jnp.ones(1)}}
        trees = {**twin.params, **other}, {**twin.state, **other}
        assert_identical(twin.to_flax(*trees), variables)
        assert_identical(twin.to_flax(*trees, like=boxed), boxed)
    assert_identical(variables, before)


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_after_a_step_of_training_it_goes_back_as_well(case):
    twin = case.twin(case.variables())
    f = case.transform(twin)

    def loss(params):
        output, state = f.apply(params, twin.state, None, *case.args)
        return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(output)), state

    grads, state = jax.grad(loss, has_aux=True)(twin.params)
    params = jax.tree.map(lambda p, g: p - 0.01 * g, twin.params, grads)
    variables = twin.to_flax(params, state)
    again = case.twin(variables)
    ours, _ = f.apply(params, state, None, *case.args)
    assert_as_equal_as_said(twin, ours, linen_apply(case, variables, *case.args)[0])
    if "LSTM" in type(case.module).__name__:
        assert_identical(again.params["net/linear"]["w"], params["net/linear"]["w"])
        # 1 is added to the bias of the forget gate and taken away.
        bias = params["net/linear"]["b"]
        np.testing.assert_allclose(
            again.params["net/linear"]["b"], bias, rtol=0, atol=2.0**-23
        )
    else:
        assert_identical(again.params, params)
    for name, bundle in again.state.items():
        assert_identical(bundle["average"], state[name]["average"])


@pytest.mark.parametrize("case", OF_A_KERNEL, ids=str)
def test_gradients_are_linens(case):
    variables = case.variables()
    twin = case.twin(variables)
    f = case.transform(twin)
    ours = lambda p: jnp.sum(jnp.sin(f.apply(p, {}, None, *case.args)[0]))
    theirs = lambda v: jnp.sum(jnp.sin(case.module.apply(v, *case.args)))
    grads = twin.to_flax(jax.grad(ours)(twin.params))
    assert_close(grads, jax.grad(theirs)(variables))


# Convolutions, over their configurations.


def convolutions(transposed):
    """Strategy of `(module, input)`."""

    @st.composite
    def draw_case(draw):
        n = draw(st.integers(1, 3), "dimensions")
        each = lambda low, high: st.tuples(*[st.integers(low, high)] * n)
        pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * n)
        padding = st.one_of(
            st.sampled_from(["SAME", "VALID"]), st.integers(0, 2), each(0, 2), pairs
        )
        options = {
            "kernel_size": draw(each(1, 3)),
            "strides": draw(each(1, 3)),
            "padding": draw(padding),
            "use_bias": draw(st.booleans()),
        }
        groups = 1
        if transposed:
            options["transpose_kernel"] = draw(st.booleans())
        else:
            groups = draw(st.sampled_from([1, 2]))
            options |= {
                "feature_group_count": groups,
                "kernel_dilation": draw(each(1, 2)),
            }
        shape = (*[(2,)][: draw(st.integers(0, 1))], *[(d,) for d in draw(each(5, 7))])
        cls = nn.ConvTranspose if transposed else nn.Conv
        shape = (*sum(shape, ()), 2 * groups)
        return Case(cls(4, **options), (array(*shape),))

    return draw_case()


def check_convolution(case):
    variables = case.variables()
    twin = case.twin(variables)
    ours, _ = case.transform(twin).apply(twin.params, {}, None, *case.args)
    assert_identical(ours, case.module.apply(variables, *case.args))
    assert_identical(twin.to_flax(twin.params), variables)


# Each input is drawn by JAX, which takes long on a busy machine.
few = hypothesis.settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


@pytest.mark.weekly
@few
@hypothesis.given(convolutions(transposed=False))
def test_any_convolution(case):
    check_convolution(case)


@pytest.mark.weekly
@few
@hypothesis.given(convolutions(transposed=True))
def test_any_transposed_convolution(case):
    check_convolution(case)


GRID = list(itertools.product([1, 2], ["SAME", ((1, 2), (0, 1))], [1, 2], [1, 2]))


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), GRID)
def test_convolutions_of_images(stride, padding, dilation, groups):
    options = {"strides": stride, "kernel_dilation": dilation, "padding": padding}
    module = nn.Conv(4, (3, 2), feature_group_count=groups, **options)
    check_convolution(Case(module))


# BatchNorm.


def train(case, variables, steps):
    """Yields `(ours, theirs)`: output, mean and variance after each step."""
    twin = case.twin(variables)
    f = case.transform(twin)
    state = twin.state
    for step in range(steps):
        x = array(*X.shape, seed=step) * 2.0 + 1.0
        ours, state = f.apply(twin.params, state, None, x)
        theirs, variables = linen_apply(case, variables, x)
        back = twin.to_flax(twin.params, state)
        yield (ours, back), (theirs, variables)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("axis", [-1, 1])
def test_training_goes_on_with_the_same_averages(momentum, axis):
    """To the last bit where 1 - momentum is a float32."""
    case = Case(nn.BatchNorm(False, axis=axis, momentum=momentum), ndim=4)
    for ours, theirs in train(case, case.variables(), 5):
        assert_identical(ours, theirs)


@pytest.mark.parametrize("momentum", [0.9, 0.99, 0.999])
def test_training_goes_on_with_averages_within_1e_6(momentum):
    """Linen weighs by float32(1 - momentum), Haiku by 1 - float32(momentum)."""
    case = Case(nn.BatchNorm(False, momentum=momentum), ndim=4)
    for ours, theirs in train(case, case.variables(), 5):
        assert_identical(ours[0], theirs[0])  # by the statistics of the batch
        assert_close(ours[1], theirs[1])


@standard_promotion
@pytest.mark.parametrize("momentum", [0.9, 0.99, 0.999])
def test_in_the_long_run_averages_differ_by_the_rounding_of_momentum(momentum):
    case = Case(nn.BatchNorm(False, momentum=momentum), ndim=4)
    variables = case.variables()
    twin = case.twin(variables)
    f = case.transform(twin)

    def step(carry, i):
        state, variables = carry
        x = X + 0.1 * jnp.sin(i)
        _, state = f.apply(twin.params, state, None, x)
        _, variables = linen_apply(case, variables, x)
        return (state, variables), None

    steps = jnp.arange(2000.0)
    (state, theirs), _ = jax.lax.scan(step, (twin.state, variables), steps)
    ours = twin.to_flax(twin.params, state)
    bound = 2.0**-25 / (1 - momentum) + 1e-6  # as documented, and rounding as usual
    for name, average in theirs["batch_stats"].items():
        mine = ours["batch_stats"][name]
        np.testing.assert_allclose(mine, average, rtol=bound, atol=bound)


def test_training_then_evaluation():
    case = Case(nn.BatchNorm(momentum=0.5), ndim=4)
    variables = case.module.init(KEY, X, use_running_average=True)
    twin = case.twin(variables)
    assert twin.call_arguments == {}
    assert "is_training=not use_running_average" in repr(twin)
    f = hk.transform_with_state(lambda x, training: twin.make()(x, training))
    state = twin.state
    for step in range(3):
        x = array(*X.shape, seed=step)
        _, state = f.apply(twin.params, state, None, x, True)
        _, new = case.module.apply(
            variables, x, use_running_average=False, mutable=["batch_stats"]
        )
        variables = {**variables, **new}
        ours, unchanged = f.apply(twin.params, state, None, X, False)
        assert_identical(unchanged, state)
        theirs = case.module.apply(variables, X, use_running_average=True)
        assert_identical(ours, theirs)


def test_a_state_trained_by_haiku_from_the_start_is_evaluated_alike():
    """While Haiku debiases, linen gets the debiased average, which Haiku uses."""
    case = Case(nn.BatchNorm(True), ndim=4)
    twin = case.twin(case.variables())
    f = hk.transform_with_state(lambda x, training: twin.make()(x, training))
    params, state = f.init(KEY, X, True)
    for step in range(3):
        _, state = f.apply(params, state, None, array(*X.shape, seed=step), True)
    variables = twin.to_flax(params, state)
    ours, _ = f.apply(params, state, None, X, False)
    assert_identical(ours, case.module.apply(variables, X))


def test_statistics_across_replicas():
    module = nn.BatchNorm(False, axis_name="batch", momentum=0.5)
    variables = Case(nn.BatchNorm(False), ndim=4).variables()
    twin = migrate.twin(module, variables, name="net", ndim=4)
    assert twin.arguments["cross_replica_axis"] == "batch"
    f = hk.transform_with_state(lambda x: call_layer(twin, x))
    apply = lambda x: f.apply(twin.params, twin.state, None, x)
    x = array(3, *X.shape)
    ours, state = jax.vmap(apply, axis_name="batch")(x)
    flax_apply = lambda x: module.apply(variables, x, mutable=["batch_stats"])
    theirs, new = jax.vmap(flax_apply, axis_name="batch")(x)
    assert_identical(ours, theirs)
    first = jax.tree.map(lambda x: x[0], state)
    stats = jax.tree.map(lambda x: x[0], new)["batch_stats"]
    assert_identical(twin.to_flax(twin.params, first)["batch_stats"], stats)


def test_the_groups_of_replicas_are_handed_on():
    module = nn.BatchNorm(False, axis_name="i", axis_index_groups=[[0, 1], [2, 3]])
    twin = migrate.twin(module, STATEFUL[0].variables(), name="net", ndim=4)
    given = twin.arguments["cross_replica_axis_index_groups"]
    assert given == [[0, 1], [2, 3]]


@standard_promotion
def test_a_step_may_donate_the_state():
    case = Case(nn.BatchNorm(False), ndim=4)
    twin = case.twin(case.variables())
    step = jax.jit(case.transform(twin).apply, donate_argnums=1)
    output, state = step(twin.params, twin.state, None, X)
    assert twin.state["net/~/mean_ema"]["hidden"].is_deleted()
    step(twin.params, state, None, X)


@pytest.mark.parametrize("case", STATEFUL, ids=str)
def test_the_averages_of_haiku(case):
    variables = case.variables()
    twin = case.twin(variables)
    assert set(twin.state) == {"net/~/mean_ema", "net/~/var_ema"}
    for name, bundle in twin.state.items():
        assert list(bundle) == ["counter", "hidden", "average"]
        assert_identical(bundle["hidden"], bundle["average"])
        decay = jnp.float32(case.module.momentum)
        assert 1 - jnp.power(decay, bundle["counter"]) == 1
        key = name.split("/")[-1].split("_")[0]
        statistic = variables["batch_stats"][key]
        assert_identical(bundle["average"].ravel(), statistic.ravel())
    largest = np.nextafter(np.float32(1), np.float32(0))
    assert 1 - jnp.power(largest, bundle["counter"]) == 1


# GroupNorm.


def test_where_linens_fast_variance_is_off_the_twin_is_not():
    case = Case(nn.GroupNorm(2), (X + 100.0,))
    variables = case.variables()
    twin = case.twin(variables)
    ours, _ = case.transform(twin).apply(twin.params, {}, None, *case.args)
    slow = nn.GroupNorm(2, use_fast_variance=False).apply(variables, *case.args)
    fast = case.module.apply(variables, *case.args)
    off = lambda x: float(jnp.max(jnp.abs(x - slow)))
    assert off(ours) < 1e-5 < off(fast)


def test_groups_of_few_values_agree_as_far_as_said():
    """In proportion to the squared mean by the variance; found to be 3e-6 and more."""
    case = Case(nn.GroupNorm(4), (array(300, 8),))
    (x,) = case.args
    variables = case.module.init(KEY, x)
    twin = case.twin(variables)
    ours, _ = case.transform(twin).apply(twin.params, {}, None, x)
    off = np.abs(ours - case.module.apply(variables, x)).reshape(300, 4, 2)
    values = np.asarray(x, np.float64).reshape(300, 4, 2)
    ratio = (values**2).mean(-1) / (values.var(-1) + 1e-6)
    assert off.max() > 1e-6
    assert (off / ratio[..., None]).max() < 1e-6


AXES = [None, 0, -1, (0, -1), (-1, 0)]


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_the_groups_of_one_row(axes):
    case = Case(nn.GroupNorm(2, reduction_axes=axes), (array(6),), ndim=1)
    variables = case.variables()
    twin = case.twin(variables)
    f = case.transform(twin)
    ours = lambda x: f.apply(twin.params, {}, None, x)[0]
    theirs = lambda x: case.module.apply(variables, x)
    assert_close(ours(*case.args), theirs(*case.args))
    rows = array(3, 6, seed=1)
    assert_close(jax.vmap(ours)(rows), jax.vmap(theirs)(rows))


# Recurrent layers and attention.


@pytest.mark.parametrize("cls", [nn.LSTMCell, nn.OptimizedLSTMCell])
def test_a_recurrence(cls):
    x = array(5, 2, 6)  # [T, B, D]
    module = cls(4)
    case = Case(module, (CARRY, x[0]), call=call_lstm)
    variables = case.variables()
    twin = case.twin(variables)
    carry, outputs = CARRY, []
    for t in range(5):
        carry, output = module.apply(variables, carry, x[t])
        outputs.append(output)

    def forward(x):
        state = hk.LSTMState(hidden=CARRY[1], cell=CARRY[0])
        return hk.dynamic_unroll(twin.make(), x, state)

    ours, state = hk.transform(forward).apply(twin.params, None, x)
    assert_close(ours, jnp.stack(outputs))
    assert_close((state.cell, state.hidden), carry)


def test_an_unchanged_forget_bias_goes_back_to_the_bit():
    case = Case(nn.LSTMCell(4), (CARRY, array(2, 6)), call=call_lstm)
    variables = case.variables()
    tiny = jnp.array([1e-9, -3e-8, 0.1, 7.3])
    variables["params"]["hf"]["bias"] = tiny
    twin = case.twin(variables)
    assert not jnp.array_equal((tiny - 1) + 1, tiny)
    assert_identical(twin.to_flax(twin.params), variables)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_with_a_mask(causal):
    mask = jnp.tril(jnp.ones([1, 1, 5, 5], bool)) if causal else Q[:1, None, :, :5] > 0
    module = nn.MultiHeadDotProductAttention(2)
    case = Case(module, (Q, Q, Q))
    variables = case.variables()
    twin = case.twin(variables)
    f = hk.transform(lambda mask: twin.make()(Q, Q, Q, mask))
    ours = f.apply(twin.params, None, mask)
    assert_close(ours, module.apply(variables, Q, mask=mask))


def test_an_index_out_of_range_differs():
    case = Case(nn.Embed(5, 3), (jnp.array([5]),))
    variables = case.variables()
    twin = case.twin(variables)
    ours, _ = case.transform(twin).apply(twin.params, {}, None, *case.args)
    assert jnp.all(jnp.isnan(case.module.apply(variables, *case.args)))
    assert_identical(ours[0], variables["params"]["embedding"][4])


# Names, leaves and what the twin says.


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_inside_another_module(case):
    variables = case.variables()
    twin = case.twin(variables, name="encoder/~/net")
    flat = case.twin(variables)

    class Encoder(hk.Module):
        def __init__(self):
            super().__init__()
            self.layer = twin.make()

        def __call__(self, *args):
            made = dataclasses.replace(twin, call_arguments=twin.call_arguments)
            object.__setattr__(made, "make", lambda: self.layer)
            return case.call(made, *args)

    f = hk.transform_with_state(lambda *args: Encoder()(*args))
    ours = f.apply(twin.params, twin.state, None, *case.args)
    theirs = case.transform(flat).apply(flat.params, flat.state, None, *case.args)
    assert_identical(ours[0], theirs[0])
    renamed = lambda tree: {k.removeprefix("encoder/~/"): v for k, v in tree.items()}
    assert_identical(renamed(ours[1]), theirs[1])
    assert_identical(renamed(twin.params), flat.params)


def test_a_numbered_name():
    case = CASES[0]
    twin = case.twin(case.variables(), name="linear_1")
    forward = lambda x: (hk.Linear(3)(x), call_layer(twin, x))
    params = hk.transform(forward).init(KEY, X)
    assert set(params) == {"linear", "linear_1"}


@pytest.mark.parametrize(
    "module",
    [nn.Dense(5), nn.Conv(5, (3, 3)), nn.LayerNorm(), nn.RMSNorm()],
    ids=class_name,
)
def test_leaves_that_fit_are_handed_over_untouched(module):
    variables = Case(module).variables()
    twin = migrate.twin(module, variables, name="net")
    ids = lambda tree: {id(x) for x in jax.tree.leaves(tree)}
    assert ids(twin.params) == ids(variables) == ids(twin.to_flax(twin.params))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numpy_leaves_stay_numpys(case):
    variables = jax.tree.map(np.asarray, case.variables())
    twin = case.twin(variables)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(twin.params))
    assert_identical(twin.to_flax(twin.params, twin.state), variables)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("case", OF_A_KERNEL[:1] + OF_A_KERNEL[3:5], ids=str)
def test_half_precision(case, dtype):
    cast = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)
    variables, args = cast(case.variables()), cast(case.args)
    twin = case.twin(variables)
    assert {x.dtype for x in jax.tree.leaves(twin.params)} == {jnp.dtype(dtype)}
    ours, _ = case.transform(twin).apply(twin.params, {}, None, *args)
    assert_identical(ours, case.module.apply(variables, *args))


def test_it_can_be_traced():
    case = Case(nn.BatchNorm(False), ndim=4)
    variables = case.variables()

    def trees(variables):
        twin = case.twin(variables)
        return twin.params, twin.state

    twin = case.twin(variables)
    assert_identical(jax.jit(trees)(variables), (twin.params, twin.state))


def test_empty_collections_survive():
    module = nn.LayerNorm(use_scale=False, use_bias=False)
    for variables in ({}, {"params": {}}, {"params": {}, "batch_stats": {}}):
        twin = migrate.twin(module, variables, name="net")
        assert twin.params == twin.state == {}
        assert twin.to_flax({}, {}) == twin.to_flax(None) == variables


def test_it_says_what_to_write():
    mask = array(3, 3, 6, 4)
    case = Case(nn.Conv(4, (3, 3), padding=1, mask=mask, precision="highest"))
    twin = case.twin(case.variables(), name="encoder/~/conv")
    assert repr(twin) == (
        "hk.ConvND(num_spatial_dims=2, output_channels=4, kernel_shape=(3, 3), "
        "stride=(1, 1), padding=[(1, 1), (1, 1)], data_format='channels_last', "
        "mask=<float32[3, 3, 6, 4]>, rate=(1, 1), feature_group_count=1, "
        "with_bias=True, name='conv')(x, precision='highest')"
    )
    assert twin.layer is hk.ConvND
    assert twin.call_arguments == {"precision": "highest"}
    expected = {
        nn.Dense(5): "hk.Linear(output_size=5, with_bias=True, name='net')(x)",
        nn.GroupNorm(3): "hk.GroupNorm(groups=3, eps=1e-06, create_scale=True, "
        "create_offset=True, data_format='channels_last', name='net')(x)",
        nn.BatchNorm(True): "hk.BatchNorm(eps=1e-05, create_scale=True, "
        "create_offset=True, decay_rate=0.99, data_format='channels_last', "
        "name='net')(x, is_training=False)",
    }
    for module, text in expected.items():
        case = Case(module, ndim=4)
        assert repr(case.twin(case.variables())) == text


def test_what_it_says_can_be_run():
    for case in CASES:
        twin = case.twin(case.variables())
        if "mask=<" in repr(twin):
            continue
        text = repr(twin).partition(")(")[0] + ")"
        built = hk.transform(
            lambda text=text: type(eval(text, {"hk": hk, "Precision": 0}))
        )
        assert built.apply({}, None) is twin.layer


# What is refused.


class Mine(nn.Dense):
    pass


def quiet(x):
    return x


REFUSED = {
    nn.Dense(4, dtype=jnp.bfloat16): ("dtype=bfloat16", "hk.mixed_precision"),
    nn.Dense(4, dot_general=quiet): ("Dense(dot_general=quiet)", "None"),
    nn.Dense(4, promote_dtype=quiet): ("promote_dtype=quiet", "promote_dtype"),
    nn.Conv(4, (3, 3), padding="CIRCULAR"): ("padding='CIRCULAR'", "'SAME'"),
    nn.Conv(4, (3, 3), padding="REFLECT"): ("padding='REFLECT'", "'VALID'"),
    nn.Conv(4, (3, 3), padding="CAUSAL"): ("padding='CAUSAL'", "'VALID'"),
    nn.Conv(4, (3, 3), input_dilation=(1, 2)): ("input_dilation=(1, 2)", "to be 1"),
    nn.Conv(4, (3, 3), conv_general_dilated=quiet): ("conv_general_dilated=", "None"),
    nn.ConvTranspose(4, (3,), padding="CIRCULAR"): ("='CIRCULAR'", "'SAME'"),
    nn.ConvTranspose(4, (3,), padding="CAUSAL"): ("='CAUSAL'", "'SAME'"),
    nn.ConvTranspose(4, (3,), kernel_dilation=(2,)): ("kernel_dilation=(2,)", "be 1"),
    nn.ConvTranspose(4, (3,), preferred_element_type=jnp.float32): (
        "preferred_element_type=float32",
        "None",
    ),
    nn.Embed(5, 3, dtype=jnp.bfloat16): ("Embed(dtype=bfloat16)", "of the leaves"),
    nn.LayerNorm(axis_name="i"): ("LayerNorm(axis_name='i')", "None"),
    nn.LayerNorm(force_float32_reductions=False): ("force_float32_reductions", "True"),
    nn.RMSNorm(axis_name="i"): ("RMSNorm(axis_name='i')", "None"),
    nn.GroupNorm(3, axis_name="i"): ("GroupNorm(axis_name='i')", "None"),
    nn.GroupNorm(3, reduction_axes=(-2, -1)): ("reduction_axes=(-2, -1)", "the front"),
    nn.GroupNorm(None, 2, use_scale=False, use_bias=False): (
        "group_size=2",
        "channels",
    ),
    nn.BatchNorm(momentum=1.0): ("momentum=1.0", "below 1"),
    nn.BatchNorm(momentum=1 - 1e-9): ("momentum=0.999999999", "below 1"),
    nn.BatchNorm(momentum=-0.1): ("momentum=-0.1", "at least 0"),
    nn.LSTMCell(4, gate_fn=nn.hard_sigmoid): ("gate_fn=hard_sigmoid", "sigmoid"),
    nn.OptimizedLSTMCell(4, activation_fn=nn.relu): ("activation_fn=relu", "tanh"),
    nn.LSTMCell(4, carry_init=nn.initializers.ones): ("carry_init=ones", "carry_init"),
    nn.GRUCell(4): ("GRUCell", "r * (W h + b)", "W (r * h)"),
    nn.MultiHeadAttention(2, normalize_qk=True): ("normalize_qk=True", "False"),
    nn.MultiHeadAttention(2, decode=True): ("decode=True", "False"),
    nn.MultiHeadAttention(2, dropout_rate=0.1): ("dropout_rate=0.1", "deterministic"),
    nn.MultiHeadAttention(2, precision="highest"): ("precision='highest'", "None"),
    nn.MultiHeadAttention(2, attention_fn=quiet): ("attention_fn=quiet", "attention"),
    nn.MultiHeadAttention(2, force_fp32_for_softmax=True): ("softmax=True", "False"),
    nn.MGUCell(4): ("MGUCell", "BatchNorm, Conv, ConvTranspose, Dense"),
    nn.SimpleCell(4): ("SimpleCell", "LSTMCell"),
    nn.DenseGeneral(4): ("flax.linen.linear.DenseGeneral", "Dense"),
    nn.ConvLocal(4, (3,)): ("ConvLocal", "Conv"),
    nn.InstanceNorm(): ("InstanceNorm", "LayerNorm"),
    nn.SelfAttention(2): ("SelfAttention", "MultiHeadDotProductAttention"),
    nn.Dropout(0.5): ("Dropout", "Dense"),
    Mine(4): ("test_twins.Mine", "flax.linen's own"),
}


@pytest.mark.parametrize("module", REFUSED, ids=[*map("-".join, REFUSED.values())])
def test_what_has_no_twin_is_refused_by_name(module):
    inputs = {
        nn.Dense: (X,),
        nn.Embed: (jnp.array([1]),),
        nn.LSTMCell: (CARRY, array(2, 6)),
        nn.OptimizedLSTMCell: (CARRY, array(2, 6)),
        nn.MultiHeadAttention: (Q,),
    }
    args = inputs.get(type(module))
    plain = {nn.Dense: nn.Dense(4), nn.Embed: nn.Embed(5, 3)}.get(type(module), module)
    variables = plain.init(KEY, *args) if args and plain is not module else {}
    with pytest.raises(migrate.TwinError) as caught:
        migrate.twin(module, variables, name="net", ndim=4)
    message = str(caught.value)
    for part in (
        *REFUSED[module],
        "has no exact twin in Haiku, which would need",
        f"hk_bridge.FlaxModule({type(module).__name__}(...), variables=variables)",
    ):
        assert part in message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("module", "dtype", "expected"),
    [
        *itertools.product(
            [nn.LayerNorm(), nn.RMSNorm(), nn.GroupNorm(3), nn.BatchNorm(True)],
            [jnp.bfloat16, jnp.complex64],
            ["float32 ones, as linen takes the statistics in float32, of |x|^2"],
        ),
        (
            nn.MultiHeadAttention(2),
            jnp.float16,
            "float32 or bfloat16 ones, as Haiku masks with -1e30",
        ),
    ],
)
def test_leaves_of_a_dtype_in_which_haiku_differs_are_refused(module, dtype, expected):
    variables = module.init(KEY, X)
    cast = jax.tree.map(lambda x: x.astype(dtype), variables)
    with pytest.raises(migrate.TwinError) as caught:
        migrate.twin(module, cast, name="net", ndim=4)
    cls = class_name(module)
    assert str(caught.value) == (
        f"{cls} with {jnp.dtype(dtype)} leaves has no exact twin in Haiku, which would "
        f"need {expected}. To keep the Flax layer, write "
        f"hk_bridge.FlaxModule({cls}(...), variables=variables)."
    )


@pytest.mark.parametrize(
    "module",
    [nn.BatchNorm(True), nn.LayerNorm(feature_axes=3)],
    ids=class_name,
)
def test_the_number_of_axes_is_asked_for(module):
    variables = module.init(KEY, X)
    expected = rf"twin of {type(module).__name__} .* Write twin\(..., ndim=4\)"
    with pytest.raises(migrate.TwinError, match=expected):
        migrate.twin(module, variables, name="net")


MISFITS = {
    "missing": ({"params": {"bias": X}}, "'kernel': they lack this leaf"),
    "empty": ({}, "'kernel': they lack this leaf"),
    "unexpected": (
        {"params": {"kernel": X, "bias": X, "scale": X}},
        "'scale': they hold a leaf that the layer has not",
    ),
    "collection": (
        {"params": {"kernel": X, "bias": X}, "batch_stats": {"mean": X}},
        "collection 'batch_stats', path 'mean'",
    ),
    "no_array": ({"params": {"kernel": X, "bias": (1, 2)}}, r"\(1, 2\), which is no"),
    "no_collection": ({"kernel": X, "bias": X}, "level of collections on top"),
    "no_dict": ([X], "dict of collections"),
}


@pytest.mark.parametrize("case", MISFITS.values(), ids=MISFITS)
def test_variables_that_do_not_fit(case):
    variables, expected = case
    with pytest.raises(hk_bridge.VariablesError, match=expected):
        migrate.twin(nn.Dense(4), variables, name="net")


def test_a_bias_that_the_configuration_has_not():
    variables = nn.Dense(4).init(KEY, X)
    with pytest.raises(hk_bridge.VariablesError, match="'bias': they hold a leaf"):
        migrate.twin(nn.Dense(4, use_bias=False), variables, name="net")


TRIPLE = (Q, K, V)
STEP = (CARRY, array(2, 6))
OTHERS = {
    "Dense": (nn.Dense(5), nn.Dense(4), (X,), "params/bias [4] [5]"),
    "Dense of a vector": (nn.Dense(4), {"kernel": (4,), "bias": (4,)}, None,
                          "params/kernel [4] [1, 4]"),
    "Conv": (nn.Conv(4, (3, 3)), nn.Conv(4, (3, 2)), (X,),
             "params/kernel [3, 2, 6, 4] [3, 3, 6, 4]"),
    "Conv of rank 1": (nn.Conv(4, (3,)), nn.Conv(4, (3, 3)), (X,),
                       "params/kernel [3, 3, 6, 4] [3, 6, 4]"),
    "ConvTranspose": (nn.ConvTranspose(6, (3, 2), transpose_kernel=True),
                      nn.ConvTranspose(4, (3, 2)), (X,),
                      "params/bias [4] [6]"),
    "Embed": (nn.Embed(5, 3), nn.Embed(4, 3), (jnp.array([1]),),
              "params/embedding [4, 3] [5, 3]"),
    "LayerNorm": (nn.LayerNorm(feature_axes=(2, 3)), nn.LayerNorm(), (X,),
                  "params/bias [6] [1, 6]"),
    "RMSNorm": (nn.RMSNorm(), nn.RMSNorm(feature_axes=(2, 3)), (X,),
                "params/scale [9, 6] [6]"),
    "GroupNorm": (nn.GroupNorm(3), {"scale": (6,), "bias": (3,)}, None,
                  "params/bias [3] [6]"),
    "BatchNorm": (nn.BatchNorm(True, axis=(1, 2)), nn.BatchNorm(True), (X,),
                  "batch_stats/mean [6] [1, 6]"),
    "LSTMCell": (nn.LSTMCell(3), nn.LSTMCell(4), STEP, "params/hf/bias [4] [3]"),
    "OptimizedLSTMCell": (nn.OptimizedLSTMCell(5), nn.OptimizedLSTMCell(4), STEP,
                          "params/hf/bias [4] [5]"),
    "heads": (nn.MultiHeadDotProductAttention(2), nn.MultiHeadDotProductAttention(3),
              TRIPLE, "params/key/bias [3, 2] [2, 3]"),
    "qkv_features": (nn.MultiHeadAttention(2, qkv_features=8), nn.MultiHeadAttention(2),
                     TRIPLE, "params/key/bias [2, 3] [2, 4]"),
    "out_features": (nn.MultiHeadAttention(2, out_features=8), nn.MultiHeadAttention(2),
                     TRIPLE, "params/out/bias [6] [8]"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_leaves_of_another_configuration(case):
    module, other, args, expected = case
    if args is None:
        variables = {"params": {key: jnp.ones(shape) for key, shape in other.items()}}
    else:
        variables = other.init(KEY, *args)
    key, given, makes = expected.replace(" [", "|[").split("|")
    with pytest.raises(hk_bridge.VariablesError) as caught:
        migrate.twin(module, variables, name="net", ndim=4)
    collection, _, path = key.partition("/")
    assert str(caught.value) == (
        f"The variables given for {class_name(module)} do not fit at collection "
        f"{collection!r}, path {path!r}: they hold shape {given}, where the layer "
        f"makes {makes}. Give those that init returns for a layer of this "
        "configuration."
    )


def test_sizes_that_linen_refuses():
    variables = nn.GroupNorm(5).init(KEY, array(2, 10))
    with pytest.raises(hk_bridge.VariablesError) as caught:
        migrate.twin(nn.GroupNorm(4), variables, name="net")
    assert str(caught.value) == (
        "The variables given for GroupNorm do not fit. They hold params/bias [10], "
        "params/scale [10], and for an input of such sizes linen raises ValueError: "
        "Number of groups (4) does not divide the number of channels (10). Give those "
        "that init returns for a layer of this configuration."
    )


@pytest.mark.parametrize("ndim", [0, -1, "4", 2.0, 1])
@pytest.mark.parametrize(
    ("module", "least"),
    [
        (nn.BatchNorm(True, axis=1), 2),
        (nn.LayerNorm(feature_axes=(-2, -1)), 2),
        (nn.RMSNorm(reduction_axes=(1, 2)), 3),
        (nn.GroupNorm(3, reduction_axes=(2, 3)), 4),
    ],
    ids=class_name,
)
def test_a_number_of_axes_that_the_input_cannot_have(module, least, ndim):
    variables = module.init(KEY, X)
    with pytest.raises(migrate.TwinError) as caught:
        migrate.twin(module, variables, name="net", ndim=ndim)
    assert str(caught.value) == (
        f"An input of this {class_name(module)} has at least {least} axes, but got "
        f"ndim={ndim!r}. Write twin(..., ndim=4) for an input [N, H, W, C]."
    )


def test_trees_without_the_layer():
    twin = STATEFUL[0].twin(STATEFUL[0].variables())
    lacks = lambda which, key: rf"without {which}\['{key}.* twin.{which}"
    with pytest.raises(hk_bridge.VariablesError, match=lacks("params", "net'")):
        twin.to_flax({"other": {}}, twin.state)
    with pytest.raises(
        hk_bridge.VariablesError, match=lacks("state", "net/~/mean_ema")
    ):
        twin.to_flax(twin.params)


EXAMPLE = "twin(nn.Dense(3), variables, name=...), for example"


@pytest.mark.parametrize(
    ("value", "given", "line"),
    [
        (
            nn.Dense,
            "the class Dense",
            "twin(Dense(...), variables, name=...) to build it first",
        ),
        (hk.Linear, "the class Linear", EXAMPLE),
        (quiet, "quiet", EXAMPLE),
        (None, "None", EXAMPLE),
        (3, "3", EXAMPLE),
    ],
)
def test_no_linen_module(value, given, line):
    with pytest.raises(hk_bridge.ModuleTypeError) as caught:
        migrate.twin(value, {}, name="net")
    assert str(caught.value) == (
        f"twin needs a flax.linen.Module instance, but got {given}. Write {line}."
    )


@pytest.mark.parametrize("name", ["", "/net", "net/"])
def test_a_name_that_haiku_cannot_have(name):
    with pytest.raises(ValueError, match="name= must be the module's full Haiku name"):
        migrate.twin(nn.Dense(4), nn.Dense(4).init(KEY, X), name=name)


def test_the_public_names():
    assert migrate.__all__ == sorted(migrate.__all__)
    assert all(">>> " in getattr(migrate, name).__doc__ for name in migrate.__all__)
