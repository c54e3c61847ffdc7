"""Plans of the layers that normalise."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge.migrate._averages import LATE
from hk_bridge.migrate._averages import LEAVES
from hk_bridge.migrate._twins.axes import as_axes
from hk_bridge.migrate._twins.leaves import Leaves
from hk_bridge.migrate._twins.plan import Move
from hk_bridge.migrate._twins.plan import Plan
from hk_bridge.migrate._twins.plan import Turn
from hk_bridge.migrate._twins.plan import each
from hk_bridge.migrate._twins.plan import floats
from hk_bridge.migrate._twins.plan import same
from hk_bridge.migrate._twins.plan import shaped
from hk_bridge.migrate._twins.refusals import bad_ndim
from hk_bridge.migrate._twins.refusals import expect
from hk_bridge.migrate._twins.refusals import expect_leaves
from hk_bridge.migrate._twins.refusals import listed
from hk_bridge.migrate._twins.refusals import needs_ndim

_linen = _flax.linen
hk = _haiku.native


def _affine(
    module: Any, leaves: Leaves, to_haiku: Turn = same
) -> tuple[dict[str, Any], list[Move]]:
    """The arguments and parameters that all normalising layers have."""
    wide = lambda d: jnp.issubdtype(d, jnp.floating) and d.itemsize >= 4
    expected = "float32 ones, as linen takes the statistics in float32, of |x|^2"
    expect_leaves(module, leaves, wide, expected)
    arguments, moves = {"eps": module.epsilon}, []
    for flax, haiku in [("scale", "scale"), ("bias", "offset")]:
        used = getattr(module, f"use_{flax}", None)  # RMSNorm has no bias
        if used is not None:
            arguments[f"create_{haiku}"] = used
        if used:
            key = f"params/{flax}"
            back = shaped(leaves[key].shape)
            moves.append(Move([haiku], [key], each(to_haiku), each(back)))
    return arguments, moves


def _rank(module: Any, axes: Sequence[int], ndim: int | None) -> int:
    """`ndim`, or else the least number of axes that an input with `axes` has."""
    least = max((axis + 1 if axis >= 0 else -axis for axis in axes), default=1)
    if ndim is None:
        return least
    if not isinstance(ndim, int) or ndim < least:
        raise bad_ndim(module, ndim, least)
    return ndim


def _normalised(
    moves: Sequence[Move],
    leaves: Leaves,
    axes: Sequence[int],
    rank: int,
    unknown: int = 1,
) -> jax.ShapeDtypeStruct:
    """An input with the features of the leaves along `axes`, `unknown` without any."""
    shape = [1] * rank
    for place, axis in enumerate(axes):
        key = moves[0].flax[0] if moves else None
        shape[axis] = leaves.size(key, place - len(axes)) if key else unknown
    return floats(*shape)


def _features(
    module: Any, field: str, ndim: int | None
) -> tuple[tuple[int, ...], tuple[int, ...], Turn]:
    """The feature axes, the other axes, and how Haiku shapes a leaf of the former."""
    given = as_axes(getattr(module, field))
    if ndim is None:
        raise needs_ndim(module)
    ndim = _rank(module, given, ndim)
    axes = tuple(sorted({axis % ndim for axis in given}))
    rest = tuple(axis for axis in range(ndim) if axis not in axes)

    def broadcast(leaf: Any) -> Any:
        sizes = dict(zip(axes, leaf.shape, strict=True))
        return shaped([sizes.get(axis, 1) for axis in range(ndim)])(leaf)

    return axes, rest, broadcast


def layer_norm(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    axes, to_haiku = as_axes(module.feature_axes), same
    if axes != (-1,):
        axes, rest, broadcast = _features(module, "feature_axes", ndim)
        if axes != (len(rest),):  # Haiku has [C] for the last axis, [1, H, C] for more
            to_haiku = broadcast
    affine, moves = _affine(module, leaves, to_haiku)
    reduced = as_axes(module.reduction_axes)
    rank = _rank(module, [*reduced, *axes], ndim)
    arguments = {"axis": reduced, "param_axis": axes, **affine}
    if isinstance(module, _linen.LayerNorm):
        arguments["use_fast_variance"] = module.use_fast_variance
    return Plan(arguments, moves, [_normalised(moves, leaves, axes, rank)])


def group_norm(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    axes = (
        as_axes(module.reduction_axes) if module.reduction_axes is not None else (-1,)
    )
    counted = min(axes) >= -1  # Haiku splits the last axis in two
    expect(module, "reduction_axes", counted, "counted from the front, or -1")
    affine, moves = _affine(module, leaves)
    groups = module.num_groups
    if groups is None:
        expected = "None, and num_groups given: there is no leaf to tell the channels"
        expect(module, "group_size", bool(moves), expected)
    rank = _rank(module, axes, ndim)
    x = _normalised(moves, leaves, [-1], rank, unknown=groups)
    if groups is None:
        groups = x.shape[-1] // module.group_size
    arguments = {"groups": groups, **affine, "data_format": "channels_last"}
    if ndim == 1:  # where Haiku takes axis 0 for the groups
        arguments["axis"] = (-1,)
    elif module.reduction_axes is not None:
        arguments["axis"] = axes
    return Plan(arguments, moves, [x])


def batch_norm(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    decays = module.momentum >= 0 and bool(np.float32(module.momentum) < 1)
    expect(module, "momentum", decays, "at least 0 and, in float32, below 1")
    axes, rest, broadcast = _features(module, "axis", ndim)
    arguments, moves = _affine(module, leaves, broadcast)
    arguments |= {"decay_rate": module.momentum, "data_format": "channels_last"}
    if axes != (len(rest),):
        arguments["axis"] = rest
    if module.axis_name is not None:
        arguments["cross_replica_axis"] = module.axis_name
        arguments["cross_replica_axis_index_groups"] = module.axis_index_groups
    moves += [_average(name, leaves, broadcast) for name in ("mean", "var")]
    x = _normalised(moves, leaves, axes, len(axes) + len(rest))
    if module.use_running_average is None:
        call = "x, is_training=not use_running_average"
        return Plan(arguments, moves, [x, True], call)
    training = {"is_training": not module.use_running_average}
    return Plan(arguments, moves, [x], f"x, {listed(training)}", training)


def _average(name: str, leaves: Leaves, broadcast: Turn) -> Move:
    """A running statistic of linen as `hk.ExponentialMovingAverage`."""
    counter = jnp.asarray(LATE, jnp.int32)
    key = f"batch_stats/{name}"
    shape = leaves[key].shape
    return Move(
        [f"~/{name}_ema/{leaf}" for leaf in LEAVES],
        [key],
        lambda leaf: (counter, broadcast(leaf), broadcast(leaf)),  # two to donate
        lambda counter, hidden, average: (shaped(shape)(average),),
    )
