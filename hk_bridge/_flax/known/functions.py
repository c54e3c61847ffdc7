"""Keys of functions: their code, and what it reaches now."""

import builtins
from collections.abc import Iterable
import dataclasses
import inspect
import sys
import types
from typing import Any

import flax.linen as nn

from hk_bridge._flax.known import loads as _loads
from hk_bridge._flax.known.library import CHANGING
from hk_bridge._flax.known.library import MISSING
from hk_bridge._flax.known.library import Ask
from hk_bridge._flax.known.library import Unknown
from hk_bridge._flax.known.library import is_official
from hk_bridge._flax.known.library import is_stable_code
from hk_bridge._flax.known.library import official_key
from hk_bridge._flax.known.library import ref

# Builtins through which code reaches what it does not name.
_REACHING = frozenset([
    "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "globals",
    "input", "locals", "open", "setattr", "vars",
])  # fmt: skip


def function(value: types.FunctionType, ask: Ask) -> Any:
    """A function by its code and all that the code loads."""
    code, is_stable = value.__code__, is_stable_code(value)
    if is_stable and value.__module__ in CHANGING:
        raise Unknown
    if is_stable and value.__name__ in ask.watched:
        raise Unknown  # by another name than its own
    if is_stable and is_official(value):
        return official_key(value, ask)
    if id(value) in ask.seen:
        return "seen", ask.seen[id(value)]
    ask.seen[id(value)] = len(ask.seen)
    return (
        ref(code),
        ask.key(value.__defaults__),
        value.__kwdefaults__ and ask.pairs(value.__kwdefaults__.items()),
        *_held(value, ask),
        *(() if is_stable else _loaded(value, ask)),
    )


def _held(value: types.FunctionType, ask: Ask) -> tuple[Any, Any]:
    """What a function closes over, and its attributes."""
    try:
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
    except ValueError:
        raise Unknown from None  # an empty cell
    code = value.__code__
    names = zip(code.co_freevars, cells, strict=True)
    attributes = [
        (name, held)
        for name, held in value.__dict__.items()
        # What is also a cell is met there: the usual `functools.wraps`.
        if name != "__wrapped__" or not any(held is cell for cell in cells)
    ]
    closure = tuple([_cell(cell, code, name, ask) for name, cell in names])
    return closure, ask.pairs(attributes)


def _loaded(value: types.FunctionType, ask: Ask) -> tuple[Any, ...]:
    """What the global names of a function stand for now."""
    loads, names = _loads.loads(value.__code__), value.__globals__
    if loads.writes or loads.reaches(ask.watched):
        raise Unknown
    found = [
        None
        if chain[0] in loads.own and chain[0] not in names
        # The name is of a class that the code defines.
        else _global(names, chain, ask)
        for chain in loads.names
    ]
    for module, name in loads.imported:
        if module not in sys.modules:
            raise Unknown
        found.append(_global(vars(sys.modules[module]), (name,), ask))
    return tuple(found)


def _cell(held: Any, code: types.CodeType, name: str, ask: Ask) -> Any:
    """What a closure holds. A bound module will do if only its fields are looked at."""
    if isinstance(held, types.ModuleType):
        chains = _loads.loads(code).held[name]
        return tuple([_attribute(held, chain, ask) for chain in chains])
    if not isinstance(held, nn.Module) or held.scope is None:
        return ask.key(held)
    chains = _loads.loads(code).held[name]
    fields = {f.name for f in dataclasses.fields(held) if f.init} - {"parent", "name"}
    if not all(chain and chain[0] in fields for chain in chains):
        raise Unknown
    looked_at = dict.fromkeys(chain[0] for chain in chains)
    return nn.Module, *[_field(held, field, ask) for field in looked_at]


def _field(module: nn.Module, name: str, ask: Ask) -> Any:
    """A field of a bound module, if it is found in the usual way."""
    cls, values = type(module), vars(module)
    found = inspect.getattr_static(cls, name, None)
    usual = cls.__getattribute__ is object.__getattribute__
    if not usual or hasattr(found, "__set__") or name not in values:
        raise Unknown
    return ask.key(values[name])


def _global(names: dict[str, Any], chain: _loads.Chain, ask: Ask) -> Any:
    """What a global name stands for now."""
    name, *rest = chain
    value = names.get(name, MISSING)
    if value is MISSING:
        value = vars(builtins).get(name, MISSING)
        if value is MISSING or name in _REACHING:
            raise Unknown
        if value is getattr:
            return None  # what it is asked for was read with the code
    return _attribute(value, rest, ask)


def _attribute(value: Any, chain: Iterable[str], ask: Ask) -> Any:
    """What a chain of attributes leads to, as far as it goes through modules."""
    for name in chain:
        if not isinstance(value, types.ModuleType):
            break  # the key of a value says all of its attributes
        value = getattr(value, name, MISSING)
    return ask.constant(value)


def wrapper(value: Any, ask: Ask) -> Any:
    """A jitted function, or one with a derivative of its own, by what JAX runs."""
    state = dict(vars(value))
    state.pop("_jit_info", None)  # its options, which stay as they are
    state.pop("__annotations__", None)
    if not {"_fun", "fun"} & set(state):
        raise Unknown  # `__wrapped__` is only a label
    return ref(value), ask.pairs(state.items())
