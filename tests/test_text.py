"""The text of a bridged module: the line that builds it, with shapes for arrays."""

import dataclasses
import functools
from typing import Any

from both_phases import in_haiku
from catalogue import Norm
from catalogue import array
from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge._flax import text as _text

KEY, X = jax.random.key(0), array(2, 4)


class Odd:
    """Nothing to compare with."""

    def __eq__(self, other):
        raise ValueError("not to be compared")

    __hash__ = None

    def __repr__(self):
        return "Odd()"


class Unprintable:
    def __repr__(self):
        raise ValueError("not to be printed")


@dataclasses.dataclass(frozen=True)
class Config:
    table: Any
    width: int = 3


class Holds(nn.Module):
    value: Any = 3

    @nn.compact
    def __call__(self, x):
        return Inside(self.value, name="inside")(x)


class Inside(nn.Module):
    value: Any = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x)


ARRAY = np.arange(4.0, dtype=np.float32)
TEXTS = {
    "numpy": (ARRAY, "value=float32[4]"),
    "jax": (jnp.ones([2, 3]), "value=float32[2,3]"),
    "scalar": (jnp.float32(2.0), "value=float32[]"),
    "spec": (jax.ShapeDtypeStruct((2,), jnp.int32), "value=int32[2]"),
    "key": (jax.random.key(0), "value=key<fry>[]"),
    "tuple": ((ARRAY, 1), "value=(float32[4], 1)"),
    "one": ((ARRAY,), "value=(float32[4],)"),
    "dict": ({"a": {"b": ARRAY}}, "value={'a': {'b': float32[4]}}"),
    "partial": (functools.partial(jnp.add, ARRAY), "value=partial(add, float32[4])"),
    "config": (Config(ARRAY), "value=Config(table=float32[4], width=3)"),
    "odd": (Odd(), "value=Odd()"),
    "unprintable": (Unprintable(), "value=<Unprintable>"),
    "function": (jnp.tanh, "value=tanh"),
    "module": (nn.Dense(2), "value=Dense(features=2)"),
    "modules": ((nn.Dense(2), nn.Dense(3)), "(Dense(features=2), Dense(features=3))"),
    "equal": (3, ""),
    "float": (3.0, "value=3.0"),
    "bool": (True, "value=True"),
    "nan": (float("nan"), "value=nan"),
    "text": ("a", "value='a'"),
    "nothing": (None, "value=None"),
    "long": (tuple(range(99)), "30, 31, ...)"),
}


@pytest.mark.parametrize(("value", "text"), TEXTS.values(), ids=TEXTS)
def test_the_text_of_any_field(value, text):
    texts = []

    def look(run, args, kwargs, context):
        texts.append(repr(context.module))
        return run(*args, **kwargs)

    def forward(x):
        net = FlaxModule(Holds(value), name="net")
        texts.append(repr(net))
        with hk.intercept_methods(look):
            return net(x)

    hk.transform(forward).init(KEY, X)
    assert any(t.startswith("Inside(") for t in texts)
    for found in texts[:-1]:
        assert text in found
        assert "array(" not in found.lower()
        if text == "":
            assert "value" not in found
    f = hk.transform(lambda x: FlaxModule(Holds(value), name="net")(x))
    assert text in hk.experimental.tabulate(f)(X)
    params = f.init(KEY, X)
    run = lambda x: f.apply(params, None, x)
    assert hk.experimental.jaxpr_info.make_model_info(run, name="model")(X)


class Closed(dict):
    """A mapping that does not tell what it holds."""

    def items(self):
        raise ValueError("not to be listed")

    __iter__ = keys = values = items


CIRCLE = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(("default", "value"), [(Closed, Closed()), (list, CIRCLE)])
def test_containers_that_cannot_be_listed(default, value):
    one, two = default(), value
    if value is CIRCLE:
        one.append(one)
    assert not _text.equal(one, two, _text.built)
    assert _text.equal(two, two, _text.built)
    assert _text.short(two, _text.built) in ("<Closed>", "[" * 13 + "..." + "]" * 13)


class WithDefaults(nn.Module):
    table: Any = dataclasses.field(default_factory=lambda: ARRAY)
    pair: Any = (1, ("a", None))
    odd: Any = Odd
    part: nn.Module = nn.Dense(2)

    @nn.compact
    def __call__(self, x):
        return self.part(x)


def test_what_is_as_by_default_is_not_shown():
    text = in_haiku(lambda: repr(FlaxModule(WithDefaults(pair=(1, ("a", None))))))[0]
    assert text == "FlaxModule(WithDefaults(table=float32[4]), name='with_defaults')"
    text = in_haiku(lambda: repr(FlaxModule(WithDefaults(part=nn.Dense(3)))))[0]
    assert "part=Dense(features=3)" in text


class Own(FlaxModule):
    """A subclass with a constructor of its own."""

    def __init__(self, width, name=None):
        self.before = repr(self)
        super().__init__(nn.Dense(width), name=name)


class Said(FlaxModule):
    AUTO_REPR = True  # Haiku's text, please

    def __init__(self, width, name=None):
        super().__init__(nn.Dense(width), name=name)


class Bare(nn.Module):
    pass


BUILDS = {
    "bridged": (
        lambda: FlaxModule(nn.Dense(3), name="net"),
        "FlaxModule(Dense(features=3), name='net')",
    ),
    "subclass": (lambda: Own(3), "Own(3)"),
    "given": (
        lambda: FlaxModule(nn.Dense(3), variables={"params": {"bias": ARRAY}}),
        "FlaxModule(Dense(features=3), variables={'params': {'bias': float32[4]}})",
    ),
    "wrapped": (lambda: hk_bridge.nn.Dense(features=3), "Dense(features=3)"),
    "cell": (lambda: hk_bridge.nn.LSTMCell(3, name="a"), "LSTMCell(3, name='a')"),
    "silent": (lambda: hk_bridge.wrap(Bare)(), "Bare()"),
}


@pytest.mark.parametrize(("build", "text"), BUILDS.values(), ids=BUILDS)
def test_a_module_that_is_being_built_has_a_text(build, text):
    texts = []

    def look(run, args, kwargs, context):
        texts.append((repr(context.module), context.method_name))
        return run(*args, **kwargs)

    def forward():
        with hk.intercept_methods(look):
            net = build()
        assert "_arguments" not in vars(net)
        assert getattr(net, "before", text) == text

    hk.transform(forward).init(None)
    assert texts == [(text, "__init__")]


def test_a_module_that_could_not_be_built_has_a_text():
    kept = []

    def look(run, args, kwargs, context):
        kept.append(context.module)
        return run(*args, **kwargs)

    def forward():
        with hk.intercept_methods(look):
            FlaxModule(nn.Dense(3), name="no name")

    with pytest.raises(ValueError, match="not a valid module name"):
        hk.transform(forward).init(None)
    assert repr(kept[0]) == "FlaxModule(Dense(features=3), name='no name')"


def test_a_wrapped_class_shows_its_name():
    class Doubled(hk_bridge.nn.Dense):
        pass

    class Mlp(nnx.Module):
        def __init__(self, width, *, scale=1, rngs):
            pass

    def forward():
        return (
            repr(hk_bridge.nn.Dense(3, use_bias=False)),
            repr(hk_bridge.nn.Dense(3, name="a")),
            repr(hk_bridge.nn.Dense(3)),
            repr(hk_bridge.wrap(Bare)(name="b")),
            repr(Doubled(3)),
            repr(hk_bridge.wrap(Mlp)(3, scale=2)),
        )

    assert in_haiku(forward)[0] == (
        "Dense(features=3, use_bias=False, name='dense')",
        "Dense(features=3, name='a')",
        "Dense(features=3, name='dense_1')",
        "Bare(name='b')",
        "Doubled(features=3, name='doubled')",
        "Mlp(3, scale=2, name='mlp')",
    )


@pytest.mark.parametrize("build", [build for build, _ in BUILDS.values()], ids=BUILDS)
def test_no_text_where_none_is_wanted(build):
    def forward():
        with hk.config.context(module_auto_repr=False):
            net = build()
        cls = type(net)
        assert repr(net).startswith(f"<{cls.__module__}.{cls.__qualname__} object at")
        assert "object at" not in repr(build())

    in_haiku(forward)


def test_no_text_of_submodules_where_none_is_wanted():
    texts = []

    def look(run, args, kwargs, context):
        texts.append(repr(context.module))
        return run(*args, **kwargs)

    def forward(x):
        with hk.config.context(module_auto_repr=False), hk.intercept_methods(look):
            return FlaxModule(Norm(), name="net")(x, train=True)

    hk.transform_with_state(forward).init(KEY, X)
    assert len(texts) == 5
    assert all("object at 0x" in text for text in texts)


def test_a_subclass_may_want_haikus_text():
    assert in_haiku(lambda: repr(Said(3, name="a")))[0] == "Said(width=3, name='a')"
