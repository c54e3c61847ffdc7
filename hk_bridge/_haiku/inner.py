"""Calls of Haiku's own modules whose traces are shared: what goes in, what comes out.

A module runs in a frame that has its own parameters, state and keys, and nothing else
of the transform. So an equal one of another name may take its trace.

Private in Haiku (since dm-haiku 0.0.16): `haiku._src.base.current_frame`, and of it
`params`, `state`, `rng_stack`, `module_stack` and `evolve`; `frame_stack`, `StatePair`,
`param_getter_stack`; `hk.Module._submodules` and `_auto_repr`. Haiku's own `hk.remat`
and `hk.scan` do the same by `haiku._src.stateful`, with all that the transform has.
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
from hk_bridge import _worth
from hk_bridge._haiku import drawing
from hk_bridge._haiku import private
from hk_bridge._haiku import seen
from hk_bridge._haiku.context import has_creators
from hk_bridge._haiku.context import has_state_creators
from hk_bridge._haiku.context import sees_state
from hk_bridge._haiku.drawing import Drawing
from hk_bridge._haiku.drawing import Drawn
from hk_bridge._haiku.names import below
from hk_bridge._haiku.names import is_of_many

# Code that mentions one of these may look at its name, or at all of the transform.
_PLACE = frozenset([
    "name", "module_name", "current_name", "current_bundle_name", "params_dict",
    "state_dict", "submodules", "_submodules", "get_params", "get_current_state",
    "get_initial_state", "current_module", "__dict__", "module_auto_repr",
])  # fmt: skip
_OF_EACH = {"name", "module_name", "_submodules", "_creation_frame_id", "_auto_repr"}

_NO = object()


@contextlib.contextmanager
def sharing(share: Callable[[Any], Any]) -> Iterator[None]:
    """Has `share` run the calls of Haiku's own modules, but at init."""
    if base.frame_stack and hk.running_init():
        yield
        return
    with hk.intercept_methods(seen.Sharing(share, Native)):
        yield


class Native:
    """A call of a method of a module of Haiku's own kind."""

    watched = _PLACE
    patience = _worth.PATIENCE

    def __init__(self, run: Any, args: Any, kwargs: Any, context: Any):
        self._module: Any = context.module
        self.name = str(self._module.module_name)
        self._run, self._args, self._kwargs = run, args, kwargs
        self._context = context
        self._frame: Any = base.current_frame()
        self._keys: Any = drawing.sequence()
        self._parts: list[Any] = []  # the modules in it, itself the first
        self._before: dict[int, dict[str, Any]] = {}  # what each of them held
        self._give_back = drawing.nothing
        self._seen: Any = None

    @property
    def title(self) -> str:
        return type(self._module).__name__

    @property
    def kind(self) -> Any:
        return type(self), self._context.orig_class, self._context.method_name

    @property
    def others(self) -> bool:
        own = below(self.name, self._frame.params, "params")
        return any(n != self.name for n in own) and is_of_many(self.name)

    def refusal(self) -> str | None:
        if seen.is_intercepted():
            return _errors.INTERCEPTED
        if drawing.are_counted():
            return _errors.COUNTED
        hooks = has_creators() or has_state_creators() or sees_state()
        return _errors.SEEN if hooks or base.param_getter_stack else None

    def arguments(self) -> Any:
        return self._args, self._kwargs

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

    def held(self) -> Any:
        """What the modules held before the call, as it is now.

        What was set since is left out: that is `_set`, and follows from the rest."""
        self._parts = []
        return self._outline(self._module)

    def _set(self) -> tuple[tuple[tuple[str, Any], ...], ...]:
        """The attributes that the code has set, by module: `hk.Linear` keeps a size."""
        found = []
        for part in self._parts:
            before = self._before[id(part)]
            new = {k: v for k, v in _own(part).items() if before.get(k, _NO) is not v}
            if before.keys() - vars(part).keys() or not all(
                map(_is_plain, new.values())
            ):
                raise TypeError("It sets attributes.")
            found.append(tuple(new.items()))
        return tuple(found)

    def parts(self) -> Any:
        config = () if private.get_config is None else vars(private.get_config())
        context, keyed = self._context, self._keys is not None
        return context.orig_class, context.method_name, keyed, config, seen.policies()

    def _outline(self, value: Any) -> Any:
        """What there is of `value`, with modules by what they hold and not by name."""
        if isinstance(value, hk.Module):
            known = [i for i, part in enumerate(self._parts) if part is value]
            if known:
                return "module", known[0]
            if not f"{value.module_name}/".startswith(f"{self.name}/"):
                raise ValueError(_errors.FOREIGN)
            self._parts.append(value)
            held = self._before.setdefault(id(value), _own(value))
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
        self._seen = Drawing(self._keys)
        with self._frame.rng_stack(self._seen):
            return self._run(*self._args, **self._kwargs)

    def drawn(self) -> Any:
        try:
            self._set()
        except TypeError:
            return None
        if self._seen is None:
            return ()
        return None if self._seen.drawn is None else tuple(self._seen.drawn)

    def draw(self, drawn: Any) -> list[Any]:
        keys: list[Any] = []
        self._give_back = drawing.mark(self._keys)
        for how, number in drawn:
            if how == "next":
                keys.append(next(self._keys))
            elif how == "take":
                keys.extend(self._keys.take(number))
            else:
                self._keys.reserve(number)
        return keys

    def undraw(self) -> None:
        self._give_back()
        for part in self._parts:
            for name in _own(part).keys() - self._before[id(part)].keys():
                del vars(part)[name]
            vars(part).update(self._before[id(part)])

    def apart(self, inputs: Any, drawn: Any, keys: Sequence[Any]) -> tuple[Any, Any]:
        params, state, args, kwargs = inputs
        name = self.name
        own_state: Any = collections.defaultdict(dict)
        for rest, bundle in state.items():
            pairs = {k: base.StatePair(v, v) for k, v in bundle.items()}
            own_state[name + rest] = pairs
        own_params = {name + rest: bundle for rest, bundle in params.items()}
        sequence = None if self._keys is None else Drawn(keys)
        frame = self._frame.evolve(own_params, own_state, sequence)
        with base.frame_stack(frame), self._without_texts():
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
        called = tuple(map(self._submodules, self._parts))
        return (output, changed), (called, self._set())

    @contextlib.contextmanager
    def _without_texts(self) -> Iterator[None]:
        """Has `repr` fail: the text of a module says how it is called."""
        texts = [vars(part).pop("_auto_repr", None) for part in self._parts]
        try:
            yield
        finally:
            for part, text in zip(self._parts, texts, strict=True):
                vars(part)["_auto_repr"] = text

    def _submodules(self, part: Any) -> tuple[str, ...]:
        """The modules that `part` has called, by what follows the name of this one."""
        name = f"{self.name}/"
        below = [n for n in part._submodules if n.startswith(name)]
        return tuple(sorted(n[len(self.name) :] for n in below))

    def result(self, output: Any, said: Any) -> Any:
        (value, changed), (called_by, set_by) = output, said
        for rest, bundle in changed.items():
            held = self._frame.state[self.name + rest] if bundle else {}
            for key, new in bundle.items():
                held[key] = base.StatePair(held[key].initial, new)
        stack = [entry.module for entry in self._frame.module_stack]
        for part, called, new in zip(self._parts, called_by, set_by, strict=True):
            vars(part).update(new)
            names = [self.name + rest for rest in called]
            part._submodules.update(names)
            if part is self._module:
                for module in stack:
                    module._submodules.update(names)
        return value


def _own(module: Any) -> dict[str, Any]:
    """What is in a module but for what Haiku puts there."""
    return {k: v for k, v in vars(module).items() if k not in _OF_EACH}


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_plain, value))
    return type(value) in (bool, int, float, str, type(None))


def _names(state: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(name, key) for name, bundle in state.items() for key in bundle}
