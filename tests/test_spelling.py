"""Haiku's names and order of arguments: an error says what is to be written."""

import inspect
import re

from catalogue import array
from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import _spelling

KEY, X = jax.random.key(0), array(2, 4)
IMAGE = array(2, 5, 5, 4)
ours = hk_bridge.nn


def message(kind, forward, x=X):
    """The error that `forward` raises, with its notes."""
    with pytest.raises(kind) as caught:
        hk.transform_with_state(forward).init(KEY, x)
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


NAMES = {
    "with_bias": (lambda: ours.Dense(3, with_bias=False), "write use_bias=False."),
    "w_init": (lambda: ours.Dense(3, w_init=jnp.zeros), "write kernel_init=zeros."),
    "b_init": (lambda: ours.Dense(3, b_init=jnp.zeros), "write bias_init=zeros."),
    "output_size": (lambda: ours.Dense(output_size=3), "write features=3."),
    "channels": (lambda: ours.Conv(output_channels=3), "write features=3."),
    "shape": (lambda: ours.Conv(3, kernel_shape=(3, 3)), "write kernel_size=(3, 3)."),
    "stride": (lambda: ours.Conv(3, (3,), stride=2), "write strides=2."),
    "rate": (lambda: ours.Conv(3, (3,), rate=2), "write kernel_dilation=2."),
    "format": (lambda: ours.Conv(3, (3,), data_format="NCW"), "channels are the last"),
    "scale": (lambda: ours.LayerNorm(create_scale=True), "write use_scale=True."),
    "offset": (lambda: ours.LayerNorm(create_offset=False), "write use_bias=False."),
    "axis": (lambda: ours.LayerNorm(axis=-1), "write reduction_axes=-1."),
    "param_axis": (lambda: ours.LayerNorm(param_axis=-1), "write feature_axes=-1."),
    "eps": (lambda: ours.RMSNorm(eps=1e-5), "write epsilon=1e-05."),
    "decay_rate": (lambda: ours.BatchNorm(decay_rate=0.9), "write momentum=0.9."),
    "replica": (lambda: ours.BatchNorm(cross_replica_axis="i"), "write axis_name='i'."),
    "groups": (lambda: ours.GroupNorm(groups=4), "write num_groups=4."),
    "group_eps": (
        lambda: ours.GroupNorm(num_groups=2, eps=1e-5),
        "write epsilon=1e-05",
    ),
    "vocab_size": (lambda: ours.Embed(vocab_size=3), "write num_embeddings=3."),
    "embed_dim": (lambda: ours.Embed(3, embed_dim=2), "write features=2."),
    "embed_init": (lambda: ours.Embed(3, 2, w_init=jnp.ones), "write embedding_init="),
    "matrix": (
        lambda: ours.Embed(3, 2, embedding_matrix=X),
        'write variables={"params": {"embedding": embedding_matrix}}.',
    ),
    "hidden": (lambda: ours.LSTMCell(hidden_size=3), "write features=3."),
    "w_h_init": (
        lambda: ours.GRUCell(3, w_h_init=None),
        "write recurrent_kernel_init=",
    ),
    "key_size": (
        lambda: ours.MultiHeadAttention(2, key_size=8),
        "write qkv_features=num_heads * key_size.",
    ),
    "w_init_scale": (
        lambda: ours.MultiHeadAttention(2, w_init_scale=2.0),
        "write kernel_init=hk.initializers.VarianceScaling(w_init_scale).",
    ),
    "subclass": (
        lambda: type("Sub", (ours.Dense,), {})(3, with_bias=False),
        "write use_bias=False.",
    ),
    "flax_subclass": (
        lambda: hk_bridge.wrap(type("Sub", (nn.Dense,), {}))(3, with_bias=False),
        "write use_bias=False.",
    ),
}


@pytest.mark.parametrize(("make", "line"), NAMES.values(), ids=NAMES)
def test_an_argument_by_haikus_name(make, line):
    text = message(TypeError, lambda x: make())
    assert line in text
    assert re.search(r"Haiku's \w+=", text)


CALLS = {
    "is_training": (
        lambda x: ours.BatchNorm()(x, is_training=True),
        "Haiku's is_training=True: write use_running_average=not is_training.",
    ),
    "of_flax_module": (
        lambda x: hk_bridge.FlaxModule(nn.BatchNorm())(x, is_training=True),
        "write use_running_average=not is_training.",
    ),
    "query": (
        lambda x: ours.MultiHeadAttention(2)(query=x, key=x, value=x),
        "write inputs_q=float32[2,4].",
    ),
    "inputs": (lambda x: ours.LayerNorm()(inputs=x), "write x=float32[2,4]."),
    "scale": (
        lambda x: ours.LayerNorm()(x, scale=x),
        "it is a parameter: leave it out",
    ),
    "precision": (
        lambda x: ours.Dense(3)(x, precision=None),
        "it is an argument of the constructor",
    ),
}


@pytest.mark.parametrize(("forward", "line"), CALLS.values(), ids=CALLS)
def test_an_argument_of_a_call_by_haikus_name(forward, line):
    text = message(TypeError, forward)
    assert "unexpected keyword argument" in text
    assert line in text


def test_other_errors_are_left_alone():
    text = message(TypeError, lambda x: ours.Dense(3, features=3, use_bias="a"))
    assert "Haiku's" not in text
    text = message(TypeError, lambda x: ours.Dense(3, with_biases=3))
    assert "Haiku's" not in text

    @hk_bridge.wrap
    class Net(nn.Module):
        with_bias: bool
        use_bias: bool = True

        def __call__(self, x, is_training):
            raise TypeError("its own")

    text = message(TypeError, lambda x: Net(with_bias=False)(x, is_training=True))
    assert text.startswith("its own")
    assert "Haiku's" not in text


def test_a_subclass_may_take_haikus_names():
    class Linear(ours.Dense):
        def __init__(self, output_size, with_bias=True, name=None):
            super().__init__(output_size, use_bias=with_bias, name=name)

    f = hk.transform(lambda x: Linear(3, with_bias=False)(x))
    assert list(f.init(KEY, X)["linear"]) == ["kernel"]


def test_a_subclass_of_group_norm_may_too():
    class Norm(ours.GroupNorm):
        def __init__(self, groups, eps=1e-5, name=None):
            super().__init__(num_groups=groups, epsilon=eps, name=name)

    class Plain(ours.GroupNorm):
        pass

    made = lambda x: Norm(2)(x) + Norm(groups=2, eps=1e-5)(x)
    hk.transform(made).init(KEY, X)
    assert "write num_groups=2" in message(TypeError, lambda x: Plain(2))


def test_another_method_has_its_own_arguments():
    def forward(x):
        run = lambda module, x, train: module(x, use_running_average=not train)
        return ours.BatchNorm()(x, True, method=run)

    hk.transform_with_state(forward).init(KEY, X)


# By place.

PLACES = {
    "batch": (
        lambda: ours.BatchNorm(True, True, 0.9),
        "takes no arguments without a name, but got 3",
        "write BatchNorm(use_running_average=True, axis=True, momentum=0.9).",
        "Haiku's create_scale=True: write use_scale=True. Haiku's create_offset=True: "
        "write use_bias=True. Haiku's decay_rate=0.9: write momentum=0.9.",
    ),
    "layer": (
        lambda: ours.LayerNorm(-1, True, True),
        "write LayerNorm(epsilon=-1, dtype=True, param_dtype=True).",
        "Haiku's axis=-1: write reduction_axes=-1.",
    ),
    "rms": (lambda: ours.RMSNorm(-1), "Haiku's axis=-1: write reduction_axes=-1."),
    "instance": (lambda: ours.InstanceNorm(True, True), "write use_bias=True."),
    "group": (lambda: ours.GroupNorm(4), "Haiku's groups=4: write num_groups=4."),
    "conv": (
        lambda: ours.Conv(16, (3, 3), 1, 2),
        "takes 3 arguments without a name, but got 4",
        "write Conv(16, (3, 3), 1, padding=2).",
        "Haiku's rate=2: write kernel_dilation=2.",
    ),
    "transposed": (lambda: ours.ConvTranspose(4, (3,), 1, None), "padding=None"),
    "dense": (
        lambda: ours.Dense(3, True, jnp.zeros),
        "write Dense(3, True, dtype=zeros).",
        "Haiku's w_init=zeros: write kernel_init=zeros.",
    ),
    "attention": (
        lambda: ours.MultiHeadDotProductAttention(8, 64),
        "takes one argument without a name, but got 2",
        "write qkv_features=num_heads * key_size.",
    ),
    "embed": (lambda: ours.Embed(3, 4, X), "write Embed(3, 4, dtype=float32[2,4])."),
}


@pytest.mark.parametrize("case", PLACES.values(), ids=PLACES)
def test_an_argument_in_the_place_of_another(case):
    make, *parts = case
    text = message(TypeError, lambda x: make())
    for part in parts:
        assert part in text


CALLED = {
    "batch": (
        lambda x: ours.BatchNorm()(x, True),
        "hk_bridge.nn.BatchNorm(...) takes one argument without a name, but got 2",
        "Of Flax, write BatchNorm(...)(float32[2,4], use_running_average=True).",
        "Haiku's is_training=True: write use_running_average=not is_training.",
    ),
    "attention": (
        lambda x: ours.MultiHeadAttention(2)(x, x, x, None),
        "takes 3 arguments without a name, but got 4",
    ),
    "layer": (lambda x: ours.LayerNorm()(x, x), "it is a parameter: leave it out"),
}


@pytest.mark.parametrize("case", CALLED.values(), ids=CALLED)
def test_an_argument_of_a_call_in_the_place_of_another(case):
    forward, *parts = case
    text = message(TypeError, forward)
    for part in parts:
        assert part in text


def test_what_both_have_in_one_place_needs_no_name():
    def forward(x):
        x = ours.Conv(3, (2, 2), 1)(x)
        x = ours.Dense(4, False)(x)
        x = ours.MultiHeadAttention(2)(x, x, x)
        x = ours.BatchNorm()(x, use_running_average=False)
        return ours.Dropout(0.5)(x, True)  # Haiku has no such layer

    f = hk.transform_with_state(forward)
    f.init(KEY, IMAGE)
    hk.transform(lambda x: ours.Embed(3, 4)(x)).init(KEY, jnp.ones([2], jnp.int32))


def test_flaxs_own_keep_flaxs_order():
    f = hk.transform_with_state(
        lambda x: hk_bridge.FlaxModule(nn.BatchNorm(False, -1, 0.9))(x)
    )
    f.init(KEY, X)
    f = hk.transform_with_state(lambda x: hk_bridge.FlaxModule(nn.BatchNorm())(x, True))
    f.init(KEY, X)
    f = hk.transform(lambda x: hk_bridge.wrap(nn.LayerNorm)(1e-5)(x))
    f.init(KEY, X)


WINDOWS = {
    "conv": lambda size: ours.Conv(16, size),
    "name": lambda size: ours.Conv(features=16, kernel_size=size),
    "transposed": lambda size: ours.ConvTranspose(16, size),
    "local": lambda size: ours.ConvLocal(16, size),
    "cell": lambda size: ours.ConvLSTMCell(16, size),
}


@pytest.mark.parametrize("make", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("size", [3, np.int64(3)], ids=str)
def test_one_number_for_a_kernel(make, size):
    text = message(TypeError, lambda x: make(size), IMAGE)
    for part in ("got kernel_size=3", "(16, (3,))", "(3, 3) for [N, H, W, C]"):
        assert part in text
    hk.transform(lambda x: make((3,)).module).init(KEY, X)


# Layers by Haiku's name.


@pytest.mark.parametrize("haiku", _spelling.LAYERS)
def test_a_layer_by_haikus_name(haiku):
    assert issubclass(getattr(hk, haiku), hk.Module)
    flax = _spelling.LAYERS[haiku]
    assert flax in ours.__all__
    with pytest.raises(AttributeError) as caught:
        getattr(ours, haiku)
    line = f"Haiku's {haiku} is {flax} here: write hk_bridge.nn.{flax}(...)."
    assert (
        str(caught.value) == f"module 'hk_bridge.nn' has no attribute {haiku!r}. {line}"
    )


OTHERS = {
    "relu": "It is a plain function: write flax.linen.relu.",
    "avg_pool": "It is a plain function: write flax.linen.avg_pool.",
    "Bias": "Haiku's own needs no bridge: write hk.Bias.",
    "DeepRNN": "Haiku's own needs no bridge: write hk.DeepRNN.",
    "MLP": "Haiku's own needs no bridge: write hk.nets.MLP.",
    "Dens": "Did you mean 'Dense'?",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_names(name):
    with pytest.raises(AttributeError, match=re.escape(OTHERS[name])):
        getattr(ours, name)
    with pytest.raises(AttributeError, match="'xyz'$"):
        ours.xyz  # noqa: B018
    assert not hasattr(ours, "__wrapped__")


def test_every_layer_of_haiku_with_another_name_is_listed():
    own = {
        name
        for name, cls in vars(hk).items()
        if isinstance(cls, type) and issubclass(cls, hk.Module)
    }
    no_counterpart = {
        "AvgPool", "BatchApply", "Bias", "DeepRNN", "EMAParamsTree", "Flatten",
        "ExponentialMovingAverage", "IdentityCore", "MaxPool", "Module", "Reshape",
        "RNNCore", "ResetCore", "SNParamsTree", "Deferred",
        *(f"SeparableDepthwiseConv{n}D" for n in "123"),
    }  # fmt: skip
    assert own - set(ours.__all__) - no_counterpart - set(_spelling.LAYERS) == set()


def test_every_argument_of_a_layer_with_a_counterpart_is_known():
    for haiku in [*_spelling.LAYERS, "BatchNorm", "LayerNorm", "GroupNorm", "Embed"]:
        flax = getattr(nn, _spelling.LAYERS.get(haiku, haiku))
        fields = set(inspect.signature(flax).parameters)
        for name in list(inspect.signature(getattr(hk, haiku).__init__).parameters)[1:]:
            known = name in fields or _spelling.line(name, "1", fields)
            assert known, (haiku, name)


def test_nnx():
    net = hk_bridge.wrap(nnx.Linear)
    text = message(TypeError, lambda x: net(4, 3, with_bias=False)(x))
    assert "write use_bias=False." in text
