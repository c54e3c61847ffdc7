"""Bridged modules as Haiku's tests describe modules, each with its native control.

Haiku's `integration/*_test.py` take their modules from lists in `descriptors.py`. Here
are such lists of bridged modules, and the lists of those of Haiku in whose place each
stands: the same kind of layer where Haiku has it, else one that asks as much of Haiku.
"""

from collections.abc import Callable
import functools
from typing import Any
from typing import NamedTuple

import catalogue
import flax.linen as nn
import haiku as hk
from haiku._src.integration import descriptors as haiku_descriptors
import jax
import jax.numpy as jnp

from haiku_suite.loading import Namespace
from hk_bridge import FlaxModule
import hk_bridge.nn

BATCH = 8
# The one by default is orthogonal, which JAX 0.12 cannot make in half precision.
INIT = {"recurrent_kernel_init": nn.initializers.lecun_normal()}
LSTM = functools.partial(nn.LSTMCell, **INIT)


class Swap(NamedTuple):
    """A bridged module, and the native one in whose place it stands.

    Attributes:
      name: of the class in `hk_bridge.nn`, or of an own module, in lower case.
      create: builds the bridged module; is given the dtype of the parameters.
      native: the name of Haiku's descriptor, or a function that builds a native module.
      shape: of the input.
      dtype: of the input.
    """

    name: str
    create: Callable[[Any], Callable[..., Any]]
    native: str | Callable[[], Callable[..., Any]]
    shape: tuple[int, ...] = (BATCH, 4)
    dtype: Any = jnp.float32


class Call(haiku_descriptors.Wrapped):
    """Calls a module with the keywords given, as Haiku's `Training` does."""

    def __init__(self, wrapped: Any, **keywords: Any):
        super().__init__(wrapped)
        self.keywords = keywords

    def __call__(self, x):
        return self.wrapped(x, **self.keywords)


class First(Call):
    """Gives the first of several outputs: Haiku's tests take the mean of the output."""

    def __call__(self, x):
        return super().__call__(x)[0]


class Dot(haiku_descriptors.Wrapped):
    """Calls an fp8 operation in place of `lax.dot_general`."""

    def __call__(self, x):
        contracted = (((x.ndim - 1,), (0,)), ((), ()))
        return self.wrapped(x, jnp.ones([4, 3], x.dtype), contracted)


class EinsumOf(haiku_descriptors.Wrapped):
    def __call__(self, x):
        return self.wrapped("bd,df->bf", x, jnp.ones([4, 3], x.dtype))


class ImageCell(haiku_descriptors.Wrapped, hk.RNNCore):
    """A cell whose `initial_state` has to be told the shape of the image."""

    def __init__(self, wrapped: Any, shape: tuple[int, ...]):
        super().__init__(wrapped)
        self.shape = shape

    def initial_state(self, batch_size):
        shape = self.shape if batch_size is None else (batch_size, *self.shape)
        return self.wrapped.module.initialize_carry(jax.random.key(0), shape)

    def __call__(self, inputs, state):
        return self.wrapped(inputs, state)


class NativeDropout(hk.Module):
    def __call__(self, x):
        return hk.dropout(hk.next_rng_key(), 0.5, x)


class NativeUnroll(hk.Module):
    """A recurrent network over `[B, T, D]`."""

    def __call__(self, x):
        core = hk.LSTM(3)
        start = jax.tree.map(lambda v: v.astype(x.dtype), core.initial_state(len(x)))
        return hk.dynamic_unroll(core, x, start, time_major=False)[0]


def layer(name: str, *args: Any, dtype: bool = True, **kwargs: Any) -> Any:
    """Builds a class of `hk_bridge.nn`, with `param_dtype` if it has that field."""

    def create(param_dtype):
        types = {"param_dtype": param_dtype} if dtype else {}
        if name == "GroupNorm":
            types["dtype"] = None  # ours is float32, as its docstring says
        return getattr(hk_bridge.nn, name)(*args, **kwargs, **types)

    return create


def around(name: str, inner: Callable[[Any], nn.Module], **kwargs: Any) -> Any:
    """Builds a class of `hk_bridge.nn` that holds another layer."""
    return lambda t: getattr(hk_bridge.nn, name)(inner(t), **kwargs)


def called(create: Callable[[Any], Any], how: Any = Call, **keywords: Any) -> Any:
    """Builds a module and what calls it."""
    return lambda t: how(create(t), **keywords)


def own(
    name: str,
    module: Callable[[], nn.Module],
    native: Any,
    how: Any = Call,
    **train: Any,
) -> Swap:
    """An own module, whose parameters have the types that it gives them."""
    return Swap(name, lambda t: how(FlaxModule(module(), name="net"), **train), native)


# Both with and without a batch axis.
OPTIONAL_BATCH = [
    Swap("Dense", layer("Dense", 3), "Linear"),
    Swap("DenseGeneral", layer("DenseGeneral", (2, 3)), "Linear"),
    Swap("Einsum", layer("Einsum", (4, 3), "...d,df->...f"), "Linear"),
    Swap("Embed", layer("Embed", 64, 3), "Embed", (BATCH,), jnp.int32),
    Swap("Conv", layer("Conv", 3, (3,)), "Conv1D", (BATCH, 2, 2)),
    Swap("ConvLocal", layer("ConvLocal", 3, (3,)), "Conv1D", (BATCH, 2, 2)),
    Swap(
        "ConvTranspose",
        layer("ConvTranspose", 3, (3,)),
        "Conv1DTranspose",
        (BATCH, 2, 2),
    ),
    Swap("PReLU", layer("PReLU"), "Linear"),
    Swap(
        "Sequential",
        lambda t: hk_bridge.nn.Sequential([nn.Dense(3, param_dtype=t), nn.relu]),
        "nets.MLP",
    ),
    Swap(
        "WeightNorm",
        lambda t: hk_bridge.nn.WeightNorm(nn.Dense(3, param_dtype=t), param_dtype=t),
        "Linear",
    ),
    own("leaves", catalogue.Nested, "nets.MLP"),
    own("shared", catalogue.SharedByField, "nets.MLP"),
    own("remat_scan", catalogue.RematScan, "nets.MLP"),
]
ATTENTION = (BATCH, 3, 4)
BATCHED = [
    Swap(
        "BatchNorm",
        called(layer("BatchNorm"), use_running_average=False),
        "BatchNorm",
        (BATCH, 2, 2, 3),
    ),
    Swap(
        "Bidirectional",
        lambda t: hk_bridge.nn.Bidirectional(
            *(nn.RNN(LSTM(3, param_dtype=t)) for _ in range(2))
        ),
        NativeUnroll,
        ATTENTION,
    ),
    Swap(
        "Dropout",
        layer("Dropout", 0.5, dtype=False, deterministic=False),
        NativeDropout,
    ),
    *(
        Swap(name, called(layer(name, dtype=False), Dot), "Linear")
        for name in ("Fp8DirectDotGeneralOp", "Fp8DotGeneralOp", "NANOOFp8DotGeneralOp")
    ),
    Swap("Fp8Einsum", called(layer("Fp8Einsum", dtype=False), EinsumOf), "Linear"),
    Swap("GroupNorm", layer("GroupNorm", num_groups=5), "GroupNorm", (BATCH, 4, 4, 10)),
    Swap("InstanceNorm", layer("InstanceNorm"), "InstanceNorm", (BATCH, 3, 2)),
    Swap("LayerNorm", layer("LayerNorm"), "LayerNorm", (BATCH, 3, 2)),
    Swap(
        "MultiHeadAttention",
        layer("MultiHeadAttention", 2),
        "MultiHeadAttention",
        ATTENTION,
    ),
    Swap(
        "MultiHeadDotProductAttention",
        lambda t: haiku_descriptors.MultiInput(
            layer("MultiHeadDotProductAttention", 2)(t), num_inputs=3
        ),
        "MultiHeadAttention",
        ATTENTION,
    ),
    Swap("SelfAttention", layer("SelfAttention", 2), "MultiHeadAttention", ATTENTION),
    Swap("RMSNorm", layer("RMSNorm"), "RMSNorm", (BATCH, 3, 2)),
    Swap(
        "RNN",
        lambda t: hk_bridge.nn.RNN(LSTM(3, param_dtype=t)),
        NativeUnroll,
        ATTENTION,
    ),
    Swap(
        "SpectralNorm",
        lambda t: Call(
            hk_bridge.nn.SpectralNorm(nn.Dense(3, param_dtype=t), param_dtype=t),
            update_stats=True,
        ),
        "SpectralNorm",
    ),
    own("batch_norm", catalogue.Norm, "BatchNorm", train=True),
    own("evaluated", catalogue.Norm, "BatchNorm", train=False),
    own("streams", catalogue.Noise, NativeDropout, train=True),
    own("variables", catalogue.CarriedState, "BatchNorm"),
    own("scan", catalogue.Scan, NativeDropout, First, train=True),
    own("vmap", catalogue.Vmap, "BatchNorm", train=True),
    own("remat", catalogue.Remat, NativeDropout, train=True),
    own("jit", catalogue.Jit, "Linear"),
    own("branches", catalogue.Branches, "Linear"),
    own("custom_vjp", catalogue.CustomVjp, "Linear"),
]
RNN_CORES = [
    Swap("GRUCell", layer("GRUCell", 3, **INIT), "GRU"),
    Swap("LSTMCell", layer("LSTMCell", 3, **INIT), "LSTM"),
    Swap("MGUCell", layer("MGUCell", 3, **INIT), "GRU"),
    Swap("OptimizedLSTMCell", layer("OptimizedLSTMCell", 3, **INIT), "LSTM"),
    Swap("SimpleCell", layer("SimpleCell", 3, **INIT), "VanillaRNN"),
    Swap(
        "ConvLSTMCell",
        called(layer("ConvLSTMCell", 3, (3, 3)), ImageCell, shape=(2, 2, 2)),
        "Conv2DLSTM",
        (BATCH, 2, 2, 2),
    ),
]
PAIRS = {pair.name: pair for pair in (*OPTIONAL_BATCH, *BATCHED, *RNN_CORES)}


def bridged(dtype: Any) -> Namespace:
    """Haiku's `descriptors` with our lists; parameters get the dtype."""
    make = lambda pair: lambda: pair.create(dtype)
    return _lists(lambda pair: (make(pair), pair.shape, pair.dtype))


def controls() -> Namespace:
    """Haiku's `descriptors` with the native modules, under the names of ours."""
    cores = haiku_descriptors.RNN_CORES
    known = {d.name: d[1:] for d in (*haiku_descriptors.ALL_MODULES, *cores)}

    def native(pair):
        if isinstance(pair.native, str):
            return known[pair.native]
        return pair.native, pair.shape, pair.dtype

    return _lists(native)


def _lists(build: Callable[[Swap], tuple[Any, ...]]) -> Namespace:
    describe = lambda pairs: tuple(
        # Colons tell the name from the rest of a test's name.
        haiku_descriptors.ModuleDescriptor(f":{pair.name}:", *build(pair))
        for pair in pairs
    )
    optional, batched, cores = map(describe, (OPTIONAL_BATCH, BATCHED, RNN_CORES))
    unrolled = tuple(
        descriptor
        for unroll in (hk.dynamic_unroll, hk.static_unroll)
        for descriptor in haiku_descriptors.unroll_descriptors(cores, unroll)
    )
    return Namespace(
        haiku_descriptors,
        OPTIONAL_BATCH_MODULES=optional,
        BATCH_MODULES=batched,
        RECURRENT_MODULES=unrolled,
        ALL_MODULES=(*optional, *batched, *unrolled),
    )
