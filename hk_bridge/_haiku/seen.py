"""Being seen: Flax submodules in the eyes of Haiku's interceptors, tables and hooks.

Private in Haiku (since dm-haiku 0.0.16), and used here since there is no public way:

* `hk.Module._submodules`, `_creation_frame_id` and `_auto_repr`: what a stand-in must
  have to pass for a module;
* `haiku._src.base.ModuleState` and `current_frame().module_stack`: a leaf is named
  after the module on top of it, and Haiku refuses names such as `0` for a module;
* `haiku._src.module.interceptor_stack` and
  `haiku._src.mixed_precision._mixed_precision_interceptor`: nothing public tells
  whether somebody intercepts;
* `haiku._src.mixed_precision._thread_local_state._cls_policy`: nothing public tells
  which classes have a policy;
* `haiku._src.config.get_config`: only a setter tells whether modules have a text.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import itertools
from typing import Any

import haiku as hk
from haiku._src import base

from hk_bridge import _errors
from hk_bridge._haiku import names
from hk_bridge._haiku import private


class _StandIn(hk.Module):
    """A Flax submodule, as Haiku's hooks see it: `context.module` of its leaves."""


class _Callees(set[str]):
    """The modules that a module calls, for its tables.

    Haiku also adds those that call it, while it makes a table: `eval_summary` asks each
    module on the stack for its params. Their params would be counted here, too."""

    def add(self, name: str) -> None:
        stack = [state.module for state in base.current_frame().module_stack]
        own = [i for i, module in enumerate(stack) if module._submodules is self]
        callers = stack[own[0] :] if own else ()  # the innermost comes first
        if all(name != module.module_name for module in callers):
            super().add(name)


def without_callers(module: hk.Module) -> None:
    """Has the tables of `module` count what it calls, and not what calls it."""
    module._submodules = _Callees()


def _stand_in(
    owner: hk.Module, module_name: str, cls: type[hk.Module] = _StandIn
) -> hk.Module:
    # Not by hk.Module.__init__, which refuses names such as `0` and counts names.
    module: Any = object.__new__(cls)
    module.module_name = module_name
    module.name = module_name.split("/")[-1]
    module._submodules = _Callees()
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
        return hk.experimental.current_name()
    name: str = owner.module_name
    return name


def haiku_inside(
    owner: hk.Module, name: str
) -> contextlib.AbstractContextManager[None]:
    """Where Haiku modules go that Flax code builds, and leaves that it makes itself.

    A name that begins with `~` is none of Flax, so they are not among its variables."""
    return inside(module_named(owner, f"{name}{_IN_FLAX}"))


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


def module_named(owner: hk.Module, module_name: str) -> hk.Module:
    """What Haiku's hooks see as `module_name`: `owner` or a Flax submodule of it."""
    own = module_name == owner.module_name
    return owner if own else _stand_in(owner, module_name)


def inside(module: hk.Module) -> contextlib.AbstractContextManager[None]:
    """Where leaves are named after `module`."""
    return base.current_frame().module_stack(base.ModuleState(module, "__call__"))


def is_stand_in(module: hk.Module) -> bool:
    """Whether `module` only shows a Flax submodule to interceptors."""
    return isinstance(module, _StandIn)


def is_observed() -> bool:
    """Whether `hk.intercept_methods` is in force, or a table is being made."""
    # Once a policy was set, Haiku never takes its interceptor away; it looks at modules
    # of the classes that have a policy, which a stand-in's cannot.
    if private.interceptor_stack is None:
        return True
    others = (x for x in private.interceptor_stack if not isinstance(x, Sharing))
    return any(other is not private.policies for other in others)


def is_intercepted() -> bool:
    """Whether there is another interceptor than that of `share_traces`.

    Haiku's own for policies does what `policies` tells."""
    stack = private.interceptor_stack
    if stack is None:
        return True
    others = [x for x in stack if not isinstance(x, Sharing)]
    return bool(others) and (others != [private.policies] or policies() is None)


def policies() -> tuple[Any, ...] | None:
    """Each class that has a policy, with it; None if nothing tells."""
    found = private.policies_by_class()
    return None if found is None else tuple(found.items())


class Sharing:
    """An interceptor that has `share` run the calls of Haiku's own modules.

    Args:
      call: makes of one what `share` takes.
    """

    def __init__(self, share: Callable[[Any], Any], call: Callable[..., Any]):
        self._share, self._call = share, call
        self._running: list[Any] = []

    def __call__(self, run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module: Any = context.module
        own = hasattr(type(module), "_of_bridge") or isinstance(module, _StandIn)
        if own or context.method_name == "__init__" or hk.running_init():
            return run(*args, **kwargs)
        if any(module is other for other in self._running):
            return run(*args, **kwargs)
        self._running.append(module)
        try:
            return self._share(self._call(run, args, kwargs, context))
        finally:
            self._running.pop()


def texts_wanted() -> bool:
    """Whether modules that are made now have a text, by `module_auto_repr`."""
    return private.get_config is None or bool(private.get_config().module_auto_repr)


def observe(
    owner: hk.Module,
    module_name: str,
    shown: tuple[str, str | None],
    method_name: str,
    run: Callable[..., Any],
    args: Any,
    kwargs: Any,
) -> Any:
    """Runs `run` as a method of a Haiku module, which interceptors see.

    What they keep of it after the call holds nothing of `run`.

    Args:
      shown: the name of the class, and the text of the instance, to be shown; None is
        Python's own text.
    """
    class_name, text = shown
    module: Any = _stand_in(
        owner, module_name, _observed_class(class_name, method_name)
    )
    module._auto_repr = object.__repr__(module) if text is None else text
    module._run = run
    try:
        with _outside():
            return getattr(module, method_name)(*args, **kwargs)
    finally:
        del module._run


@functools.cache
def _observed_class(class_name: str, method_name: str) -> type[hk.Module]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self, "_run"):
            raise _errors.call_has_ended(self.module_name, method_name)
        return self._run(*args, **kwargs)

    metaclass: Any = type(hk.Module)
    cls: type[hk.Module] = metaclass(class_name, (_StandIn,), {method_name: method})
    return cls


def announce(owner: hk.Module, name: str) -> None:
    """Tells those that call `owner` of its leaves, filed under `name`.

    Haiku tells them of each module whose method has run, and a Flax submodule is none.
    Who built `owner` finds the leaves by their names."""
    frame: Any = base.current_frame()
    holders = [
        state.module
        for state in frame.module_stack
        if not f"{name}/".startswith(f"{state.module.module_name}/")
    ]
    if not holders:
        return
    below = [names.below(name, frame.params, "params")]
    below.append(names.below(name, frame.state, "state"))
    for holder in holders:
        for module_name in itertools.chain(*below):
            holder._submodules.add(module_name)
