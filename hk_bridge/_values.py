"""What is known to be a value: code cannot tell apart two of which the keys are equal.

A list of what is known, by exact types; all else has no key. A key says all that code
can reach through a value *now*: the attributes of objects and classes, what functions
close over, and what their global names stand for, through all functions that they call.
So it is asked for anew each time. A key keeps nothing alive but plain data: the rest is
in it by weak references, which are equal while they are of the same thing.

What belongs to JAX, NumPy, Flax, Haiku and a few modules of Python is taken to stay as
it is, so it goes by identity.
"""

import abc
import builtins
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
import dataclasses
import enum
import functools
import inspect
import sys
import types
import typing
from typing import Any
import weakref

from flax import core
import flax.linen as nn
from flax.linen import module as linen_module
import jax
import numpy as np

from hk_bridge import _loads

_STABLE = frozenset([
    "abc", "builtins", "collections", "copy", "dataclasses", "enum", "functools",
    "inspect", "itertools", "logging", "math", "numbers", "operator", "re", "string",
    "types", "typing", "warnings", "chex", "distrax", "einops", "flax", "haiku",
    "hk_bridge", "jax", "jaxlib", "jmp", "ml_dtypes", "numpy", "optax", "scipy",
    "tensorflow_probability",
])  # fmt: skip
# Their functions tell of the thread, or of the calls before.
_CHANGING = ("haiku._src.mixed_precision",)
# Builtins through which code reaches what it does not name.
_REACHING = frozenset([
    "__import__", "breakpoint", "compile", "eval", "exec", "globals", "input",
    "locals", "open", "vars",
])  # fmt: skip
_MISSING: Any = object()
_Seen = dict[int, int]
ref = weakref.ref


class _Unknown(Exception):
    """It is not known to be a value."""


def key_of(value: Any) -> Hashable | None:
    """What is equal for equal values, or None if `value` is not known to be one.

    >>> key_of((1, 0.0)) == key_of((1, 0.0)), key_of((1, 0.0)) == key_of((1, -0.0))
    (True, False)
    >>> key_of({}.get) is None
    True
    """
    try:
        key: Hashable = _key(value, {})
    except (_Unknown, RecursionError):
        return None
    return key


def _key(value: Any, seen: _Seen) -> Any:
    """The key; `seen` numbers the functions and classes met, which may be cyclic."""
    known = _BY_TYPE.get(type(value))
    if known is not None:
        return known(value, seen)
    if isinstance(value, type):
        return _class(value, seen)
    if isinstance(value, nn.Module):
        return _module(value, seen)
    if isinstance(value, (jax.Array, np.ndarray)):
        raise _Unknown
    if isinstance(value, (np.dtype, jax.sharding.Sharding)):
        return type(value), value
    if isinstance(value, (np.bool_, np.number)):
        return _checked(type(value)), value.dtype.str, value.tobytes()
    if isinstance(value, enum.Enum):
        return _enum(value, seen)
    if isinstance(value, tuple):
        return _named_tuple(value, seen)
    if _is_official(value):
        return _official_key(value)
    if isinstance(value, _WRAPPERS):
        return _wrapper(value, seen)
    return _object(value, seen)


def _itself(value: Any, seen: _Seen) -> Any:
    return value


def _tagged(value: Any, seen: _Seen) -> Any:
    """By equality, among its kind: `np.dtype("int8") == "int8"`."""
    return type(value), value


def _row(value: Any, seen: _Seen) -> Any:
    return (type(value), *[_key(item, seen) for item in value])


def _pairs(items: Iterable[tuple[Any, Any]], seen: _Seen) -> Any:
    return tuple([(_key(k, seen), _key(v, seen)) for k, v in items])


def _mapping(value: Any, seen: _Seen) -> Any:
    return type(value), _pairs(value.items(), seen)


def _spec(value: Any, seen: _Seen) -> Any:
    return jax.sharding.PartitionSpec, value, _row(tuple(value), seen)


def _partial(value: Any, seen: _Seen) -> Any:
    parts = (value.func, value.args, value.keywords, value.__dict__)
    return functools.partial, *[_key(part, seen) for part in parts]


def _method(value: Any, seen: _Seen) -> Any:
    return "method", _key(value.__func__, seen), _key(value.__self__, seen)


def _builtin(value: Any, seen: _Seen) -> Any:
    owner: Any = value.__self__
    if isinstance(owner, (types.ModuleType, types.NoneType)):
        return ref(value)
    raise _Unknown  # bound to an object, which may change


def _python_module(value: Any, seen: _Seen) -> Any:
    if _is_stable(value.__name__) and sys.modules.get(value.__name__) is value:
        return types.ModuleType, value.__name__
    raise _Unknown


def _tree(value: Any, seen: _Seen) -> Any:
    """A PyTreeDef: its own equality is as coarse as that of the data in its nodes."""
    data = value.node_data()
    if data is None:
        return "leaf"
    kind, auxiliary = data
    children = [_tree(child, seen) for child in value.children()]
    return "node", _checked(kind), _key(auxiliary, seen), *children


# What belongs to a library.


def _is_stable(module: Any) -> bool:
    """Whether the name of a module is of a library that is taken to stay as it is."""
    return isinstance(module, str) and module.partition(".")[0] in _STABLE


# Keeps alive what is a constant of its library.
_officials: dict[int, Any] = {}


def _is_official(value: Any) -> bool:
    """Whether a stable library has `value` under its own name."""
    if id(value) in _officials:
        return True
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not _is_stable(module) or type(name) is not str:
        return False
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        return False
    _officials[id(value)] = value
    return True


def _official_key(value: Any) -> Any:
    """By identity: equality may be coarse, as that of `jnp.float32`."""
    return "of a library", id(value)  # which stays its own, as it is kept alive


def _is_stable_code(function: types.FunctionType) -> bool:
    """Whether the global names of `function` are those of a module of a library."""
    names = function.__globals__
    if id(names) in _officials:
        return True
    name = names.get("__name__")
    module: Any = sys.modules.get(str(name)) if _is_stable(name) else None
    if getattr(module, "__dict__", None) is not names:
        return False
    _officials[id(names)] = names
    return True


# Functions.


def _function(value: types.FunctionType, seen: _Seen) -> Any:
    """A function by its code and all that the code loads."""
    closure, code = value.__closure__, value.__code__
    is_stable = _is_stable_code(value)
    if is_stable and value.__module__ in _CHANGING:
        raise _Unknown
    if is_stable and _is_official(value):
        return _official_key(value)
    if id(value) in seen:
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    try:
        cells = [cell.cell_contents for cell in closure or ()]
    except ValueError:
        raise _Unknown from None  # an empty cell
    parts: list[Any] = [ref(code)]
    if value.__defaults__:
        parts.append(_row(value.__defaults__, seen))
    if value.__kwdefaults__:
        parts.append(_mapping(value.__kwdefaults__, seen))
    for name, held in value.__dict__.items():
        # What is also a cell is met there: the usual `functools.wraps`.
        if name != "__wrapped__" or not any(held is cell for cell in cells):
            parts.append((name, _key(held, seen)))
    for name, cell in zip(code.co_freevars, cells, strict=True):
        parts.append(_cell(cell, code, name, seen))
    if is_stable:
        return tuple(parts)
    loads = _loads.loads(code)
    if loads.writes:
        raise _Unknown
    for chain in loads.names:
        parts.append(_global(value.__globals__, chain, seen))
    for module, name in loads.imported:
        parts.append(_global(vars(sys.modules.get(module, builtins)), (name,), seen))
    return tuple(parts)


def _cell(held: Any, code: types.CodeType, name: str, seen: _Seen) -> Any:
    """What a closure holds. A bound module will do if only its fields are looked at."""
    if type(held) in _BY_TYPE and not isinstance(held, types.ModuleType):
        return _key(held, seen)
    is_bound = isinstance(held, nn.Module) and held.scope is not None
    if not is_bound and not isinstance(held, types.ModuleType):
        return _key(held, seen)
    chains = _loads.loads(code).held[name]
    if isinstance(held, types.ModuleType):
        return tuple([_attribute(held, chain, seen) for chain in chains])
    fields = {f.name for f in dataclasses.fields(held) if f.init} - {"parent", "name"}
    if not all(chain and chain[0] in fields for chain in chains):
        raise _Unknown
    names = dict.fromkeys(chain[0] for chain in chains)
    return nn.Module, *[_field(held, name, seen) for name in names]


def _field(module: nn.Module, name: str, seen: _Seen) -> Any:
    """A field of a bound module, if it is found in the usual way."""
    cls, values = type(module), vars(module)
    found = inspect.getattr_static(cls, name, None)
    usual = cls.__getattribute__ is object.__getattribute__
    if not usual or hasattr(found, "__set__") or name not in values:
        raise _Unknown
    return _key(values[name], seen)


def _global(names: dict[str, Any], chain: _loads.Chain, seen: _Seen) -> Any:
    """What a global name stands for now."""
    name, *rest = chain
    value = names.get(name, _MISSING)
    if value is _MISSING:
        value = vars(builtins).get(name, _MISSING)
        if value is _MISSING or name in _REACHING:
            raise _Unknown
    return _attribute(value, rest, seen)


def _attribute(value: Any, chain: Iterable[str], seen: _Seen) -> Any:
    """What a chain of attributes leads to, as far as it goes through modules."""
    for name in chain:
        if not isinstance(value, types.ModuleType):
            break  # the key of a value says all of its attributes
        value = getattr(value, name, _MISSING)
    return _constant(value, seen)


def _constant(value: Any, seen: _Seen) -> Any:
    """What code reaches by a global name, or of a class: not what it could change."""
    if type(value) is tuple:
        return (tuple, *[_constant(item, seen) for item in value])
    if value is _MISSING or not _is_fixed(value):
        raise _Unknown
    return _key(value, seen)


def _is_fixed(value: Any) -> bool:
    """Whether `value` is of a kind that has no attributes or items to be written."""
    kind = type(value)
    if kind in _BY_TYPE:
        return kind not in (list, dict, set)
    if dataclasses.is_dataclass(kind):
        parameters: Any = kind.__dict__.get("__dataclass_params__")
        frozen = parameters is not None and parameters.frozen
        return bool(frozen) or isinstance(value, nn.Module)
    return kind is object or isinstance(value, _FIXED) or _is_official(value)


def _wrapper(value: Any, seen: _Seen) -> Any:
    """A jitted function, or one with a derivative of its own, by what JAX runs."""
    state = dict(vars(value))
    state.pop("_jit_info", None)  # its options, which stay as they are
    state.pop("__annotations__", None)
    if not {"_fun", "fun"} & set(state):
        raise _Unknown  # `__wrapped__` is only a label
    return ref(value), _mapping(state, seen)


# Classes and their instances.

# What Python and Flax put on each class, and what says nothing.
_OF_EACH_CLASS = frozenset([
    "__module__", "__qualname__", "__doc__", "__annotations__", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__dict__", "__weakref__",
    "__dataclass_fields__", "__dataclass_params__", "__match_args__",
    "__parameters__", "__orig_bases__", "__abstractmethods__", "_abc_impl",
    "__static_attributes__", "__firstlineno__", "__type_params__",
    "__non_callable_proto_members__", "_is_protocol", "_is_runtime_protocol",
    "__protocol_attrs__",
])  # fmt: skip
_OF_EACH_MODULE = frozenset({"parent", "scope", "_parent_ref", "_state"})
_OF_EACH_INSTANCE = _OF_EACH_MODULE | {"_id"}
_MADE_BY_LIBRARIES = ("__init__", "__hash__", "__repr__")
_GENERATED = "<string>"  # the file of the methods that `dataclasses` writes
_DESCRIPTORS = (
    *(types.MemberDescriptorType, types.GetSetDescriptorType),
    *(types.WrapperDescriptorType, types.MethodDescriptorType),
    types.ClassMethodDescriptorType,
)
_CODE = (types.FunctionType, property, staticmethod, classmethod)
_MADE_BY_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_PLAIN_BASES: tuple[Any, ...] = (object, abc.ABC, typing.Generic, typing.Protocol)


def _checked(cls: type) -> Any:
    """A class of which only the name matters, being a library's or Python's."""
    if not _is_official(cls):
        return ref(cls)
    return _official_key(cls)


def _class(cls: type, seen: _Seen) -> Any:
    """A class by what it and its bases hold now."""
    if _is_official(cls):
        return _official_key(cls)
    if not _is_official(type(cls)):
        raise _Unknown  # a metaclass may find attributes elsewhere
    if id(cls) in seen:
        return "seen", seen[id(cls)]
    seen[id(cls)] = len(seen)
    parts: list[Any] = [ref(cls)]
    hidden = _OF_EACH_CLASS
    if issubclass(cls, nn.Module):
        hidden = hidden | _OF_EACH_MODULE
    for base in cls.__mro__:
        if _is_official(base):
            parts.append(_official_key(base))
            continue
        for name, value in vars(base).items():
            if name not in hidden:
                parts.append((name, _member(name, value, seen)))
    return tuple(parts)


def _member(name: str, value: Any, seen: _Seen) -> Any:
    """An attribute of a class."""
    if isinstance(value, (staticmethod, classmethod)):
        return type(value), _key(value.__func__, seen)
    if isinstance(value, property):
        parts = (value.fget, value.fset, value.fdel)
        return property, *[_key(part, seen) for part in parts]
    if isinstance(value, functools.cached_property):
        return functools.cached_property, _key(value.func, seen)
    if isinstance(value, linen_module.DescriptorWrapper):
        wrapped: Any = value
        return "wrapped", _member(name, wrapped.wrapped, seen)
    if isinstance(value, _DESCRIPTORS):
        return type(value), name
    if type(value) is types.FunctionType and name.startswith("__"):
        made = value.__code__.co_filename == _GENERATED
        if made or (name in _MADE_BY_LIBRARIES and _is_stable_code(value)):
            return ref(value)
    return _constant(value, seen)


def _module(value: nn.Module, seen: _Seen) -> Any:
    """A linen module that is bound to nothing, by its class and its fields."""
    if value.scope is not None or value.parent is not None:
        raise _Unknown  # its variables matter, too
    fields = [pair for pair in vars(value).items() if pair[0] not in _OF_EACH_INSTANCE]
    return nn.Module, _class(type(value), seen), _pairs(fields, seen)


class _Empty:
    """What an instance takes that has nothing but a `__dict__`."""


def _object(value: Any, seen: _Seen) -> Any:
    """An instance of a plain Python class, all of whose state is its `__dict__`."""
    cls = type(value)
    if cls is object:
        return value
    if cls.__basicsize__ != _Empty.__basicsize__ or cls.__itemsize__:
        raise _Unknown
    if not all(base in _PLAIN_BASES or _is_plain(base) for base in cls.__mro__):
        raise _Unknown
    return object, _class(cls, seen), _pairs(vars(value).items(), seen)


def _is_plain(base: type) -> bool:
    """Whether a class is written in Python and leaves attributes where they are."""
    own = vars(base)
    if own.get("__slots__") or "__getattr__" in own or "__getattribute__" in own:
        return False
    return bool(base.__flags__ & _MADE_BY_PYTHON)


def _named_tuple(value: Any, seen: _Seen) -> Any:
    """A named tuple of a class of its own, which may have methods, but no state."""
    cls = type(value)
    if hasattr(value, "__dict__") or not hasattr(cls, "_fields"):
        raise _Unknown
    own = [base for base in cls.__mro__ if base not in (tuple, object)]
    functions: list[Any] = []
    for base in own if not _is_official(cls) else ():
        for name, member in vars(base).items():
            if name not in _OF_NAMED_TUPLES and isinstance(member, _CODE):
                functions.append((name, _member(name, member, seen)))
    return _checked(cls), tuple(functions), *[_key(item, seen) for item in value]


_OF_NAMED_TUPLES = frozenset([
    "__new__", "_make", "_replace", "__replace__", "__repr__", "_asdict",
    "__getnewargs__",
])  # fmt: skip


def _enum(value: enum.Enum, seen: _Seen) -> Any:
    """A member of an enumeration, by its name and value."""
    cls = type(value)
    if _is_official(cls):
        return _official_key(cls), value.name, str(value._value_)
    if not set(vars(value)) <= {"_value_", "_name_", "__objclass__", "_sort_order_"}:
        raise _Unknown
    functions = [
        (name, _member(name, member, seen))
        for base in cls.__mro__
        if not _is_official(base)
        for name, member in vars(base).items()
        if isinstance(member, _CODE)
    ]
    return ref(cls), value.name, _key(value._value_, seen), tuple(functions)


_WRAPPERS: tuple[Any, ...] = (
    *(type(jax.jit(_itself)), jax.custom_jvp, jax.custom_vjp),
)
_FIXED: tuple[Any, ...] = (
    *(type, enum.Enum, tuple, np.dtype, np.bool_, np.number, jax.sharding.Sharding),
    *_WRAPPERS,
)
_BY_TYPE: dict[type, Callable[[Any, _Seen], Any]] = {
    int: _itself,
    str: _itself,
    types.NoneType: _tagged,
    types.EllipsisType: _tagged,
    bool: _tagged,  # True == 1
    bytes: _tagged,
    float: lambda value, seen: (float, value.hex()),  # 0.0 == -0.0, nan != nan
    complex: lambda value, seen: (complex, value.real.hex(), value.imag.hex()),
    tuple: _row,
    list: _row,
    set: _row,
    frozenset: _row,  # in the order in which code meets them
    range: lambda value, seen: (range, value.start, value.stop, value.step),
    slice: lambda value, seen: (
        slice,
        _row((value.start, value.stop, value.step), seen),
    ),
    dict: _mapping,
    core.FrozenDict: _mapping,
    functools.partial: _partial,
    types.FunctionType: _function,
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
