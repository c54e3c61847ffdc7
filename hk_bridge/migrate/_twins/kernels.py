"""Plans of the layers that have a kernel: Dense, convolutions, Embed."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge.migrate._twins.axes import as_axes
from hk_bridge.migrate._twins.leaves import Leaves
from hk_bridge.migrate._twins.plan import Move
from hk_bridge.migrate._twins.plan import Plan
from hk_bridge.migrate._twins.plan import Turn
from hk_bridge.migrate._twins.plan import each
from hk_bridge.migrate._twins.plan import floats
from hk_bridge.migrate._twins.plan import same
from hk_bridge.migrate._twins.refusals import expect
from hk_bridge.migrate._twins.refusals import listed

_linen = _flax.linen
hk = _haiku.native


def _linear(
    module: Any, arguments: Mapping[str, Any], shape: Sequence[int], turn: Turn = same
) -> Plan:
    """The plan of a layer with a kernel and a bias, for an input of `shape`.

    `turn` is its own inverse.
    """
    moves = [Move(["w"], ["params/kernel"], each(turn), each(turn))]
    moves += [Move(["b"], ["params/bias"])] * module.use_bias
    arguments = {**arguments, "with_bias": module.use_bias}
    inputs = [floats(*shape)]
    if module.precision is None:
        return Plan(arguments, moves, inputs)
    precision = {"precision": module.precision}
    return Plan(arguments, moves, inputs, f"x, {listed(precision)}", precision)


def dense(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    shape = [leaves.size("params/kernel", -2)]
    return _linear(module, {"output_size": module.features}, shape)


def _conv_arguments(
    module: Any, paddings: Sequence[str], turn: Turn = same
) -> dict[str, Any]:
    size = as_axes(module.kernel_size)
    padding = module.padding
    if padding == "CAUSAL" and padding in paddings:
        padding = ((as_axes(module.kernel_dilation)[0] * (size[0] - 1), 0),)
    if isinstance(padding, str):
        expected = f"{', '.join(map(repr, paddings))} or pairs of integers"
        expect(module, "padding", padding in paddings, expected)
    else:
        padding = _linen.linear.canonicalize_padding(padding, len(size))
    arguments = {
        "num_spatial_dims": len(size),
        "output_channels": module.features,
        "kernel_shape": size,
        "stride": as_axes(module.strides, len(size)),
        "padding": padding,
        "data_format": "channels_last",
    }
    if module.mask is not None:
        arguments["mask"] = turn(module.mask)
    return arguments


def conv(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    paddings = ["SAME", "SAME_LOWER", "VALID"]
    paddings += ["CAUSAL"] * (len(as_axes(module.kernel_size)) == 1)
    arguments = _conv_arguments(module, paddings)
    expect(module, "input_dilation", set(as_axes(module.input_dilation)) == {1}, "1")
    groups, size = module.feature_group_count, arguments["kernel_shape"]
    arguments["rate"] = as_axes(module.kernel_dilation, len(size))
    arguments["feature_group_count"] = groups
    shape = (*size, groups * leaves.size("params/kernel", -2))
    return _linear(module, arguments, shape)


def conv_transpose(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    expect(module, "kernel_dilation", set(as_axes(module.kernel_dilation)) == {1}, "1")

    def turn(kernel: Any) -> Any:  # to [..., out, in], unflipped
        if module.transpose_kernel:
            return kernel[(slice(None, None, -1),) * len(as_axes(module.kernel_size))]
        return kernel.swapaxes(-1, -2)

    arguments = _conv_arguments(module, ["SAME", "VALID"], turn)
    channels = leaves.size("params/kernel", -1 if module.transpose_kernel else -2)
    return _linear(module, arguments, (*arguments["kernel_shape"], channels), turn)


def embed(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    arguments = {"vocab_size": module.num_embeddings, "embed_dim": module.features}
    move = Move(["embeddings"], ["params/embedding"])
    return Plan(arguments, [move], [jax.ShapeDtypeStruct((1,), jnp.int32)], "ids")
