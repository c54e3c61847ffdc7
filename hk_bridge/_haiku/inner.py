"""Calls of Haiku's own modules whose traces are shared: what goes in, what comes out.

A module runs in a frame that has its own parameters, state and keys, and nothing else
of the transform. So an equal one of another name may take its trace.

Private in Haiku (since dm-haiku 0.0.16): `haiku._src.base.current_frame`, and of it
`params`, `state`, `rng_stack`, `module_stack` and `evolve`; `frame_stack`, `StatePair`,
`param_getter_stack`; `hk.Module._submodules`. Haiku's own `hk.remat` and `hk.scan` do
the same by `haiku._src.stateful`, with all that the transform has.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from typing import Any

import haiku as hk
from haiku._src import base
import jax

from hk_bridge import _errors
from hk_bridge._haiku import private
from hk_bridge._haiku import seen
from hk_bridge._haiku.context import has_creators
from hk_bridge._haiku.context import has_state_creators
from hk_bridge._haiku.context import sees_state
from hk_bridge._haiku.names import below

# Code that mentions one of these may look at its name, or at all of the transform.
_PLACE = frozenset([
    "name", "module_name", "current_name", "current_bundle_name", "params_dict",
    "state_dict", "submodules", "_submodules", "get_params", "get_current_state",
    "get_initial_state", "current_module", "__dict__", "module_auto_repr",
])  # fmt: skip
_OF_EACH = {"name", "module_name", "_submodules", "_creation_frame_id", "_auto_repr"}


@contextlib.contextmanager
def sharing(share: Callable[[Any], Any]) -> Iterator[None]:
    """Has `share` run the calls of Haiku's own modules, but at init."""
    if base.frame_stack and hk.running_init():
        yield
        return
    with hk.intercept_methods(seen.Sharing(share, Native)):
        yield


class _Drawing(hk.PRNGSequence):
    """The sequence of a transform, which notes how keys are drawn of it."""

    def __init__(self, of: Any):
        self.of = of
        self.drawn: list[tuple[str, int]] | None = []

    def _note(self, how: str, number: int) -> None:
        if self.drawn is not None:
            self.drawn.append((how, number))

    def reserve(self, num: Any) -> None:
        self._note("reserve", num)
        self.of.reserve(num)

    def take(self, num: Any) -> Any:
        self._note("take", num)
        return self.of.take(num)

    def __next__(self) -> Any:
        self._note("next", 1)
        return next(self.of)

    next = __next__

    def reserve_up_to_full(self) -> None:
        self.drawn = None
        self.of.reserve_up_to_full()

    @property
    def internal_state(self) -> Any:
        self.drawn = None
        return self.of.internal_state

    def replace_internal_state(self, state: Any) -> None:
        self.drawn = None
        self.of.replace_internal_state(state)


class _Drawn(hk.PRNGSequence):
    """Gives keys that were drawn before."""

    def __init__(self, keys: Sequence[Any]):
        self.left = collections.deque(keys)

    def reserve(self, num: Any) -> None:
        """They were."""

    def take(self, num: Any) -> Any:
        return tuple(next(self) for _ in range(num))

    def __next__(self) -> Any:
        return self.left.popleft()

    next = __next__

    def reserve_up_to_full(self) -> None:
        raise TypeError("A lifted transform takes keys as they are.")

    @property
    def internal_state(self) -> Any:
        raise TypeError("A lifted transform takes keys as they are.")

    def replace_internal_state(self, state: Any) -> None:
        raise TypeError("A lifted transform takes keys as they are.")


class Native:
    """A call of a method of a module of Haiku's own kind."""

    watched = _PLACE
    patience = 3

    def __init__(self, run: Any, args: Any, kwargs: Any, context: Any):
        self._module: Any = context.module
        self._run, self._args, self._kwargs = run, args, kwargs
        self._context = context
        self._frame: Any = base.current_frame()
        self._keys: Any = self._frame.rng_stack.peek()
        self._parts: list[Any] = []  # the modules in it, itself the first
        self._saved: Any = None
        self._seen: Any = None

    @property
    def name(self) -> str:
        return str(self._module.module_name)

    @property
    def title(self) -> str:
        return type(self._module).__name__

    def refusal(self) -> str | None:
        if seen.is_intercepted():
            return _errors.INTERCEPTED
        hooks = has_creators() or has_state_creators() or sees_state()
        return _errors.SEEN if hooks or base.param_getter_stack else None

    def inputs(self) -> Any:
        frame, name = self._frame, self.name
        size = len(name)
        params = {
            n[size:]: dict(frame.params[n]) for n in below(name, frame.params, "params")
        }
        state = {
            n[size:]: {k: pair.current for k, pair in frame.state[n].items()}
            for n in below(name, frame.state or {}, "state")
        }
        return params, state, self._args, self._kwargs

    def parts(self) -> Any:
        config = () if private.get_config is None else vars(private.get_config())
        self._parts = []
        return (
            *(self._outline(self._module), self._context.orig_class),
            *(self._context.method_name, self._keys is None, config),
        )

    def _outline(self, value: Any) -> Any:
        """What there is of `value`, with modules by what they hold and not by name."""
        if isinstance(value, hk.Module):
            known = [i for i, part in enumerate(self._parts) if part is value]
            if known:
                return "module", known[0]
            if not f"{value.module_name}/".startswith(f"{self.name}/"):
                raise ValueError(_errors.FOREIGN)
            self._parts.append(value)
            held = {k: v for k, v in vars(value).items() if k not in _OF_EACH}
            name = value.module_name[len(self.name) :]
            return "module", name, type(value), self._outline(held)
        if type(value) in (list, tuple):
            return type(value)(self._outline(item) for item in value)
        if type(value) is dict:
            return {key: self._outline(item) for key, item in value.items()}
        return value

    def as_ever(self) -> Any:
        if self._keys is None:
            return self._run(*self._args, **self._kwargs)
        self._seen = _Drawing(self._keys)
        with self._frame.rng_stack(self._seen):
            return self._run(*self._args, **self._kwargs)

    def drawn(self) -> Any:
        if self._seen is None:
            return ()
        return None if self._seen.drawn is None else tuple(self._seen.drawn)

    def draw(self, drawn: Any) -> list[Any]:
        keys: list[Any] = []
        if self._keys is not None:
            self._saved = _state_of(self._keys)
        for how, number in drawn:
            if how == "next":
                keys.append(next(self._keys))
            elif how == "take":
                keys.extend(self._keys.take(number))
            else:
                self._keys.reserve(number)
        return keys

    def undraw(self) -> None:
        if self._saved is not None:
            _restore(self._keys, self._saved)

    def apart(self, inputs: Any, drawn: Any, keys: Sequence[Any]) -> tuple[Any, Any]:
        params, state, args, kwargs = inputs
        name = self.name
        own_state: Any = collections.defaultdict(dict)
        for rest, bundle in state.items():
            pairs = {k: base.StatePair(v, v) for k, v in bundle.items()}
            own_state[name + rest] = pairs
        own_params = {name + rest: bundle for rest, bundle in params.items()}
        sequence = None if self._keys is None else _Drawn(keys)
        frame = self._frame.evolve(own_params, own_state, sequence)
        with base.frame_stack(frame):
            output = self._context.orig_method(*args, **kwargs)
        if sequence is not None and sequence.left:
            raise TypeError("It draws fewer keys than an equal call.")
        if any(isinstance(leaf, hk.Module) for leaf in jax.tree.leaves(output)):
            raise TypeError("It returns a module.")
        after = {
            n[len(name) :]: {k: pair.current for k, pair in bundle.items()}
            for n, bundle in own_state.items()
        }
        if _names(after) != _names(state):
            raise TypeError("It makes state.")
        changed = {
            n: {k: v for k, v in bundle.items() if v is not state[n][k]}
            for n, bundle in after.items()
        }
        return (output, changed), tuple(map(self._submodules, self._parts))

    def _submodules(self, part: Any) -> tuple[str, ...]:
        """The modules that `part` has called, by what follows the name of this one."""
        name = f"{self.name}/"
        below = [n for n in part._submodules if n.startswith(name)]
        return tuple(sorted(n[len(self.name) :] for n in below))

    def result(self, output: Any, said: Any) -> Any:
        value, changed = output
        for rest, bundle in changed.items():
            held = self._frame.state[self.name + rest] if bundle else {}
            for key, new in bundle.items():
                held[key] = base.StatePair(held[key].initial, new)
        stack = [entry.module for entry in self._frame.module_stack]
        for part, called in zip(self._parts, said, strict=True):
            names = [self.name + rest for rest in called]
            part._submodules.update(names)
            if part is self._module:
                for module in stack:
                    module._submodules.update(names)
        return value


def _names(state: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(name, key) for name, bundle in state.items() for key in bundle}


def _state_of(keys: Any) -> Any:
    """What `_restore` takes; to ask for it is not noted."""
    if isinstance(keys, _Drawn):
        return tuple(keys.left)
    if isinstance(keys, _Drawing):
        return None if keys.drawn is None else [*keys.drawn], _state_of(keys.of)
    return keys.internal_state


def _restore(keys: Any, state: Any) -> None:
    if isinstance(keys, _Drawn):
        keys.left = collections.deque(state)
    elif isinstance(keys, _Drawing):
        keys.drawn = state[0]
        _restore(keys.of, state[1])
    else:
        keys.replace_internal_state(state)
