"""Bridged modules with the constructors and parameter names of Haiku's own.

Haiku's unit tests use a few layers, and make parameters and state themselves. Here is a
bridged module for each: a layer with Haiku's signature and its names `w` and `b`, and
for `get_parameter`, `get_state` and `set_state` a module of one leaf in the caller's
place. `uses` tells whether a test has built any.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
from typing import Any

import flax.linen as nn
import haiku as hk
from haiku._src import base
from haiku._src import basic
from haiku._src import conv
from haiku._src import recurrent
from haiku._src import transform
import jax
import jax.numpy as jnp
import numpy as np

import hk_bridge
import hk_bridge.nn

from .loading import Namespace

_used: list[str] = []  # the class of each bridged module that was built


def uses() -> int:
    """The number of bridged modules built so far."""
    return len(_used)


def as_flax(init: Callable[..., Any], draws: bool = True) -> Callable[..., Any]:
    """Flax's form of an initialiser of Haiku, which may draw keys from Haiku."""

    def init_fn(key, shape, dtype):
        f = hk.transform(lambda: init(shape, dtype))
        return f.apply({}, key if draws else None)

    return init_fn


def counted(cls: type) -> Any:
    """A Haiku class of a Flax class or a bridged one, whose instances are counted."""
    base_class = hk_bridge.wrap(cls) if issubclass(cls, nn.Module) else cls

    def __init__(self, *args, **kwargs):
        _used.append(cls.__name__)
        base_class.__init__(self, *args, **kwargs)

    return type(base_class)(cls.__name__, (base_class,), {"__init__": __init__})


@counted
class Linear(nn.Module):
    output_size: int
    with_bias: bool = True
    w_init: Any = None
    b_init: Any = None

    @nn.compact
    def __call__(self, inputs, *, precision=None):
        size = inputs.shape[-1]
        w_init = self.w_init or hk.initializers.TruncatedNormal(1.0 / np.sqrt(size))
        shape = (size, self.output_size)
        w = self.param("w", as_flax(w_init), shape, inputs.dtype)
        y = jnp.dot(inputs, w, precision=precision)
        if self.with_bias:
            init = as_flax(self.b_init or jnp.zeros)
            y += self.param("b", init, shape[1:], inputs.dtype)
        return y


@counted
class Conv2D(nn.Module):
    output_channels: int
    kernel_shape: int

    @nn.compact
    def __call__(self, inputs):
        window = (self.kernel_shape, self.kernel_shape)
        shape = (*window, inputs.shape[-1], self.output_channels)
        w = self.param("w", nn.initializers.lecun_normal(), shape, inputs.dtype)
        b = self.param("b", nn.initializers.zeros, shape[-1:], inputs.dtype)
        b = jnp.broadcast_to(b, (*inputs.shape[:-1], shape[-1]))
        numbers = ("NHWC", "HWIO", "NHWC")
        return b + jax.lax.conv_general_dilated(
            inputs, w, (1, 1), "SAME", dimension_numbers=numbers
        )


@counted
class LSTM(hk_bridge.nn.OptimizedLSTMCell):
    def __init__(self, hidden_size: int, name: str | None = None):
        super().__init__(hidden_size, name=name)


@counted
class GRU(hk_bridge.nn.GRUCell):
    def __init__(self, hidden_size: int, name: str | None = None):
        super().__init__(hidden_size, name=name)


@counted
class VanillaRNN(hk_bridge.nn.SimpleCell):
    def __init__(self, hidden_size: int, name: str | None = None):
        super().__init__(hidden_size, name=name)


@counted
class IdentityModule(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.param("w", nn.initializers.zeros, ())
        return x


@counted
class NoOutputModule(nn.Module):
    @nn.compact
    def __call__(self):
        self.param("w", nn.initializers.zeros, ())


@counted
class MultipleParametersModule(nn.Module):
    @nn.compact
    def __call__(self):
        self.param("w", nn.initializers.zeros, (10, 20, 30))
        self.param("b", nn.initializers.zeros, (40, 50, 60))
        return 1


class _Parameter(nn.Module):
    leaf: str
    shape: tuple[int, ...]
    dtype: Any
    init: Callable[..., Any]

    @nn.compact
    def __call__(self):
        return self.param(self.leaf, self.init, self.shape, self.dtype)


class _State(nn.Module):
    leaf: str
    init: Callable[[], Any] | None = None

    @nn.compact
    def read(self):
        if self.init is None:
            return self.get_variable("state", self.leaf)
        return self.variable("state", self.leaf, self.init).value

    @nn.compact
    def write(self, value):
        self.put_variable("state", self.leaf, value)


def _in_place_of_caller(module: nn.Module) -> hk_bridge.FlaxModule:
    """The bridged module under the name of the Haiku module that runs."""
    _used.append(type(module).__name__)
    name = hk.experimental.current_name()
    return hk_bridge.FlaxModule(module, name=hk.experimental.force_name(name))


def get_parameter(name, shape, dtype=jnp.float32, init=None):
    """`hk.get_parameter`, by a bridged module."""
    if not base.frame_stack or init is None:
        return base.get_parameter(name, shape, dtype, init)  # its own errors
    keyed = base.current_frame().rng_stack.peek() is not None
    module = _Parameter(name, tuple(shape), dtype, as_flax(init, draws=keyed))
    # Flax wants a key for each parameter, Haiku for those that draw one.
    rngs = None if keyed else {"params": jax.random.key(0)}
    return _in_place_of_caller(module)(rngs=rngs)


def get_state(name, shape=None, dtype=jnp.float32, init=None):
    """`hk.get_state`, by a bridged module."""
    if not base.frame_stack or (init is not None and shape is None):
        return base.get_state(name, shape, dtype, init)  # its own errors
    module = _State(name, None if init is None else lambda: init(shape, dtype))
    value = _in_place_of_caller(module)(method="read")
    if value is None:
        return base.get_state(name, shape, dtype, init)
    return value


def set_state(name, value):
    """`hk.set_state`, by a bridged module."""
    if not base.frame_stack:
        return base.set_state(name, value)
    return _in_place_of_caller(_State(name))(value, method="write")


def transform_with_state(f):
    """`hk.transform_with_state`, that shows state under the caller's own name.

    A collection that a bridged module keeps in state has a name of its own there,
    `net/state`. The tests look for their state under `net`.
    """
    transformed = transform.transform_with_state(f)

    @functools.wraps(transformed.init)
    def init(*args, **kwargs):
        params, state = transformed.init(*args, **kwargs)
        return params, _renamed(state, lambda name: name.removesuffix("/state"))

    @functools.wraps(transformed.apply)
    def apply(params, state, *args, **kwargs):
        state = _renamed(state, lambda name: f"{name}/state")
        out, state = transformed.apply(params, state, *args, **kwargs)
        return out, _renamed(state, lambda name: name.removesuffix("/state"))

    return transform.TransformedWithState(init, apply)


def _renamed(state: Any, rename: Callable[[str], str]) -> Any:
    if not isinstance(state, Mapping):
        return state  # Haiku says what is wrong with it
    return {rename(name): bundle for name, bundle in state.items()}


LAYERS = {
    "haiku._src.basic": Namespace(basic, Linear=Linear),
    "haiku._src.conv": Namespace(conv, Conv2D=Conv2D),
    "haiku._src.recurrent": Namespace(
        recurrent, LSTM=LSTM, GRU=GRU, VanillaRNN=VanillaRNN
    ),
}
LEAVES = {
    "haiku._src.base": Namespace(
        base, get_parameter=get_parameter, get_state=get_state, set_state=set_state
    ),
    "haiku._src.transform": Namespace(
        transform, transform_with_state=transform_with_state
    ),
}
# Modules that a test file itself defines.
CLASSES = {
    "summarise_test": {
        cls.__name__: cls
        for cls in (IdentityModule, NoOutputModule, MultipleParametersModule)
    }
}
