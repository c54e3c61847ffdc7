"""Which layers have a twin."""

from collections.abc import Callable
import dataclasses
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp

from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge.migrate._twins import kernels
from hk_bridge.migrate._twins import norms
from hk_bridge.migrate._twins.attention import attention
from hk_bridge.migrate._twins.leaves import Leaves
from hk_bridge.migrate._twins.lstm import lstm
from hk_bridge.migrate._twins.plan import Plan
from hk_bridge.migrate._twins.refusals import expect
from hk_bridge.migrate._twins.refusals import refused
from hk_bridge.migrate._twins.refusals import shown

_linen = _flax.linen
hk = _haiku.native


class Row(NamedTuple):
    """A Haiku layer, and the fields of linen that its plan reads or may ignore."""

    layer: type[hk.Module]
    plan: Callable[[Any, Leaves, int | None], Plan]
    fields: str
    exact: bool = True


_CONV = "features kernel_size strides padding kernel_dilation use_bias mask precision "
_NORM = "epsilon use_scale use_bias use_fast_variance "
_AXES = _NORM + "reduction_axes feature_axes "
_GROUPS = _NORM + "reduction_axes num_groups group_size "
_BATCH = _NORM + "axis momentum axis_name axis_index_groups use_running_average "
_HEADS = "num_heads qkv_features out_features use_bias dropout_rate deterministic "
_LSTM = Row(hk.LSTM, lstm, "features", False)
_MHA = Row(hk.MultiHeadAttention, attention, _HEADS + "broadcast_dropout", False)
_TRANSPOSE = Row(hk.ConvNDTranspose, kernels.conv_transpose, _CONV + "transpose_kernel")
_ROWS: dict[type[Any], Row] = {
    _linen.Dense: Row(hk.Linear, kernels.dense, "features use_bias precision"),
    _linen.Conv: Row(
        hk.ConvND, kernels.conv, _CONV + "input_dilation feature_group_count"
    ),
    _linen.ConvTranspose: _TRANSPOSE,
    _linen.Embed: Row(hk.Embed, kernels.embed, "num_embeddings features"),
    _linen.LayerNorm: Row(hk.LayerNorm, norms.layer_norm, _AXES),
    _linen.RMSNorm: Row(hk.RMSNorm, norms.layer_norm, _AXES, False),
    _linen.GroupNorm: Row(hk.GroupNorm, norms.group_norm, _GROUPS, False),
    _linen.BatchNorm: Row(hk.BatchNorm, norms.batch_norm, _BATCH),
    _linen.LSTMCell: _LSTM,
    _linen.OptimizedLSTMCell: _LSTM,
    _linen.MultiHeadDotProductAttention: _MHA,
    _linen.MultiHeadAttention: _MHA,
}
_GRU = "r on the product, r * (W h + b): hk.GRU has it on the state, W (r * h)"


def row_of(module: Any) -> Row:
    cls = type(module)
    if cls not in _ROWS:
        names = ", ".join(sorted(cls.__name__ for cls in _ROWS))
        needs = _GRU if cls is _linen.GRUCell else f"one of flax.linen's own {names}"
        raise refused(module, f"{cls.__module__}.{cls.__qualname__}", needs)
    return _ROWS[cls]


def check_fields(module: Any, row: Row, leaves: Leaves) -> None:
    """Refuses a field that has not its default, unless the plan knows what to do."""
    known = {"name", "parent", "param_dtype", *row.fields.split()}
    for field in dataclasses.fields(module):
        value, default = getattr(module, field.name), field.default
        initialiser = field.name.endswith("_init") and field.name != "carry_init"
        if field.name in known or initialiser or value is default:
            continue
        if field.name == "dtype":
            fits = {leaf.dtype for leaf in leaves.values()} == {jnp.dtype(value)}
            expected = "None, or that of the leaves: see hk.mixed_precision"
            expect(module, "dtype", fits, expected)
        else:
            fits = not hasattr(value, "shape") and value == default
            expect(module, field.name, fits, shown(default))


def family(module: Any) -> type[hk.Module] | None:
    """The Haiku layer that `module` is, or that may be its twin; None if there is none.

    >>> family(_linen.Dense(3)) is hk.Linear
    True
    """
    if isinstance(module, _linen.Module):
        row = _ROWS.get(type(module))
        return None if row is None else row.layer
    layers = (row.layer for row in _ROWS.values())
    return next((layer for layer in layers if isinstance(module, layer)), None)
