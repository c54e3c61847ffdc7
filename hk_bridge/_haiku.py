"""All that is demanded of Haiku: parameters, state, keys, and where we are.

Leaves are created and read through `hk.get_parameter`, `hk.get_state` and
`hk.set_state`, so Haiku's creators, getters and setters see each of them. Haiku names a
leaf after the module on top of its stack, and refuses names such as `0` for a module;
so a stand-in for the Flax submodule is put there, under its full name.

What is private in Haiku and used here, since there is no public way (all since dm-haiku
0.0.16; `tests/test_doors.py` names each):

* `haiku._src.base.current_frame` and of it `module_stack`, `params`, `state`,
  `frame_id`, `rng_stack`: public functions copy all params of the transform, at every
  call, and cannot name a leaf, nor have keys that are an error to draw;
* `haiku._src.base.ModuleState`: an entry of that stack;
* `haiku._src.base.get_lift_prefix`: only creators and getters are told it;
* `haiku._src.base.context_stack`, `frame_stack`, `haiku._src.typing.LiftingModuleType`:
  nothing public tells whether a transform runs inside another, and whether lifted;
* `hk.Module._submodules`, `_creation_frame_id` and `_auto_repr`: what a stand-in must
  have to pass for a module;
* `haiku._src.base.NonEmptyStateError` and the code of
  `haiku._src.transform.without_state`: that state is refused shows only after the
  network has run, when nothing is known of its modules;
* `haiku._src.module.interceptor_stack`, `haiku._src.base.param_creator_stack`,
  `state_creator_stack` and
  `haiku._src.mixed_precision._mixed_precision_interceptor`: nothing public tells
  whether a hook is in force, and what nobody sees should cost nothing;
* `haiku._src.config.get_config`: only a setter tells whether modules have a text;
* `haiku._src.base.param_getter_stack`: public ones start a getter inside the others;
* `haiku._src.utils.camel_to_snake`: how Haiku names modules after classes.
"""

import bisect
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import functools
import itertools
import sys
import threading
from typing import Any

import haiku as hk
from haiku._src import base
from haiku._src import config
from haiku._src import mixed_precision
from haiku._src import module as haiku_module
from haiku._src import transform
from haiku._src import typing
from haiku._src import utils
import jax
import jax.numpy as jnp

from hk_bridge import _abstract
from hk_bridge import _errors

Module = hk.Module
RNNCore = hk.RNNCore
native = hk  # Haiku itself, for its own layers in native.py
transparent = hk.transparent
camel_to_snake: Callable[[str], str] = functools.cache(utils.camel_to_snake)

INSTANCE = ("_submodules", "_creation_frame_id")  # what modules have, not their class
Initializer = Callable[..., Any]
Bundles = dict[str, dict[str, Any]]


def running_init() -> bool:
    """Whether the transform runs `init`, not `apply`."""
    return bool(hk.running_init())


def next_key() -> jax.Array:
    """The next Haiku key."""
    return hk.next_rng_key()


def key_source() -> Callable[[], jax.Array] | None:
    """What draws the next Haiku key, or None if Haiku has none to give."""
    return None if hk.maybe_get_rng_sequence_state() is None else hk.next_rng_key


class _NoKeys(hk.PRNGSequence):
    """Keys that are an error to draw, where None would be an answer."""

    def __init__(self) -> None:
        pass

    def __next__(self) -> jax.Array:
        raise ValueError("There are no keys.")

    next = __next__


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, where it is an error to ask Haiku for parameters, state or keys."""

    def without_keys(*args: Any) -> Any:
        with base.current_frame().rng_stack(_NoKeys()):
            return function(*args)

    def run(*args: Any) -> Any:
        f = hk.transform_with_state(without_keys)
        result, state = f.apply({}, {}, None, *args)
        if state:
            raise ValueError("There is no place for state.")
        return result

    return run


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


def _inside(
    owner: hk.Module, module_name: str
) -> contextlib.AbstractContextManager[None]:
    """Where leaves are named after `module_name`: `owner` or a Flax submodule of it."""
    own = module_name == owner.module_name
    module = owner if own else _stand_in(owner, module_name)
    return base.current_frame().module_stack(base.ModuleState(module, "__call__"))


# Being seen.


def is_observed() -> bool:
    """Whether `hk.intercept_methods` is in force, or a table is being made."""
    # Once a policy was set, Haiku never takes its interceptor away; it looks at modules
    # of the classes that have a policy, which a stand-in's cannot.
    policies = mixed_precision._mixed_precision_interceptor
    return any(other is not policies for other in haiku_module.interceptor_stack)


def texts_wanted() -> bool:
    """Whether modules that are made now have a text, by `module_auto_repr`."""
    return bool(config.get_config().module_auto_repr)


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


def announce(owner: hk.Module) -> None:
    """Tells those that call `owner` of its leaves, for their tables.

    Haiku tells them of each module whose method has run, and a Flax submodule is none.
    Who built `owner` finds the leaves by their names."""
    frame: Any = base.current_frame()
    name = owner.module_name
    holders = [
        state.module
        for state in frame.module_stack
        if not f"{name}/".startswith(f"{state.module.module_name}/")
    ]
    if not holders:
        return
    below = [_below(name, frame.params, "params"), _below(name, frame.state, "state")]
    for holder in holders:
        for module_name in itertools.chain(*below):
            holder._submodules.add(module_name)


def is_flax_over_haiku(module: Any) -> bool:
    """Whether `module` is the Flax module in which a Haiku transform runs."""
    return isinstance(module, hk.experimental.flax.Module)


# Reading.


def read(owner: hk.Module) -> tuple[Bundles, Bundles]:
    """Haiku's `(params, state)` of `owner` and below, through the getters."""
    frame: Any = base.current_frame()
    params: Bundles = {}
    for module_name in _below(owner.module_name, frame.params, "params"):
        bundle = frame.params[module_name]
        with _inside(owner, module_name):
            params[module_name] = {
                k: _get_parameter(k, v, _stored) for k, v in bundle.items()
            }
    state: Bundles = {}
    for module_name in _below(owner.module_name, frame.state, "state"):
        bundle = frame.state[module_name]
        with _inside(owner, module_name):
            state[module_name] = {
                k: _get_state(k, v.current, _stored) for k, v in bundle.items()
            }
    return params, state


class _Sorted(threading.local):
    """The sorted module names of the last frame, by kind, so that one sort does."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[int, list[str]]] = {}


_sorted = _Sorted()


def _below(prefix: str, bundles: dict[str, Any], kind: str) -> list[str]:
    """The keys of `bundles` that are `prefix` or below it, without a look at each."""
    frame_id = base.current_frame().frame_id
    known, names = _sorted.names.get(kind, (None, []))
    new = len(bundles) - len(names)
    if known != frame_id or new < 0:
        names = sorted(bundles)
        _sorted.names[kind] = (frame_id, names)
    elif new:  # init adds to them
        for name in itertools.islice(reversed(bundles), new):
            bisect.insort(names, name)
    first = bisect.bisect_left(names, prefix + "/")
    last = bisect.bisect_left(names, prefix + "0", first)  # "0" follows "/"
    own = [n for n in names[first:last] if n in bundles and not n.endswith("/~")]
    return [prefix, *own] if prefix in bundles else own


def _stored(shape: Any, dtype: Any) -> Any:
    raise AssertionError("A stored leaf has no need of an initialiser.")


class _Whole:
    """A leaf that is no array, in a dress that `hk.get_parameter` lets pass."""

    shape = ()

    def __init__(self, value: Any):
        self.value = value


def _dress(next_getter: Any, value: Any, context: Any) -> Any:
    return _Whole(next_getter(value))


@contextlib.contextmanager
def _dressed() -> Iterator[None]:
    """Dresses what the getters of the user return, who see the bare leaf."""
    base.param_getter_stack.pushleft(_dress)
    try:
        yield
    finally:
        base.param_getter_stack.popleft()


def _get_parameter(name: str, value: Any, init: Initializer) -> Any:
    if _abstract.is_array(value):
        return hk.get_parameter(name, value.shape, value.dtype, init)
    with _dressed():
        dressed: Any = hk.get_parameter(name, (), init=init)
    return dressed.value


def _get_state(name: str, value: Any, init: Initializer) -> Any:
    if _abstract.is_array(value):
        return hk.get_state(name, value.shape, value.dtype, init)
    return hk.get_state(name, (), init=init)


# Creating and writing.


def create_param(
    owner: hk.Module, module_name: str, name: str, value: Any, init: Initializer
) -> Any:
    """Makes a parameter of initial value `value` and returns what Haiku makes of it.

    `init(shape, dtype)` is what creators see; it gives `value` for `value`'s shape and
    dtype."""
    with _inside(owner, module_name):
        return _get_parameter(name, value, init)


def fetch_param(
    owner: hk.Module, module_name: str, name: str, spec: Any, default: Any
) -> Any:
    """A parameter that only creators and getters give, or `default`."""

    class NotGiven(Exception):
        pass

    def init(shape: Any, dtype: Any) -> Any:
        raise NotGiven

    with _inside(owner, module_name):
        try:
            return _get_parameter(name, spec, init)
        except NotGiven:
            return default


def has_creators() -> bool:
    """Whether `hk.custom_creator` is in force for parameters."""
    return bool(base.param_creator_stack)


def has_state_creators() -> bool:
    """Whether `hk.custom_creator` is in force for state."""
    return bool(base.state_creator_stack)


def lift_prefix() -> str:
    """What `hk.lift` puts before the names of modules that are made at init now."""
    return base.get_lift_prefix() or ""


def depth() -> int:
    """How many transforms run here inside each other; a lifted one is not counted."""
    frames: Any = base.frame_stack
    tops = [f.module_stack.peek().module for f in frames if f.module_stack]
    lifted = [isinstance(module, typing.LiftingModuleType) for module in tops]
    return len(base.context_stack) - sum(lifted)


def create_state(owner: hk.Module, module_name: str, name: str, value: Any) -> Any:
    """Makes state of initial value `value` and returns what Haiku makes of it."""
    with _inside(owner, module_name):
        return _get_state(
            name,
            value,
            lambda shape, dtype: (
                cast(value, dtype) if _abstract.is_array(value) else value
            ),
        )


def set_state(owner: hk.Module, module_name: str, name: str, value: Any) -> None:
    """Writes one leaf of state."""
    with _inside(owner, module_name):
        hk.set_state(name, value)


def create_empty(params: Iterable[str], state: Iterable[str]) -> None:
    """Makes the modules that have no leaves, which no function of Haiku does."""
    frame: Any = base.current_frame()
    for module_names, bundles in ((params, frame.params), (state, frame.state)):
        for module_name in module_names:
            bundles.setdefault(module_name, {})


def refuse_if_stateless(message: str) -> None:
    """Raises Haiku's own error if the transform is a plain `hk.transform`.

    Haiku's error comes after the whole network has run and names no module.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if (
            frame.f_code.co_name == "init_fn"
            and frame.f_code.co_filename == transform.__file__
        ):
            caller = frame.f_back
            if caller is not None and caller.f_code in _WITHOUT_STATE:
                raise base.NonEmptyStateError(message)
            return


_WITHOUT_STATE = [
    constant
    for constant in transform.without_state.__code__.co_consts
    if hasattr(constant, "co_name") and constant.co_name == "init_fn"
]


def cast(value: Any, dtype: Any) -> Any:
    """`value` in `dtype`, as a creator that changes the dtype wants it."""
    return value if value.dtype == dtype else jnp.asarray(value).astype(dtype)
