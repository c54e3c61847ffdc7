"""Where we are in Haiku: init or apply, keys, hooks in force, transforms inside others.

Private in Haiku (since dm-haiku 0.0.16), and used here since there is no public way:

* `haiku._src.base.HaikuContext.add_teardown_callback`: nothing public is called when
  a transform has run;
* `haiku._src.base.get_lift_prefix`: only creators and getters are told it;
* `haiku._src.base.context_stack`, `frame_stack`, `haiku._src.typing.LiftingModuleType`:
  nothing public tells whether a transform runs inside another, and whether lifted;
* `haiku._src.base.param_creator_stack`, `param_getter_stack`, `state_creator_stack`:
  nothing public tells whether a hook is in force;
* `haiku._src.utils.camel_to_snake`: how Haiku names modules after classes.
"""

from collections.abc import Callable
import functools
from typing import Any

import haiku as hk
from haiku._src import base
from haiku._src import typing
import jax

from hk_bridge._haiku import private


@functools.cache
def camel_to_snake(name: str) -> str:
    """How Haiku names a module after its class `name`."""
    if private.camel_to_snake is not None:
        return str(private.camel_to_snake(name))
    names: list[str] = []
    metaclass: Any = type(hk.Module)
    cls = metaclass(name, (hk.Module,), {})
    hk.transform(lambda: names.append(cls().name)).init(None)
    return names[0]


def running_init() -> bool:
    """Whether the transform runs `init`, not `apply`."""
    return bool(hk.running_init())


def next_key() -> jax.Array:
    """The next Haiku key."""
    return hk.next_rng_key()


def key_source() -> Callable[[], jax.Array] | None:
    """What draws the next Haiku key, or None if Haiku has none to give."""
    return None if hk.maybe_get_rng_sequence_state() is None else hk.next_rng_key


def at_end(callback: Callable[[], None]) -> None:
    """Calls `callback` when the transform has run, if nothing was raised."""
    base.context_stack.peek().add_teardown_callback(callback)


def has_creators() -> bool:
    """Whether `hk.custom_creator` is in force for parameters."""
    return private.param_creator_stack is None or bool(private.param_creator_stack)


def has_state_creators() -> bool:
    """Whether `hk.custom_creator` is in force for state."""
    return bool(base.state_creator_stack)


def sees_state() -> bool:
    """Whether a getter or setter is in force for state."""
    return bool(base.state_getter_stack or base.state_setter_stack)


def lift_prefix() -> str:
    """What `hk.lift` puts before the names of modules that are made at init now."""
    return base.get_lift_prefix() or ""


def depth() -> int:
    """How many transforms run here inside each other; a lifted one is not counted."""
    frames: Any = base.frame_stack
    tops = [f.module_stack.peek().module for f in frames if f.module_stack]
    lifted = [isinstance(module, typing.LiftingModuleType) for module in tops]
    return len(base.context_stack) - sum(lifted)


def transforms() -> int:
    """How many transforms run here inside each other, lifted or not."""
    return len(base.context_stack)


def is_flax_over_haiku(module: Any) -> bool:
    """Whether `module` is the Flax module in which a Haiku transform runs."""
    return isinstance(module, hk.experimental.flax.Module)
