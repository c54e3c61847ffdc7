"""What determines a value, as far as that is known."""

from collections.abc import Mapping
import dataclasses
import enum
import functools
import types
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from .bind import fields
from .host import MISSING

# What is the same wherever it is equal, and does not change.
_PLAIN: tuple[Any, ...] = (
    *(int, str, bytes, type, types.NoneType, types.EllipsisType, enum.Enum),
    *(types.BuiltinFunctionType, np.dtype, np.ufunc, jax.numpy.ufunc),
    *(jax.core.ShapedArray, jax.tree_util.PyTreeDef, jax.sharding.PartitionSpec),
    *(jax.sharding.Sharding, jax.sharding.Mesh, jax.sharding.AbstractMesh),
)


def frozen_key(value: Any, *, bound: bool = False) -> Any:
    """What determines `value`, hashable, or None if there is no such thing.

    Args:
      bound: takes a module that is bound to variables for its fields. If a closure
        looks at more of it than that, the key says too little: enough for a shape,
        which is only checked, not for a value.
    """
    try:
        key = _frozen(value, bound)
        hash(key)
    except (TypeError, ValueError, RecursionError):
        return None  # unhashable, an empty cell, or a closure that holds itself
    return key


def _frozen(value: Any, bound: bool) -> Any:
    """`value` with functions as code and what they close over, modules as fields."""
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_frozen(item, bound) for item in value)
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        inside = (cells, value.__defaults__, value.__kwdefaults__)
        return value.__code__, id(value.__globals__), _frozen(inside, bound)
    if isinstance(value, _PLAIN) or type(value) is object:
        return type(value), value
    if isinstance(value, float):
        return type(value), value.hex()  # 0.0 == -0.0
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return functools.partial, _frozen(parts, bound)
    if isinstance(value, nn.Module):
        is_bound = value.scope is not None
        if is_bound and not bound:
            raise TypeError("Its variables matter, too.")
        hidden = ("name",) if is_bound else ()
        return type(value), _frozen(fields(value, *hidden), bound)
    if isinstance(value, Mapping):
        return type(value), _frozen(tuple(value.items()), bound)
    if isinstance(value, jax.Array):
        raise TypeError("A tracer would be kept alive, and goes by its identity.")
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value)]
        state = {name: getattr(value, name, MISSING) for name in names}
        return type(value), _frozen({**state, **getattr(value, "__dict__", {})}, bound)
    if hasattr(value, "__wrapped__"):  # jitted, or with a derivative of its own
        return type(value), value, _frozen(value.__wrapped__, bound)
    if not bound:
        raise TypeError("It could change, or equal what is not the same.")
    return type(value), value
