"""Flax linen's layers as Haiku module classes, under linen's own names.

Each is `wrap(flax.linen.X)`: the constructor, the methods and the documentation are
linen's. Recurrent cells are `hk.RNNCore`s. `GroupNorm` has defaults of its own.
Initialisers of Haiku are taken as they are. Where Haiku's layer has another argument
than linen's in the same place, the name is to be given; `kernel_size` is a tuple.

Left to Flax, since they hold no variables: the activations and the pooling functions of
`flax.linen` are plain functions, which work in Haiku as they are, and `nn.BatchApply`
wraps any function.

>>> import haiku as hk, jax, jax.numpy as jnp
>>> f = hk.transform(lambda x: Dense(features=3)(x))
>>> jax.tree.map(jnp.shape, f.init(jax.random.key(0), jnp.ones([1, 2])))
{'dense': {'bias': (3,), 'kernel': (2, 3)}}
"""

from collections.abc import Callable
from collections.abc import Sequence
import difflib
import operator
from typing import Any

import jax.numpy as jnp

from hk_bridge import _errors
from hk_bridge import _spelling
from hk_bridge._core.guard import Guard as _Guard
from hk_bridge._core.wrap import wrap as _wrap
from hk_bridge._flax import linen as _linen
from hk_bridge._haiku import native as _hk

__docformat__ = "google"  # for pdoc
__all__ = [
    "BatchNorm",
    "Bidirectional",
    "Conv",
    "ConvLSTMCell",
    "ConvLocal",
    "ConvTranspose",
    "Dense",
    "DenseGeneral",
    "Dropout",
    "Einsum",
    "Embed",
    "Fp8DirectDotGeneralOp",
    "Fp8DotGeneral",
    "Fp8DotGeneralOp",
    "Fp8Einsum",
    "GRUCell",
    "GroupNorm",
    "InstanceNorm",
    "LSTMCell",
    "LayerNorm",
    "MGUCell",
    "MultiHeadAttention",
    "MultiHeadDotProductAttention",
    "NANOOFp8DotGeneralOp",
    "OptimizedLSTMCell",
    "PReLU",
    "RMSNorm",
    "RNN",
    "SelfAttention",
    "Sequential",
    "SimpleCell",
    "SpectralNorm",
    "WeightNorm",
]


def _layer(flax: Any, haiku: Any = None) -> Any:
    """Linen's layer; it refuses what would mean something else to Haiku's."""
    made: Any = _wrap(flax)
    made._guard = _Guard(flax, haiku)
    return made


BatchNorm = _layer(_linen.BatchNorm, _hk.BatchNorm)
Bidirectional = _layer(_linen.Bidirectional)
Conv = _layer(_linen.Conv, _hk.Conv2D)
ConvLSTMCell = _layer(_linen.ConvLSTMCell)
ConvLocal = _layer(_linen.ConvLocal, _hk.Conv2D)
ConvTranspose = _layer(_linen.ConvTranspose, _hk.Conv2DTranspose)
Dense = _layer(_linen.Dense, _hk.Linear)
DenseGeneral = _layer(_linen.DenseGeneral)
Dropout = _layer(_linen.Dropout)
Einsum = _layer(_linen.Einsum)
Embed = _layer(_linen.Embed, _hk.Embed)
Fp8DirectDotGeneralOp = _layer(_linen.Fp8DirectDotGeneralOp)
Fp8DotGeneral = Fp8DirectDotGeneralOp  # as in linen
Fp8DotGeneralOp = _layer(_linen.Fp8DotGeneralOp)
Fp8Einsum = _layer(_linen.Fp8Einsum)
GRUCell = _layer(_linen.GRUCell, _hk.GRU)
InstanceNorm = _layer(_linen.InstanceNorm, _hk.InstanceNorm)
LSTMCell = _layer(_linen.LSTMCell, _hk.LSTM)
LayerNorm = _layer(_linen.LayerNorm, _hk.LayerNorm)
MGUCell = _layer(_linen.MGUCell)
MultiHeadAttention = _layer(_linen.MultiHeadAttention, _hk.MultiHeadAttention)
MultiHeadDotProductAttention = _layer(
    _linen.MultiHeadDotProductAttention, _hk.MultiHeadAttention
)
NANOOFp8DotGeneralOp = _layer(_linen.NANOOFp8DotGeneralOp)
OptimizedLSTMCell = _layer(_linen.OptimizedLSTMCell, _hk.LSTM)
PReLU = _layer(_linen.PReLU)
RMSNorm = _layer(_linen.RMSNorm, _hk.RMSNorm)
RNN = _layer(_linen.RNN)
SelfAttention = _layer(_linen.SelfAttention)
Sequential = _layer(_linen.Sequential)
SimpleCell = _layer(_linen.SimpleCell, _hk.VanillaRNN)
SpectralNorm = _layer(_linen.SpectralNorm)
WeightNorm = _layer(_linen.WeightNorm)


class _Default(int):
    """A default that can be told from the same number given by the user."""


_NUM_GROUPS = _Default(32)


class GroupNorm(_layer(_linen.GroupNorm, _hk.GroupNorm)):  # type: ignore[misc]
    """Group normalisation (arxiv.org/abs/1803.08494), run by `flax.linen.GroupNorm`.

    The input is `[N, ..., C]`. The channels are divided into groups, and each group of
    each example is normalised by its own mean and variance, taken over the channels of
    the group and all spatial axes, never over the batch. There is no state. The
    parameters are `scale` and `bias`, both `[C]`.

    Two defaults to know of when you move code: linen's own `epsilon` is 1e-6, and
    `hk.GroupNorm` calls its parameters `scale` and `offset` and its epsilon `eps=1e-5`.
    This class keeps linen's names and Haiku's 1e-5. `dtype` is float32, so that a
    bfloat16 input gives a float32 output; give `dtype=None` for linen's default, the
    dtype of input and parameters.

    >>> import haiku as hk, jax, jax.numpy as jnp
    >>> f = hk.transform(lambda x: GroupNorm(num_groups=4)(x))
    >>> params = f.init(jax.random.key(0), jnp.ones([2, 8, 8, 16]))
    >>> jax.tree.map(jnp.shape, params)
    {'group_norm': {'bias': (16,), 'scale': (16,)}}
    """

    _of_bridge = True

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.__init__ is GroupNorm.__init__:  # a subclass may have its own arguments
            cls._guard.refuse(args, kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(
        self,
        *,
        num_groups: int | None = _NUM_GROUPS,
        group_size: int | None = None,
        epsilon: float = 1e-5,
        dtype: Any = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Callable[..., Any] = _linen.initializers.zeros,
        scale_init: Callable[..., Any] = _linen.initializers.ones,
        param_dtype: Any = jnp.float32,
        reduction_axes: int | Sequence[int] | None = None,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        force_float32_reductions: bool = True,
        name: str | None = None,
    ):
        """Builds the layer; all but `name=` are the fields of `flax.linen.GroupNorm`.

        Args:
          num_groups: the number of groups, of which C must be a multiple.
          group_size: the number of channels a group, in place of `num_groups`.
          epsilon: added to the variance.
          dtype: of the computation and the output; None takes that of input and
            parameters.
          use_bias: whether to add the parameter `bias`.
          use_scale: whether to multiply by the parameter `scale`.
          bias_init: Flax initialiser of `bias`.
          scale_init: Flax initialiser of `scale`.
          param_dtype: of the parameters.
          reduction_axes: the axes of the statistics, by default all but the first; the
            last must be among them.
          axis_name: of a `jax.pmap` or `jax.vmap` axis, over which the statistics are
            averaged, too.
          axis_index_groups: groups of devices along `axis_name`.
          use_fast_variance: computes the variance as `E[x^2] - E[x]^2`, faster and less
            exact.
          force_float32_reductions: computes the statistics in float32 at least.
          name: the Haiku name.

        Raises:
          ValueError: both `num_groups` and `group_size` are given, or neither.
          TypeError: `num_groups` is no whole number.
        """
        if group_size is not None:
            if num_groups is not _NUM_GROUPS and num_groups is not None:
                raise _errors.groups_twice(num_groups, group_size)
            num_groups = None
        elif num_groups is None:
            raise _errors.no_groups()
        super().__init__(
            num_groups=None if num_groups is None else operator.index(num_groups),
            group_size=group_size,
            epsilon=epsilon,
            dtype=dtype,
            param_dtype=param_dtype,
            use_bias=use_bias,
            use_scale=use_scale,
            bias_init=bias_init,
            scale_init=scale_init,
            reduction_axes=reduction_axes,
            axis_name=axis_name,
            axis_index_groups=axis_index_groups,
            use_fast_variance=use_fast_variance,
            force_float32_reductions=force_float32_reductions,
            name=name,
        )


def __getattr__(name: str) -> Any:
    flax, what = _spelling.LAYERS.get(name), "layer"
    if flax is None and callable(getattr(_linen, name, None)):
        what = "function"
    elif flax is None and callable(getattr(_hk, name, None)):
        what = "haiku"
    elif flax is None and callable(getattr(_hk.nets, name, None)):
        what = "network"
    elif flax is None:
        flax = next(iter(difflib.get_close_matches(name, __all__, n=1)), None)
        what = "nothing"
    raise _errors.no_such_layer(name, flax, what)
