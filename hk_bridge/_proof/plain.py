"""A parameter of a primitive as something that can be hashed and compared.

Retracing makes functions, policies and arrays anew, so most of what JAX keeps in the
parameters is another object each time, and often not equal to the former one.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
import dataclasses
import enum
import functools
import types
from typing import Any

import jax
from jax.extend import core as jex
import jax.numpy as jnp
import numpy as np

# What is told by its own `==`, which looks at all that it is.
_ATOMS = (
    *(bool, int, str, bytes, type, types.NoneType, types.EllipsisType, enum.Enum),
    *(np.dtype, jax.Device, jax.tree_util.PyTreeDef),
    *(jax.sharding.PartitionSpec, jax.sharding.Sharding, jax.sharding.Mesh),
    *(jax.sharding.AbstractMesh, jax.core.ShapedArray),
    *(types.BuiltinFunctionType, types.CodeType, np.ufunc),
)
# Made anew at each trace, and equal to none. What such a rule of differentiation does
# is seen in the gradient's program.
_FRESH = {"WrappedFun"}


def plain(
    value: Any,
    program: Callable[[Any], Hashable],
    within: frozenset[int] = frozenset(),
) -> Hashable:
    """What is equal for equal values.

    Args:
      value: a parameter, or a part of one.
      program: what is equal for equal programs.
      within: ids of what `value` is inside of, if that is what a function closes over.
        Whatever holds more than plain data counts by its type there: it may be the
        tracers and the scopes of one trace.
    """
    name = type(value).__name__
    if id(value) in within:
        return "again", name
    deeper = within | {id(value)} if within else within
    again = functools.partial(plain, program=program, within=deeper)
    if isinstance(value, float):
        return "float", value.hex()  # 0.0 == -0.0, and nan is not nan
    if isinstance(value, complex):
        return "complex", value.real.hex(), value.imag.hex()
    if isinstance(value, _ATOMS):
        return name, value
    if isinstance(value, jax.core.Tracer):
        return "Tracer"
    if isinstance(value, np.ndarray) and value.dtype == object:
        return name, value.shape, again([*value.flat])
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return bits(value)
    if is_row(value):
        return name, tuple(map(again, value))
    if isinstance(value, (set, frozenset)):
        return name, frozenset(map(again, value))
    if isinstance(value, Mapping):
        return name, frozenset((again(k), again(v)) for k, v in value.items())
    if isinstance(value, functools.partial):
        return name, again([value.func, value.args, value.keywords])
    if isinstance(value, types.FunctionType):
        return _function(value, program, within)
    if isinstance(value, types.MethodType):
        return name, again(value.__func__), _held(value.__self__, program, within)
    if hasattr(value, "__wrapped__"):
        return name, again(value.__wrapped__)  # a jitted function, say
    if dataclasses.is_dataclass(value) and (not within or _is_frozen(value)):
        fields = [getattr(value, f.name, None) for f in dataclasses.fields(value)]
        return name, again(fields)
    if (
        callable(value)
        and not dataclasses.is_dataclass(value)
        and hasattr(value, "__dict__")
    ):
        return _held(value, program, within)
    if within:
        return name
    if is_program(value):
        return program(value)
    if _has_equality(value) and name not in _FRESH:
        return name, value
    return name, getattr(value, "__qualname__", None) or getattr(value, "name", None)


def is_row(value: Any) -> bool:
    """Whether `value` is a tuple or a list."""
    return isinstance(value, (tuple, list))


def is_program(value: Any) -> bool:
    """Whether `value` is a traced program, closed or not."""
    return isinstance(value, (jex.Jaxpr, jex.ClosedJaxpr))


def bits(value: Any) -> Hashable:
    """An array by its dtype, shape and bits."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return str(value.dtype), bits(jax.random.key_data(value))
    if isinstance(value, jax.Array) and value.is_deleted():
        return str(value.dtype), value.shape
    array = np.asarray(value)
    return array.dtype.name, array.shape, array.tobytes()


def _function(
    function: types.FunctionType,
    program: Callable[[Any], Hashable],
    within: frozenset[int],
) -> Hashable:
    """A function by its code, its defaults and what it closes over."""
    held = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    inside = [function.__defaults__, function.__kwdefaults__, held]
    deeper = within | {id(function)}
    return (
        *("function", function.__qualname__, function.__code__),
        plain(inside, program, deeper),
    )


def _held(
    owner: Any, program: Callable[[Any], Hashable], within: frozenset[int]
) -> Hashable:
    """What has code of its own, by its type and attributes; a dataclass by its type.

    A Flax module is one: it holds the scope of one trace.
    """
    if isinstance(owner, type) or dataclasses.is_dataclass(owner):
        return type(owner).__name__
    held = dict(getattr(owner, "__dict__", {}))
    return type(owner).__name__, plain(held, program, within | {id(owner)})


def _is_full(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  raises if there are none yet
    except ValueError:
        return False
    return True


def _is_frozen(value: Any) -> bool:
    return bool(value.__dataclass_params__.frozen)


def _has_equality(value: Any) -> bool:
    equal: Any = type(value).__eq__
    return equal is not object.__eq__ and type(value).__hash__ is not None
