"""Each message says what was given, where, what was expected and the line to write."""

import functools

from catalogue import Norm
from catalogue import array
from flax import nnx
import flax.errors
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule

KEY = jax.random.key(0)
X = array(2, 4)


def message(error):
    """The text of an error with its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def check(kind, forward, *parts, rng=KEY, args=(X,)):
    """That init raises `kind` with every one of `parts` in its message."""
    f = hk.transform_with_state(forward)
    with pytest.raises(kind) as caught:
        f.init(rng, *args)
    for part in parts:
        assert part in message(caught.value)


class Mlp(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 2, rngs=rngs)


GIVEN = {
    "class": (lambda: nn.Dense, "the class Dense", "FlaxModule(Dense(...))"),
    "haiku": (lambda: hk.Linear(3), "the Haiku module Linear", "call it as it is"),
    "haiku_class": (lambda: hk.Linear, "the Haiku module Linear", "call it as it is"),
    "function": (lambda: jnp.sin, "the function sin", "FlaxModule(nn.Dense(3))"),
    "array": (lambda: jnp.ones(3), "ArrayImpl", "FlaxModule(nn.Dense(3))"),
    "numpy": (lambda: np.ones(3), "numpy.ndarray", "FlaxModule(nn.Dense(3))"),
    "none": (lambda: None, "NoneType", "FlaxModule(nn.Dense(3))"),
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_not_a_linen_module(given):
    make, what, line = given
    forward = lambda x: FlaxModule(make())(x)
    expected = "FlaxModule needs a linen or NNX module instance, but got"
    check(hk_bridge.ModuleTypeError, forward, expected, what, line)
    assert issubclass(hk_bridge.ModuleTypeError, TypeError)


def test_a_module_inside_a_flax_parent():
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            f = hk.transform(lambda x: FlaxModule(nn.Dense(3))(x))
            return f.apply(f.init(KEY, x), None, x)

    with pytest.raises(hk_bridge.ModuleTypeError) as caught:
        Outer().init(KEY, X)
    for part in ("Dense", "Outer", "'Dense_0'", "Dense(..., parent=None)", "unbind()"):
        assert part in message(caught.value)


def test_a_submodule_of_a_bound_module():
    class Outer(nn.Module):
        def setup(self):
            self.inner = nn.Dense(3)

        def __call__(self, x):
            return self.inner(x)

    bound = Outer().bind(Outer().init(KEY, X))
    check(
        hk_bridge.ModuleTypeError,
        lambda x: FlaxModule(bound.inner)(x),
        "already a submodule of the Flax module Outer",
        "named 'inner'",
        "module, variables = bound.submodule.unbind()",
    )
    module, variables = bound.inner.unbind()
    f = hk.transform(lambda x: FlaxModule(module, variables=variables)(x))
    assert f.init(None, X)["dense"]["bias"] is variables["params"]["bias"]


def given(variables):
    return lambda x: FlaxModule(Norm(), name="net", variables=variables)(x)


WHERE = ("FlaxModule 'net' (linen Norm)",)
KERNEL = jnp.ones([4, 4])


def test_variables_without_the_level_of_collections():
    check(
        hk_bridge.VariablesError,
        given({"Dense_0": {"kernel": KERNEL}}),
        *WHERE,
        "'Dense_0' on top, where a collection was expected",
        'variables={"params": variables}',
    )


def test_variables_with_the_level_twice():
    check(
        hk_bridge.VariablesError,
        given({"params": {"params": {"Dense_0": {"kernel": KERNEL}}}}),
        *WHERE,
        '{"params": {"params": ...}}',
        'variables=variables["params"]',
    )


@pytest.mark.parametrize("module", [Norm, lambda: nn.remat(Norm)()])
def test_variables_of_a_wrong_shape(module):
    variables = {"params": {"Dense_0": {"kernel": jnp.ones([5, 4])}}}
    check(
        hk_bridge.VariablesError,
        lambda x: FlaxModule(module(), name="net", variables=variables)(x),
        "FlaxModule 'net'",
        "collection 'params', path 'Dense_0/kernel'",
        "they hold float32[5, 4], but the module makes float32[4, 4]",
        "leave the leaf out",
    )


def test_state_of_a_wrong_shape():
    check(
        hk_bridge.VariablesError,
        given({"batch_stats": {"BatchNorm_0": {"mean": jnp.ones([3])}}}),
        *WHERE,
        "collection 'batch_stats', path 'BatchNorm_0/mean'",
        "they hold float32[3], but the module makes float32[4]",
    )


def test_a_leaf_that_is_a_tree_of_wrong_shapes():
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * self.param("w", lambda _: {1.5: jnp.ones([]), 2.5: 1.0})[1.5]

    variables = {"params": {"w": {1.5: jnp.ones([3]), 2.5: 1.0}}}
    check(
        hk_bridge.VariablesError,
        lambda x: FlaxModule(Pair(), name="net", variables=variables)(x),
        "collection 'params', path 'w'",
        "they hold dict of float32[3], float, but the module makes "
        "dict of float32[], float",
    )


@pytest.mark.parametrize(
    ("collection", "leaf"), [("params", "bias"), ("batch_stats", "mean")]
)
@pytest.mark.parametrize("deeper", [True, False])
def test_variables_of_another_structure(collection, leaf, deeper):
    layer = {leaf: {"a": jnp.ones([3])}} if deeper else jnp.ones([3])
    held, made = ("a dict", "float32[4]") if deeper else ("float32[3]", "a dict")
    where = f"BatchNorm_0/{leaf}" if deeper else "BatchNorm_0"
    check(
        hk_bridge.VariablesError,
        given({collection: {"BatchNorm_0": layer}}),
        *WHERE,
        f"collection '{collection}', path '{where}'",
        f"they hold {held}, but the module makes {made}",
    )


def test_variables_that_are_shapes():
    check(
        hk_bridge.VariablesError,
        given(jax.eval_shape(Norm().init, KEY, X)),
        *WHERE,
        "jax.ShapeDtypeStruct at collection 'batch_stats', path 'BatchNorm_0/mean'",
        "Give arrays",
    )


@pytest.mark.parametrize("variables", [3, [KERNEL], {"params": KERNEL}])
def test_variables_of_a_wrong_form(variables):
    check(
        hk_bridge.VariablesError,
        given(variables),
        "must be a dict",
        '{"params": {...}}',
    )


def test_state_under_a_plain_transform():
    f = hk.transform(lambda x: FlaxModule(Norm(), name="net")(x))
    with pytest.raises(ValueError, match="net") as caught:
        f.init(KEY, X)
    assert type(caught.value).__name__ == "NonEmptyStateError"
    for part in (
        *WHERE,
        "'batch_stats'",
        "'BatchNorm_0/mean'",
        "hk.transform_with_state(f)",
    ):
        assert part in message(caught.value)


def test_state_under_a_plain_transform_after_init():
    params, _ = hk_bridge.to_haiku(Norm().init(KEY, X), name="net")
    f = hk.transform(lambda x: FlaxModule(Norm(), name="net")(x, train=False))
    with pytest.raises(flax.errors.ScopeCollectionNotFound) as caught:
        f.apply(params, None, X)
    for part in (
        *WHERE,
        "collection 'batch_stats', path 'BatchNorm_0/mean'",
        "state['net/batch_stats/BatchNorm_0']['mean']",
        "hk.transform_with_state(f)",
    ):
        assert part in message(caught.value)


def test_a_plain_transform_inside_one_with_state_is_told_apart():
    inner = hk.transform(lambda x: FlaxModule(nn.Dense(4), name="inner")(x))

    def forward(x):
        params = hk.lift(inner.init, name="lifted")(hk.next_rng_key(), x)
        return FlaxModule(Norm(), name="net")(inner.apply(params, None, x))

    params, state = hk.transform_with_state(forward).init(KEY, X)
    assert sorted(state) == ["net/batch_stats/BatchNorm_0"]
    assert "lifted/inner" in params


@pytest.mark.parametrize("lifted", [False, True])
def test_dropout_without_a_key(lifted):
    dropout = (nn.remat(nn.Dropout) if lifted else nn.Dropout)(0.5, deterministic=False)
    f = hk.transform(lambda x: FlaxModule(dropout, name="net")(x))
    params = f.init(KEY, X)
    with pytest.raises(flax.errors.InvalidRngError) as caught:
        f.apply(params, None, X)
    for part in (
        'needs PRNG for "dropout"',
        "No Haiku key was at hand",
        "f.apply(params, key, ...)",
        "net(..., rngs={stream: key})",
        "FlaxModule 'net'",
    ):
        assert part in message(caught.value)


def test_a_stream_that_given_rngs_lack_is_flaxs_error_alone():
    f = hk.transform(
        lambda x: FlaxModule(nn.Dropout(0.5, deterministic=False))(
            x, rngs={"noise": KEY}
        )
    )
    with pytest.raises(flax.errors.InvalidRngError) as caught:
        f.apply({}, KEY, X)
    assert "Haiku key" not in message(caught.value)


def test_init_without_a_key():
    check(
        flax.errors.InvalidRngError,
        lambda x: FlaxModule(nn.Dense(2), name="net")(x),
        'needs PRNG for "params"',
        "No Haiku key was at hand",
        "params['net']['kernel']",
        rng=None,
    )


def test_outside_a_transform():
    with pytest.raises(
        ValueError, match=r"must be initialized inside an `hk\.transform`"
    ):
        FlaxModule(nn.Dense(2))


@pytest.mark.parametrize("lifted", [False, True])
@pytest.mark.parametrize("missing", ["leaf", "module", "all"])
def test_loaded_params_that_lack_some(missing, lifted):
    f = hk.transform_with_state(
        lambda x: FlaxModule((nn.remat(Norm) if lifted else Norm)(), name="net")(x)
    )
    params, state = f.init(KEY, X)
    if missing == "leaf":
        del params["net/Dense_0"]["kernel"]
    elif missing == "module":
        del params["net/Dense_0"]
    else:
        params = {}
    with pytest.raises(flax.errors.FlaxError) as caught:
        f.apply(params, state, None, X)
    native = (flax.errors.ScopeParamNotFoundError, flax.errors.ScopeCollectionNotFound)
    assert isinstance(caught.value, native)
    assert "FlaxModule 'net'" in message(caught.value)
    if not lifted:
        for part in (
            "params['net/Dense_0']['kernel']",
            "hk_bridge.to_haiku(variables, name=",
        ):
            assert part in message(caught.value)


def test_loaded_params_of_a_wrong_shape():
    f = hk.transform_with_state(lambda x: FlaxModule(Norm(), name="net")(x))
    params, state = f.init(KEY, X)
    params["net/Dense_0"]["kernel"] = jnp.ones([5, 4])
    with pytest.raises(flax.errors.ScopeParamShapeError) as caught:
        f.apply(params, state, None, X)
    for part in ("(5, 4)", "(4, 4)", "params['net/Dense_0']['kernel']", *WHERE):
        assert part in message(caught.value)


def test_writing_what_may_not_change():
    f = hk.transform_with_state(
        lambda x: FlaxModule(Norm(), name="net")(x, mutable=False)
    )
    params, state = f.init(KEY, X)
    with pytest.raises(flax.errors.ModifyScopeVariableError) as caught:
        f.apply(params, state, None, X)
    for part in (
        "state['net/batch_stats/BatchNorm_0']['mean']",
        "Add 'batch_stats'",
        *WHERE,
    ):
        assert part in message(caught.value)


# What Flax raises before a module runs.


class NoCall(nn.Module):
    def other(self):
        return 1


class BadPostInit(nn.Module):
    def __post_init__(self):
        pass


BAD = {
    "no_call": (NoCall, (), {}),
    "no_such_method": (NoCall, (), {"method": "nothing"}),
    "method_is_no_method": (lambda: nn.Dense(3), (X,), {"method": "features"}),
    "method_of_a_wrong_type": (NoCall, (), {"method": 3}),
    "method_without_arguments": (NoCall, (), {"method": lambda: 1}),
    "post_init": (BadPostInit, (), {}),
    "bare_rngs": (lambda: nn.Dense(3), (X,), {"rngs": 3}),
    "rngs_of_a_wrong_shape": (lambda: nn.Dense(3), (X,), {"rngs": jnp.ones(5)}),
    "rngs_of_a_wrong_type": (lambda: nn.Dense(3), (X,), {"rngs": {"params": 3}}),
    "rngs_with_a_wrong_name": (lambda: nn.Dense(3), (X,), {"rngs": {3: KEY}}),
    "mutable": (lambda: nn.Dense(3), (X,), {"mutable": 3}),
    "arguments": (lambda: nn.Dense(3), (), {}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("phase", ["init", "apply"])
def test_flaxs_errors_keep_type_and_text(bad, phase):
    make, args, options = bad
    rest = {k: v for k, v in options.items() if k != "rngs"}

    def native_call():
        if phase == "init":
            return make().init(options.get("rngs", KEY), *args, **rest)
        return make().apply({"params": {}}, *args, **options)

    with pytest.raises(Exception) as native:  # noqa: PT011
        native_call()

    f = hk.transform_with_state(
        lambda: FlaxModule(make(), name="net")(*args, **options)
    )
    bridged_call = f.init if phase == "init" else functools.partial(f.apply, {}, {})
    with pytest.raises(type(native.value)) as ours:
        bridged_call(KEY)
    assert type(ours.value) is type(native.value)
    assert str(ours.value) == str(native.value)
    assert "FlaxModule 'net'" in message(ours.value)


def test_haikus_errors_keep_type_and_text():
    f = hk.transform(lambda x: jax.vmap(FlaxModule(nn.Dense(2), name="net"))(x))
    before = hk.experimental.check_jax_usage(True)
    try:
        with pytest.raises(ValueError, match="Haiku overloaded transform") as caught:
            f.init(KEY, X)
    finally:
        hk.experimental.check_jax_usage(before)
    assert type(caught.value).__name__ == "JaxUsageError"


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (
            lambda: hk_bridge.nn.RNN(hk_bridge.nn.LSTMCell(3)),
            "Its field cell is a Haiku module, hk_bridge.nn.LSTMCell. Where Flax is to "
            "run a submodule, write one of Flax: cell=flax.linen.LSTMCell(...).",
        ),
        (
            lambda: hk_bridge.FlaxModule(nn.WeightNorm(hk.Linear(3))),
            "Its field layer_instance is a Haiku module, haiku._src.basic.Linear. "
            "Where Flax is to run a submodule, write one of Flax.",
        ),
    ],
)
def test_a_haiku_module_where_flax_wants_its_own(make, note):
    with pytest.raises(AttributeError) as error:
        hk.transform(lambda: make()(jnp.ones([2, 4, 3]))).init(KEY)
    assert note in error.value.__notes__


def test_both_sizes_of_groups():
    check(
        ValueError,
        lambda x: hk_bridge.nn.GroupNorm(num_groups=2, group_size=2)(x),
        "both num_groups=2 and group_size=2",
        "GroupNorm(num_groups=2)",
        "GroupNorm(group_size=2)",
    )
    check(
        ValueError,
        lambda x: hk_bridge.nn.GroupNorm(num_groups=32, group_size=2)(x),
        "both num_groups=32 and group_size=2",
    )
    check(
        ValueError,
        lambda x: hk_bridge.nn.GroupNorm(num_groups=None)(x),
        "neither num_groups nor group_size",
        "GroupNorm(num_groups=32)",
    )


def test_a_parameter_of_another_shape_is_not_called_missing():
    f = hk.transform(lambda x: FlaxModule(nn.Dense(3), name="net")(x))
    params = f.init(KEY, X)
    with pytest.raises(flax.errors.ScopeParamShapeError) as caught:
        f.apply(params, None, X[:, :2])
    assert "params['net']['kernel']" in message(caught.value)
    assert "Give the params" not in message(caught.value)


# What a FlaxModule lacks.


class Autoencoder(nn.Module):
    width: int = 4

    def setup(self):
        self.encoder = nn.Dense(self.width)

    def encode(self, x):
        return self.encoder(x)

    @nn.nowrap
    def helper(self):
        return 1

    def __call__(self, x):
        return self.encode(x)


LACKS = {
    "method": (
        lambda x: FlaxModule(Autoencoder()).encode(x),
        "object has no attribute 'encode', which is a method of Autoencoder",
        "Write net(..., method='encode')",
        "hk_bridge.wrap(Autoencoder)(...)",
    ),
    "helper": (lambda x: FlaxModule(Autoencoder()).helper(), "method='helper'"),
    "field": (
        lambda x: FlaxModule(Autoencoder()).width,
        "which is a field of Autoencoder. Write net.module.width.",
    ),
    "submodule": (
        lambda x: FlaxModule(Autoencoder()).encoder(x),
        "Write net(..., method=lambda module, x: module.encoder(x)).",
    ),
    "embed": (
        lambda x: FlaxModule(nn.Embed(3, 4)).attend(x),
        "method of flax.linen.Embed. Write net(..., method='attend')",
        "hk_bridge.nn.Embed(...)",
    ),
    "cell": (
        lambda x: FlaxModule(nn.LSTMCell(4)).initial_state(2),
        "'FlaxModule' object has no attribute 'initial_state'",
        "those of hk_bridge.nn.LSTMCell(...).",
    ),
    "carry": (
        lambda x: FlaxModule(nn.LSTMCell(4)).initialize_carry(KEY, (2, 4)),
        "method of flax.linen.LSTMCell",
    ),
    "nnx": (
        lambda x: FlaxModule(Mlp(nnx.Rngs(0))).linear,
        "which is a field of Mlp. Write net.module.linear.",
    ),
}


@pytest.mark.parametrize("case", LACKS.values(), ids=LACKS)
def test_an_attribute_of_the_flax_module(case):
    forward, *parts = case
    check(AttributeError, forward, *parts)


def test_other_attributes():
    def forward():
        net = FlaxModule(nn.Dense(3))
        assert not hasattr(net, "nothing")
        assert not hasattr(net, "__wrapped__")
        assert getattr(net, "_nothing", 1) == 1
        with pytest.raises(AttributeError) as caught:
            net.nothing  # noqa: B018
        text = "'FlaxModule' object has no attribute 'nothing'"
        assert str(caught.value) == text
        assert caught.value.name == "nothing"
        with pytest.raises(AttributeError, match="'nothing'$"):
            object.__new__(FlaxModule).nothing  # noqa: B018

    hk.transform(forward).init(None)


def test_a_bare_cell_is_unrolled():
    def forward(x):
        cell = FlaxModule(nn.LSTMCell(4))
        state = nn.LSTMCell(4).initialize_carry(KEY, (2, 4))
        return hk.dynamic_unroll(cell, x[None], state)

    parts = (
        "Write hk_bridge.nn.LSTMCell(...), which is an hk.RNNCore",
        "(carry, inputs)",
    )
    check(Exception, forward, *parts)  # a warning here, else a ValueError

    def ours(x):
        cell = hk_bridge.nn.LSTMCell(4)
        return hk.dynamic_unroll(cell, x[None], cell.initial_state(2))[0]

    f = hk.transform(ours)
    assert f.apply(f.init(KEY, X), None, X).shape == (1, 2, 4)


def test_a_haiku_cell_in_a_flax_field():
    forward = lambda x: hk_bridge.nn.RNN(hk_bridge.nn.LSTMCell(4))(x)
    check(AttributeError, forward, "write one of Flax: cell=flax.linen.LSTMCell(...).")


TWO = {
    "linen": lambda name: FlaxModule(nn.Dense(4), name=name),
    "remat": lambda name: FlaxModule(nn.remat(nn.Dense)(4), name=name),
    "nn": lambda name: hk_bridge.nn.Dense(4, name=name),
    "nnx": lambda name: FlaxModule(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), name=name),
    "wrapped": lambda name: hk_bridge.wrap(nnx.Linear)(4, 4, name=name),
}


@pytest.mark.parametrize("make", TWO.values(), ids=TWO)
@pytest.mark.parametrize("wrong", ["missing", "misshapen", "nothing"])
def test_two_bridges_and_one_leaf_that_is_wrong(make, wrong):
    f = hk.transform(lambda x: make("b")(make("a")(x)))
    params = f.init(KEY, X)
    bad = {k: v for k, v in params["b"].items() if k != "kernel"}
    if wrong == "misshapen":
        bad["kernel"] = jnp.ones([5, 2])
    params = {"a": params["a"], **({} if wrong == "nothing" else {"b": bad})}
    with pytest.raises(flax.errors.FlaxError) as caught:
        f.apply(params, None, X)
    assert "params['b']['" in message(caught.value)
    assert "hk_bridge." in message(caught.value)
    assert "'a'" not in message(caught.value)


@pytest.mark.parametrize("kind", [nn.Dropout, nn.remat(nn.Dropout)])
def test_two_bridges_and_one_key_that_is_missing(kind):
    def forward(x):
        net = lambda name: FlaxModule(kind(0.5, deterministic=False), name=name)
        return net("b")(net("a")(x, rngs={"dropout": KEY}))

    with pytest.raises(flax.errors.InvalidRngError) as caught:
        hk.transform(forward).apply({}, None, X)
    assert "FlaxModule 'b'" in message(caught.value)
    assert "FlaxModule 'a'" not in message(caught.value)


def test_an_argument_too_many_has_the_name_that_users_know():
    with pytest.raises(TypeError, match=r"^FlaxModule.__init__\(\) takes 2"):
        hk.transform(lambda: FlaxModule(nn.Dense(3), "net")).init(None)
