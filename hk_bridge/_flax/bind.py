"""Binding a module to a Scope, as `module.clone(parent=scope)` does, in less time.

Private in Flax: `nn.Module.clone(_deep_clone=True)`, `_state` and `__post_init__`: how
`apply` and `bind` bind a module, and what there is of it for one without modules in its
fields.
"""

import dataclasses
import types
from typing import Any

from flax import core
import flax.linen as nn

from hk_bridge._flax import private


def bind(module: nn.Module, scope: core.Scope) -> nn.Module:
    """`module` with this scope, as `module.clone(parent=scope, _deep_clone=True)` is.

    Flax looks for modules in each field, which takes the most of the time of binding a
    layer whose fields have no place for them."""
    simple = type(module).__post_init__ is nn.Module.__post_init__
    known = private.module_state is not None
    if not (known and simple and _is_flat(fields(module))):
        return module.clone(parent=scope, _deep_clone=True)
    bound: nn.Module = module.clone(parent=None)
    bound.parent = bound.scope = scope  # type: ignore[assignment]  # a Scope may be
    bound._state.is_initialized = True
    return bound


def fields(module: nn.Module, *hidden: str) -> tuple[Any, ...]:
    """What `module` was built with, but for its parent and what is hidden."""
    names = [f.name for f in dataclasses.fields(module) if f.init]
    hidden = ("parent", *hidden)
    return tuple(getattr(module, name) for name in names if name not in hidden)


def _is_flat(value: Any) -> bool:
    """Whether `value` is nothing that could be, or hold, a module."""
    if type(value) is tuple:
        return all(map(_is_flat, value))
    return isinstance(value, _FLAT)


_FLAT = (int, float, str, type, types.NoneType, types.FunctionType)
