"""The plan of attention."""

import math
from typing import Any

import jax.numpy as jnp

from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge.migrate._twins.leaves import Leaves
from hk_bridge.migrate._twins.plan import Move
from hk_bridge.migrate._twins.plan import Plan
from hk_bridge.migrate._twins.plan import each
from hk_bridge.migrate._twins.plan import floats
from hk_bridge.migrate._twins.plan import shaped
from hk_bridge.migrate._twins.refusals import expect
from hk_bridge.migrate._twins.refusals import expect_leaves

_linen = _flax.linen
hk = _haiku.native


def attention(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    silent = module.dropout_rate == 0 or bool(module.deterministic)
    expect(module, "dropout_rate", silent, "0.0, or deterministic to be True")
    holds = lambda d: d.itemsize >= 4 or d == jnp.bfloat16
    expected = "float32 or bfloat16 ones, as Haiku masks with -1e30"
    expect_leaves(module, leaves, holds, expected)
    moves = []
    for flax in ("query", "key", "value", "out"):
        haiku = "linear" if flax == "out" else flax
        for leaf, name in [("w", "kernel"), ("b", "bias")][: 1 + module.use_bias]:
            key = f"params/{flax}/{name}"
            shape = leaves[key].shape  # [D, H, K] and [H, K]; of out [H, K, D] and [D]
            last = math.prod(shape[-1:] if flax == "out" else shape[-2:])
            flat = shaped((-1, last) if name == "kernel" else (last,))
            move = Move([f"{haiku}/{leaf}"], [key], each(flat), each(shaped(shape)))
            moves.append(move)
    names = ("query", "key", "value")
    sizes = [leaves.size(f"params/{name}/kernel", -3) for name in names]
    arguments = {
        "num_heads": module.num_heads,
        "key_size": (module.qkv_features or sizes[0]) // module.num_heads,
        "model_size": module.out_features or sizes[0],
        "with_bias": module.use_bias,
        "w_init": hk.initializers.VarianceScaling(1.0),  # Haiku asks for one
    }
    inputs = [floats(1, size) for size in sizes]
    return Plan(arguments, moves, inputs, "query, key, value, mask")
