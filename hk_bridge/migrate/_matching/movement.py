"""Steps that only move elements, and where from: run on numbers instead of weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge.migrate._matching.flat import Step

# What gives back what it is given, as far as numbers are concerned.
NEUTRAL = {
    "convert_element_type",
    "copy",
    "copy_p",
    "stop_gradient",
    "reduce_precision",
}
NEUTRAL |= {"sharding_constraint", "optimization_barrier", "name", "mesh_cast"}
# What turns or repeats what it is given.
TURNS = {"reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "rev"}
TURNS |= {"tile"}
TURNS |= NEUTRAL
# What takes a part of it.
CUTS = {"slice", "split", "scan_slice", "dynamic_slice", "gather", "dynamic_index"}
JOINS = {"concatenate", "scan_stack", "pad"}
# What is done to each element alone, or to two in the same place.
ELEMENTWISE = {"add", "add_any", "sub", "mul", "div", "max", "min", "pow", "neg", "exp"}
ELEMENTWISE |= {"exp2", "log", "log1p", "expm1", "tanh", "sin", "cos", "sqrt", "rsqrt"}
ELEMENTWISE |= {
    "cbrt",
    "square",
    "integer_pow",
    "abs",
    "sign",
    "floor",
    "ceil",
    "round",
}
ELEMENTWISE |= {"logistic", "erf", "erfc", "erf_inv", "select_n", "clamp", "is_finite"}
ELEMENTWISE |= {"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "rem", "atan2"}
MOVES = TURNS | CUTS | JOINS


def moved(step: Step, arrays: list[np.ndarray], constants: list[Any]) -> list[Any]:
    """The results of a step that moves numbers.

    Args:
      arrays: its operands, as numbers; those after them are known.
      constants: the operands after them, starts of a slice or indices.
    """
    if step.name in NEUTRAL:
        return list(arrays)
    if step.run is not None:
        return [step.run(*arrays)]
    first, params = arrays[0], step.params
    if step.name == "transpose":
        return [first.transpose(params["permutation"])]
    if step.name in ("squeeze", "expand_dims"):
        return [first.reshape(step.eqn.outvars[0].aval.shape)]
    if step.name == "reshape" and params.get("dimensions") is None:
        return [first.reshape(params["new_sizes"])]
    if step.name == "broadcast_in_dim":
        shape = [1] * len(params["shape"])
        for axis, size in zip(params["broadcast_dimensions"], first.shape, strict=True):
            shape[axis] = size
        return [np.broadcast_to(first.reshape(shape), params["shape"])]
    if step.name == "slice":
        strides = params["strides"] or (1,) * first.ndim
        bounds = zip(
            params["start_indices"], params["limit_indices"], strides, strict=True
        )
        return [first[tuple(slice(*bound) for bound in bounds)]]
    if step.name == "concatenate":
        return [np.concatenate(arrays, params["dimension"])]
    with jax.enable_x64(True):
        fill = [jnp.asarray(-1, first.dtype)] if step.name == "pad" else constants
        given = [jnp.asarray(array) for array in arrays]
        params = dict(params)
        if step.name == "gather":
            params["fill_value"] = -1
        made = step.eqn.primitive.bind(*given, *map(jnp.asarray, fill), **params)
    results = made if step.eqn.primitive.multiple_results else [made]
    return [np.asarray(result) for result in results]
