"""Keys of classes and their instances: what they hold now."""

import abc
import enum
import functools
import types
import typing
from typing import Any

import flax.linen as nn

from hk_bridge._flax import private
from hk_bridge._flax.known.library import Ask
from hk_bridge._flax.known.library import Unknown
from hk_bridge._flax.known.library import is_official
from hk_bridge._flax.known.library import is_stable_code
from hk_bridge._flax.known.library import official_key
from hk_bridge._flax.known.library import ref

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
_NNX_FIELDS = "_pytree__nodes"  # which attributes hold data, by their annotations
_WRAPPER: Any = private.DescriptorWrapper
_CODE = (types.FunctionType, property, staticmethod, classmethod)
_MADE_BY_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_PLAIN_BASES: tuple[Any, ...] = (object, abc.ABC, typing.Generic, typing.Protocol)


def class_(cls: type, ask: Ask) -> Any:
    """A class by what it and its bases hold now."""
    if is_official(cls):
        return official_key(cls, ask)
    if not cls.__flags__ & _MADE_BY_PYTHON:
        return ref(cls)  # of C: nobody can write into it
    if not is_official(type(cls)):
        raise Unknown  # a metaclass may find attributes elsewhere
    if id(cls) in ask.seen:
        return "seen", ask.seen[id(cls)]
    ask.seen[id(cls)] = len(ask.seen)
    if issubclass(cls, enum.Enum) or _is_named_tuple(cls):
        return _generated_class(cls, ask)
    parts: list[Any] = [ref(cls)]
    hidden = _OF_EACH_CLASS
    if issubclass(cls, nn.Module):
        hidden = hidden | _OF_EACH_MODULE
    for base in cls.__mro__:
        if is_official(base):
            parts.append(official_key(base, ask))
            continue
        for name, value in vars(base).items():
            if name not in hidden:
                parts.append((name, _member(name, value, ask)))
    return tuple(parts)


def _member(name: str, value: Any, ask: Ask) -> Any:
    """An attribute of a class."""
    if isinstance(value, (staticmethod, classmethod)):
        return type(value), ask.key(value.__func__)
    if isinstance(value, property):
        parts = (value.fget, value.fset, value.fdel)
        return property, *[ask.key(part) for part in parts]
    if isinstance(value, functools.cached_property):
        return functools.cached_property, ask.key(value.func)
    if _WRAPPER is not None and isinstance(value, _WRAPPER):
        wrapped: Any = value
        return "wrapped", _member(name, wrapped.wrapped, ask)
    if name == _NNX_FIELDS:
        return name, ask.pairs(value.items())
    if isinstance(value, _DESCRIPTORS):
        return type(value), name
    if type(value) is types.FunctionType and name.startswith("__"):
        made = value.__code__.co_filename == _GENERATED
        if made or (name in _MADE_BY_LIBRARIES and is_stable_code(value)):
            return ref(value)
    return ask.constant(value)


def module(value: nn.Module, ask: Ask) -> Any:
    """A linen module that is bound to nothing, by its class and its fields."""
    if value.scope is not None or value.parent is not None:
        raise Unknown  # its variables matter, too
    fields = [pair for pair in vars(value).items() if pair[0] not in _OF_EACH_INSTANCE]
    return nn.Module, class_(type(value), ask), ask.pairs(fields)


class _Empty:
    """What an instance takes that has nothing but a `__dict__`."""


def instance(value: Any, ask: Ask) -> Any:
    """An instance of a plain Python class, all of whose state is its `__dict__`."""
    cls = type(value)
    if cls is object:
        return value
    if cls.__basicsize__ != _Empty.__basicsize__ or cls.__itemsize__:
        raise Unknown
    if not all(base in _PLAIN_BASES or _is_plain(base) for base in cls.__mro__):
        raise Unknown
    return object, class_(cls, ask), ask.pairs(vars(value).items())


def _is_plain(base: type) -> bool:
    """Whether a class is written in Python and leaves attributes where they are."""
    own = vars(base)
    if own.get("__slots__") or "__getattr__" in own or "__getattribute__" in own:
        return False
    return bool(base.__flags__ & _MADE_BY_PYTHON)


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _generated_class(cls: Any, ask: Ask) -> Any:
    """A class that Python made of a list of names: the list, and its own functions."""
    if issubclass(cls, enum.Enum):
        names = [(name, ask.key(m._value_)) for name, m in cls.__members__.items()]
    else:
        names = [(name, name in cls._field_defaults) for name in cls._fields]
    listed = {*_OF_GENERATED, *(name for name, _ in names)}
    own = [
        (name, _member(name, member, ask))
        for base in cls.__mro__
        if base is not tuple and not is_official(base)
        for name, member in vars(base).items()
        if name not in listed and (isinstance(member, _CODE) or name[0] != "_")
    ]
    return ref(cls), tuple(names), tuple(own)


# The methods of named tuples and enumerations that Python makes.
_OF_GENERATED = frozenset([
    "__new__", "_make", "_replace", "__replace__", "__repr__", "_asdict",
    "__getnewargs__", "_generate_next_value_", "_new_member_",
])  # fmt: skip


def named_tuple(value: Any, ask: Ask) -> Any:
    """A named tuple, which may have methods, but no state of its own."""
    cls = type(value)
    if hasattr(value, "__dict__") or not _is_named_tuple(cls):
        raise Unknown
    return class_(cls, ask), *[ask.key(item) for item in value]


def member_of_enum(value: enum.Enum, ask: Ask) -> Any:
    """A member of an enumeration, by its name and value."""
    if not set(vars(value)) <= {"_value_", "_name_", "__objclass__", "_sort_order_"}:
        raise Unknown
    return class_(type(value), ask), value.name
