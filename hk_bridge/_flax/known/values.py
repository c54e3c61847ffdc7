"""What is known to be a value: code cannot tell apart two of which the keys are equal.

A list of what is known, by exact types; all else has no key. A key says all that code
can reach through a value *now*: the attributes of objects and classes, what functions
close over, and what their global names stand for, through all functions that they call.
So it is asked for anew each time. A key keeps nothing alive but plain data: the rest is
in it by weak references, which are equal while they are of the same thing.

What belongs to JAX, NumPy, Flax, Haiku and a few modules of Python is taken to stay as
it is, so it goes by identity.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
import dataclasses
import enum
import functools
import sys
import types
from typing import Any

from flax import core
import flax.linen as nn
import jax
import numpy as np

from hk_bridge._flax.known import classes
from hk_bridge._flax.known import functions
from hk_bridge._flax.known.library import MISSING
from hk_bridge._flax.known.library import REFLECTING
from hk_bridge._flax.known.library import Unknown
from hk_bridge._flax.known.library import is_official
from hk_bridge._flax.known.library import is_stable
from hk_bridge._flax.known.library import named
from hk_bridge._flax.known.library import official_key
from hk_bridge._flax.known.library import ref
from hk_bridge._flax.private import is_staged


def key_of(
    value: Any, *, by_type: bool = False, watched: frozenset[str] = frozenset()
) -> Hashable | None:
    """What is equal for equal values, or None if `value` is not known to be one.

    Args:
      by_type: arrays that are being traced are equal if their types are. They have no
        values yet, so code makes arrays of the same shapes of both.
      watched: code that mentions one of these names has no key; of `full_name`s, code
        that reaches what is so called.

    >>> key_of((1, 0.0)) == key_of((1, 0.0)), key_of((1, 0.0)) == key_of((1, -0.0))
    (True, False)
    >>> key_of({}.get) is None
    True
    """
    try:
        every = watched and watched | REFLECTING
        key: Hashable = Asking(by_type, every).key(value)
    except Exception:  # to look at an object may run code of its own
        return None
    return key


def is_fixed(value: Any) -> bool:
    """Whether `value` is known to be one, of a kind that cannot be written.

    >>> is_fixed((1, "a")), is_fixed([1]), is_fixed(({},))
    (True, False, False)
    """
    try:
        Asking(False).constant(value)
    except Exception:  # as above
        return False
    return True


class Asking:
    """One asking for a key."""

    __slots__ = ("by_type", "seen", "watched")

    def __init__(self, by_type: bool, watched: frozenset[str] = frozenset()) -> None:
        self.by_type = by_type
        self.watched = watched
        self.seen: dict[int, int] = {}

    def key(self, value: Any) -> Any:
        """The key of a value, or of a part of it."""
        known = _BY_TYPE.get(type(value))
        if known is not None:
            return known(value, self)
        for kinds, of_kind in _BY_KIND:
            if isinstance(value, kinds):
                return of_kind(value, self)
        if is_official(value):
            return official_key(value, self)
        if isinstance(value, _WRAPPERS):
            return functions.wrapper(value, self)
        return classes.instance(value, self)

    def pairs(self, items: Iterable[tuple[Any, Any]]) -> Any:
        """The keys of these pairs, in order."""
        return tuple([(self.key(k), self.key(v)) for k, v in items])

    def constant(self, value: Any) -> Any:
        """The key of what code reaches by a global name, or of a class.

        There it could also write, so it has to be of a kind that cannot be written."""
        if type(value) is tuple:
            return (tuple, *[self.constant(item) for item in value])
        if value is MISSING or not _is_fixed(value):
            raise Unknown
        return self.key(value)


def _is_fixed(value: Any) -> bool:
    """Whether `value` is of a kind that has no attributes or items to be written."""
    kind = type(value)
    if kind in _BY_TYPE:
        return kind not in (list, dict, set)
    if dataclasses.is_dataclass(kind):
        parameters: Any = kind.__dict__.get("__dataclass_params__")
        frozen = parameters is not None and parameters.frozen
        return bool(frozen) or isinstance(value, nn.Module)
    return kind is object or isinstance(value, _FIXED) or is_official(value)


def _itself(value: Any, ask: Asking) -> Any:
    return value


def _array(value: Any, ask: Asking) -> Any:
    if ask.by_type and is_staged(value):
        return "staged", jax.typeof(value)
    raise Unknown  # it may be written, or is not to be read


def _tagged(value: Any, ask: Asking) -> Any:
    """By equality, among its kind: `np.dtype("int8") == "int8"`."""
    return type(value), value


def _row(value: Any, ask: Asking) -> Any:
    return (type(value), *[ask.key(item) for item in value])


def _mapping(value: Any, ask: Asking) -> Any:
    return type(value), ask.pairs(value.items())


def _number(value: Any, ask: Asking) -> Any:
    return named(type(value)), value.dtype.str, value.tobytes()


def _slice(value: Any, ask: Asking) -> Any:
    return slice, ask.key((value.start, value.stop, value.step))


def _spec(value: Any, ask: Asking) -> Any:
    return jax.sharding.PartitionSpec, value, ask.key(tuple(value))


def _partial(value: Any, ask: Asking) -> Any:
    parts = (value.func, value.args, value.keywords, value.__dict__)
    return functools.partial, *[ask.key(part) for part in parts]


def _method(value: Any, ask: Asking) -> Any:
    return types.MethodType, ask.key(value.__func__), ask.key(value.__self__)


def _builtin(value: Any, ask: Asking) -> Any:
    owner: Any = value.__self__
    if value is getattr and ask.watched:
        raise Unknown
    if isinstance(owner, (types.ModuleType, types.NoneType)):
        return ref(value)
    raise Unknown  # bound to an object, which may change


def _python_module(value: Any, ask: Asking) -> Any:
    name: str = value.__name__
    if is_stable(name) and sys.modules.get(name) is value:
        return types.ModuleType, name
    raise Unknown


def _tree(value: Any, ask: Asking) -> Any:
    """A PyTreeDef: its own equality is as coarse as that of the data in its nodes."""
    data = value.node_data()
    if data is None:
        return jax.tree_util.PyTreeDef, None
    kind, auxiliary = data
    children = [None if c == _LEAF else _tree(c, ask) for c in value.children()]
    return jax.tree_util.PyTreeDef, named(kind), ask.key(auxiliary), *children


_LEAF = jax.tree.structure(0)
_WRAPPERS: tuple[Any, ...] = (
    *(type(jax.jit(lambda x: x)), jax.custom_jvp, jax.custom_vjp),
)
_FIXED: tuple[Any, ...] = (
    *(type, enum.Enum, tuple, np.dtype, np.bool_, np.number, jax.sharding.Sharding),
    *_WRAPPERS,
)
_BY_KIND: tuple[tuple[Any, Callable[[Any, Any], Any]], ...] = (
    (type, classes.class_),
    (nn.Module, classes.module),
    ((jax.Array, np.ndarray), _array),
    ((np.dtype, jax.sharding.Sharding), _tagged),
    ((np.bool_, np.number), _number),
    (enum.Enum, classes.member_of_enum),
    (tuple, classes.named_tuple),
)
_BY_TYPE: dict[type, Callable[[Any, Any], Any]] = {
    int: _itself,
    str: _itself,
    **dict.fromkeys((bool, bytes, types.NoneType, types.EllipsisType), _tagged),
    float: lambda value, ask: (float, value.hex()),  # 0.0 == -0.0, nan != nan
    complex: lambda value, ask: (complex, value.real.hex(), value.imag.hex()),
    **dict.fromkeys((tuple, list, set, frozenset), _row),  # in the order that code sees
    **dict.fromkeys((dict, core.FrozenDict), _mapping),
    range: lambda value, ask: (range, value.start, value.stop, value.step),
    slice: _slice,
    functools.partial: _partial,
    types.FunctionType: functions.function,
    types.MethodType: _method,
    types.BuiltinFunctionType: _builtin,
    types.MethodDescriptorType: _tagged,
    types.WrapperDescriptorType: _tagged,
    types.ModuleType: _python_module,
    jax.sharding.PartitionSpec: _spec,
    jax.sharding.Mesh: _tagged,
    jax.sharding.AbstractMesh: _tagged,
    jax.core.ShapedArray: _tagged,
    jax.tree_util.PyTreeDef: _tree,
}
