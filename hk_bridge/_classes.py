"""Keys of classes and their instances: what they hold now."""

import abc
import enum
import functools
import types
import typing
from typing import Any

import flax.linen as nn
from flax.linen import module as linen_module

from hk_bridge._library import Ask
from hk_bridge._library import Unknown
from hk_bridge._library import is_official
from hk_bridge._library import is_stable_code
from hk_bridge._library import named
from hk_bridge._library import official_key
from hk_bridge._library import ref

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


def class_(cls: type, ask: Ask) -> Any:
    """A class by what it and its bases hold now."""
    if is_official(cls):
        return official_key(cls)
    if not is_official(type(cls)):
        raise Unknown  # a metaclass may find attributes elsewhere
    if id(cls) in ask.seen:
        return "seen", ask.seen[id(cls)]
    ask.seen[id(cls)] = len(ask.seen)
    parts: list[Any] = [ref(cls)]
    hidden = _OF_EACH_CLASS
    if issubclass(cls, nn.Module):
        hidden = hidden | _OF_EACH_MODULE
    for base in cls.__mro__:
        if is_official(base):
            parts.append(official_key(base))
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
    if isinstance(value, linen_module.DescriptorWrapper):
        wrapped: Any = value
        return "wrapped", _member(name, wrapped.wrapped, ask)
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


def named_tuple(value: Any, ask: Ask) -> Any:
    """A named tuple of a class of its own, which may have methods, but no state."""
    cls = type(value)
    if hasattr(value, "__dict__") or not hasattr(cls, "_fields"):
        raise Unknown
    own = [base for base in cls.__mro__ if base not in (tuple, object)]
    functions: list[Any] = []
    for base in own if not is_official(cls) else ():
        for name, member in vars(base).items():
            if name not in _OF_NAMED_TUPLES and isinstance(member, _CODE):
                functions.append((name, _member(name, member, ask)))
    return named(cls), tuple(functions), *[ask.key(item) for item in value]


_OF_NAMED_TUPLES = frozenset([
    "__new__", "_make", "_replace", "__replace__", "__repr__", "_asdict",
    "__getnewargs__",
])  # fmt: skip


def member_of_enum(value: enum.Enum, ask: Ask) -> Any:
    """A member of an enumeration, by its name and value."""
    cls = type(value)
    if is_official(cls):
        return official_key(cls), value.name, str(value._value_)
    if not set(vars(value)) <= {"_value_", "_name_", "__objclass__", "_sort_order_"}:
        raise Unknown
    functions = [
        (name, _member(name, member, ask))
        for base in cls.__mro__
        if not is_official(base)
        for name, member in vars(base).items()
        if isinstance(member, _CODE)
    ]
    return ref(cls), value.name, ask.key(value._value_), tuple(functions)
