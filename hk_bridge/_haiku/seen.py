"""Being seen: Flax submodules in the eyes of Haiku's interceptors, tables and hooks.

Private in Haiku (since dm-haiku 0.0.16), and used here since there is no public way:

* `hk.Module._submodules`, `_creation_frame_id` and `_auto_repr`: what a stand-in must
  have to pass for a module;
* `haiku._src.base.ModuleState` and `current_frame().module_stack`: a leaf is named
  after the module on top of it, and Haiku refuses names such as `0` for a module;
* `haiku._src.module.interceptor_stack` and
  `haiku._src.mixed_precision._mixed_precision_interceptor`: nothing public tells
  whether somebody intercepts.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
from typing import Any

import haiku as hk
from haiku._src import base
from haiku._src import mixed_precision
from haiku._src import module as haiku_module


class _StandIn(hk.Module):
    """A Flax submodule, as Haiku's hooks see it: `context.module` of its leaves."""


class _Callees(set[str]):
    """The modules that a module calls, for its tables.

    Haiku also adds those that call it, while it makes a table: `eval_summary` asks each
    module on the stack for its params. Their params would be counted here, too."""

    def __init__(self, module_name: str):
        super().__init__()
        self._module_name = module_name

    def add(self, name: str) -> None:
        if not self._module_name.startswith(name + "/"):
            super().add(name)


def _stand_in(
    owner: hk.Module, module_name: str, cls: type[hk.Module] = _StandIn
) -> hk.Module:
    # Not by hk.Module.__init__, which refuses names such as `0` and counts names.
    module: Any = object.__new__(cls)
    module.module_name = module_name
    module.name = module_name.split("/")[-1]
    module._submodules = _Callees(module_name)
    module._creation_frame_id = owner._creation_frame_id
    module._auto_repr = f"{type(owner).__name__}(name={module_name!r})"
    stand_in: hk.Module = module
    return stand_in


def name_in_force(owner: hk.Module) -> str:
    """Under which name Haiku files the leaves of `owner` now.

    While a method of it runs, that is the name on top of Haiku's stack, which an
    interceptor may have put there (`hk.name_scope`)."""
    stack = base.current_frame().module_stack
    if any(entry.module is owner for entry in stack):
        return base.current_name()
    name: str = owner.module_name
    return name


def haiku_inside(
    owner: hk.Module, name: str
) -> contextlib.AbstractContextManager[None]:
    """Where Haiku modules go that Flax code builds, and leaves that it makes itself.

    A name that begins with `~` is none of Flax, so they are not among its variables."""
    return inside(owner, f"{name}{_IN_FLAX}")


_IN_FLAX = "/~flax"


@contextlib.contextmanager
def _outside() -> Iterator[None]:
    """As if `haiku_inside` were not in force, for who looks at the stack of modules."""
    stack: Any = base.current_frame().module_stack
    if not stack.peek().module.module_name.endswith(_IN_FLAX):
        yield
        return
    hidden = stack.pop()
    try:
        yield
    finally:
        stack.push(hidden)


def inside(
    owner: hk.Module, module_name: str
) -> contextlib.AbstractContextManager[None]:
    """Where leaves are named after `module_name`: `owner` or a Flax submodule of it."""
    own = module_name == owner.module_name
    module = owner if own else _stand_in(owner, module_name)
    return base.current_frame().module_stack(base.ModuleState(module, "__call__"))


def is_observed() -> bool:
    """Whether `hk.intercept_methods` is in force, or a table is being made."""
    # Once a policy was set, Haiku never takes its interceptor away; it looks at modules
    # of the classes that have a policy, which a stand-in's cannot.
    policies = mixed_precision._mixed_precision_interceptor
    return any(other is not policies for other in haiku_module.interceptor_stack)


def observe(
    owner: hk.Module,
    module_name: str,
    shown: tuple[str, str],
    method_name: str,
    run: Callable[..., Any],
    args: Any,
    kwargs: Any,
) -> Any:
    """Runs `run` as a method of a Haiku module, which interceptors see.

    Args:
      shown: the name of the class, and the text of the instance, to be shown.
    """
    class_name, text = shown
    module: Any = _stand_in(
        owner, module_name, _observed_class(class_name, method_name)
    )
    module._auto_repr, module._run = text, run
    with _outside():
        return getattr(module, method_name)(*args, **kwargs)


@functools.cache
def _observed_class(class_name: str, method_name: str) -> type[hk.Module]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    metaclass: Any = type(hk.Module)
    cls: type[hk.Module] = metaclass(class_name, (_StandIn,), {method_name: method})
    return cls


def is_flax_over_haiku(module: Any) -> bool:
    """Whether `module` is the Flax module in which a Haiku transform runs."""
    return isinstance(module, hk.experimental.flax.Module)
