"""Flax layers in place of the native layers of a Haiku network that others wrote.

`with swapped({}) as carry:` changes no code of the network. An interceptor of Haiku's
runs a bridged layer of Flax where a native one would run, below its name:
`linear_0` with `w` and `b` becomes `linear_0/flax` with `kernel` and `bias`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
from typing import Any
from typing import NamedTuple

import flax.linen as nn
import haiku as hk
import jax.numpy as jnp

import hk_bridge

NAME = "flax"
Bundles = dict[str, dict[str, Any]]


class Layer(NamedTuple):
    """A layer of Flax for one of Haiku, and how Flax names the leaves of that."""

    module: nn.Module
    leaves: dict[str, str]


def dense(native: Any, x: Any) -> Layer:
    module = nn.Dense(native.output_size, use_bias=native.with_bias)
    return Layer(module, {"w": "kernel", "b": "bias"})


def conv(native: Any, x: Any) -> Layer | None:
    channels_last = native.channel_index == -1
    if not channels_last or native.mask is not None:
        return None  # linen has no channels before the spatial axes
    module = nn.Conv(
        native.output_channels,
        native.kernel_shape,
        strides=native.stride,
        padding=native.padding,
        kernel_dilation=native.kernel_dilation,
        feature_group_count=native.feature_group_count,
        use_bias=native.with_bias,
    )
    return Layer(module, {"w": "kernel", "b": "bias"})


def layer_norm(native: Any, x: Any) -> Layer | None:
    if native.axis not in ((-1,), (x.ndim - 1,)) or native.param_axis != (-1,):
        return None
    module = nn.LayerNorm(
        epsilon=native.eps,
        use_bias=native.create_offset,
        use_scale=native.create_scale,
        use_fast_variance=native.use_fast_variance,
    )
    return Layer(module, {"scale": "scale", "offset": "bias"})


def embed(native: Any, ids: Any) -> Layer:
    module = nn.Embed(native.vocab_size, native.embed_dim)
    return Layer(module, {"embeddings": "embedding"})


def folding_linear(native: Any, x: Any) -> Layer | None:
    """For AlphaFold's own Linear, of and to several axes."""
    if not native.num_input_dims:
        return None
    module = nn.DenseGeneral(
        native.output_shape,
        axis=tuple(range(-native.num_input_dims, 0)),
        use_bias=native.use_bias,
        precision=native.precision,
    )
    return Layer(module, {"weights": "kernel", "bias": "bias"})


def folding_norm(native: Any, x: Any) -> Layer:
    """For AlphaFold's own LayerNorm."""
    module = nn.LayerNorm(
        epsilon=native.eps,
        use_bias=native._temp_create_offset,
        use_scale=native._temp_create_scale,
        use_fast_variance=native.use_fast_variance,
    )
    return Layer(module, {"scale": "scale", "offset": "bias"})


LAYERS: dict[type, Callable[[Any, Any], Layer | None]] = {
    hk.Linear: dense,
    hk.ConvND: conv,
    hk.Conv1D: conv,
    hk.Conv2D: conv,
    hk.Conv3D: conv,
    hk.LayerNorm: layer_norm,
    hk.Embed: embed,
}


class Carry:
    """Which layers were replaced, and so where the leaves of each went."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}

    @property
    def tolerance(self) -> float:
        """How far results may be apart, relative to the largest number of a tree.

        Nothing, but that linen's LayerNorm multiplies and sums in another order.
        """
        norms = [x for x in self.layers.values() if isinstance(x.module, nn.LayerNorm)]
        return 1e-5 if norms else 0.0

    def __call__(self, bundles: Bundles) -> Bundles:
        """Native params, or gradients by them, as the swapped network has them."""
        carried: Bundles = {}
        for name, bundle in bundles.items():
            if layer := self.layers.get(name):
                renamed = {layer.leaves[leaf]: x for leaf, x in bundle.items()}
                carried[f"{name}/{NAME}"] = renamed
            else:
                carried[name] = dict(bundle)
        return carried


@contextlib.contextmanager
def swapped(
    layers: Mapping[type, Callable[[Any, Any], Layer | None]],
) -> Iterator[Carry]:
    """What is called in here runs Flax layers for those of Haiku that have an equal.

    Args:
      layers: for layers that are not Haiku's own.
    """
    carry, known = Carry(), {**LAYERS, **layers}

    def replace(run: Any, args: Any, kwargs: Any, context: hk.MethodContext) -> Any:
        native, make = context.module, known.get(type(context.module))
        plain = context.method_name == "__call__" and len(args) == 1 and not kwargs
        layer = make(native, jnp.asarray(args[0])) if make and plain else None
        if layer is None:
            return run(*args, **kwargs)
        carry.layers[native.module_name] = layer
        return hk_bridge.FlaxModule(layer.module, name=NAME)(*args)

    with hk.intercept_methods(replace):
        yield carry
