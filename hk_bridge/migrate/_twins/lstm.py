"""The plan of the LSTM."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hk_bridge.migrate._twins.leaves import Leaves
from hk_bridge.migrate._twins.plan import Move
from hk_bridge.migrate._twins.plan import Plan
from hk_bridge.migrate._twins.plan import floats


def _joined(leaves: Sequence[Any], axis: int = -1) -> Any:
    xp: Any = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
    return xp.concatenate(leaves, axis)


def lstm(module: Any, leaves: Leaves, ndim: int | None) -> Plan:
    n, size = module.features, leaves.size("params/ii/kernel", -2)
    forget = leaves["params/hf/bias"]

    def split(leaf: Any) -> list[Any]:
        return [leaf[..., k * n : (k + 1) * n] for k in range(4)]

    def bias(i: Any, g: Any, f: Any, o: Any) -> tuple[Any]:
        return (_joined([i, g, f - 1, o]),)

    def biases(b: Any) -> tuple[Any, ...]:
        i, g, f, o = split(b)
        # Near zero, f + 1 has lost bits that the given bias has.
        return i, g, jnp.where(f == forget - 1, forget, f + 1), o

    kernels = [f"params/{of}{gate}/kernel" for of in "ih" for gate in "igfo"]
    weights = Move(
        ["linear/w"],
        kernels,  # in Haiku's order
        lambda *kernels: (_joined([_joined(kernels[:4]), _joined(kernels[4:])], 0),),
        lambda w: (*split(w[:size]), *split(w[size:])),
    )
    names = [f"params/h{gate}/bias" for gate in "igfo"]
    moves = [weights, Move(["linear/b"], names, bias, biases)]
    inputs = [(floats(n), floats(n)), floats(size)]
    return Plan({"hidden_size": n}, moves, inputs, "x, hk.LSTMState(hidden=h, cell=c)")
