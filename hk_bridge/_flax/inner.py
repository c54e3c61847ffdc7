"""Calls of submodules whose traces are shared: what goes into one, and what comes out.

A submodule runs as `module.apply` would run it, on its own part of the variables, and
with keys that were folded outside, where its path is known. So an equal one elsewhere
may take its trace.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
from typing import Any

from flax.core import scope as core_scope
import flax.linen as nn
import jax

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge import _worth
from hk_bridge._flax import counts
from hk_bridge._flax import private
from hk_bridge._flax.bind import bind
from hk_bridge._flax.bind import fields
from hk_bridge._flax.host import Alone
from hk_bridge._flax.host import Host
from hk_bridge._flax.host import Record
from hk_bridge._flax.keys import FoldedKeys
from hk_bridge._flax.known import is_fixed
from hk_bridge._flax.lifted import Watch
from hk_bridge._flax.modules import title
from hk_bridge._flax.plan import Sharing
from hk_bridge._flax.scope import Scope
from hk_bridge._layout import PARAMS
from hk_bridge._layout import Where

# Code that mentions one of these may look at where its module is, or at the module
# that has it.
_PLACE = frozenset([
    "name", "parent", "path", "scope", "debug_path", "path_text", "_state", "_id",
    "_parent_ref", "__dict__",
])  # fmt: skip
_OF_EACH = {
    *("parent", "scope", "name", "_parent_ref", "_state", "_id"),
    "_compact_name_scope_modules",
}


@contextlib.contextmanager
def sharing(asked: Sharing) -> Iterator[None]:
    """Has the calls of submodules shared."""
    with nn.intercept_methods(_Calls(asked)):
        yield


class _Calls:
    """An interceptor."""

    def __init__(self, asked: Sharing):
        self.asked = asked
        self._running: list[Any] = []

    def __call__(self, run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, scope = context.module, context.module.scope
        if type(scope) is not Scope or any(module is other for other in self._running):
            return run(*args, **kwargs)
        if scope.parent is None or context.method_name == "setup":
            result = run(*args, **kwargs)
            if context.method_name == "setup":
                _check_setup(scope)
            return result
        self._running.append(module)
        try:
            return self.asked.share(Inner(self, run, args, kwargs, context))
        finally:
            self._running.pop()


def _check_setup(scope: Scope) -> None:
    """Refuses a `setup` that draws keys or writes: it has run outside before."""
    host = scope.running.host
    if scope.parent is None and isinstance(host, _Apart) and host.streams.asked:
        raise TypeError("setup() draws keys.")
    if scope.parent is None and isinstance(host, _Apart) and scope.record != Record():
        raise TypeError("setup() writes variables.")


def is_intercepted() -> bool:
    """Whether somebody else intercepts methods."""
    interceptors = private.interceptors()
    if interceptors is None:
        return True
    ours = (_Calls, Watch)
    return not all(isinstance(getattr(i, "__self__", i), ours) for i in interceptors)


class Inner:
    """A call of a method of a submodule."""

    watched = _PLACE
    patience = _worth.PATIENCE

    def __init__(self, calls: _Calls, run: Any, args: Any, kwargs: Any, context: Any):
        self._module: nn.Module = context.module
        self._scope: Any = context.module.scope
        self._method: str = context.method_name
        self._original = context.orig_method
        self._run, self._args, self._kwargs = run, args, kwargs
        self._calls = calls
        self._is_first = self._scope.running.is_first_call(self._module)
        self._before: counts.Counts = ()
        self._first = 0

    @property
    def name(self) -> str:
        return "/".join([self._calls.asked.name, *self._scope.path])

    @property
    def title(self) -> str:
        return title(self._module)

    @property
    def kind(self) -> Any:
        return type(self), type(self._module), self._method

    @property
    def others(self) -> bool:
        variables = self._scope.root._variables
        path = self._scope.path[len(self._scope.root._root_path) :]
        beside = _below(variables.get(PARAMS, {}), path[:-1])
        own = beside.get(path[-1], {}).values()
        return any(map(_layout.is_level, own)) and _worth.is_of_many(path[-1], beside)

    def refusal(self) -> str | None:
        module, scope = self._module, self._scope
        if is_intercepted():
            return _errors.INTERCEPTED
        if scope.name != module.name or scope is getattr(module.parent, "scope", None):
            return _errors.SCOPE_SHARED
        function: Any = getattr(type(module), self._method, None)
        original = getattr(self._original, "func", None)
        if getattr(function, "__wrapped__", function) is not original:
            return _errors.NO_METHOD
        if type(module).setup is not nn.Module.setup:
            return None if self._is_first else _errors.CALLED_BEFORE
        extra = vars(module).keys() - _OF_EACH - _names(type(module))
        return _errors.ATTRIBUTES if extra else None

    def arguments(self) -> Any:
        return self._args, self._kwargs

    def inputs(self) -> Any:
        scope = self._scope
        root, size = scope.root, len(scope.root._root_path)
        path = scope.path[size:]
        variables = {c: _below(tree, path) for c, tree in root._variables.items()}
        return variables, self._args, self._kwargs

    def held(self) -> Any:
        return type(self._module), fields(self._module, "name")

    def parts(self) -> Any:
        scope = self._scope
        self._before = counts.read(scope.rng_counters)
        # By default there is each stream, or none but those that were given.
        default = scope._has_stream("?")
        keys = scope.running.host.streams.keys
        others = [s for s in keys if scope._has_stream(s) is not default]
        return self._method, self._before, scope.mutable, default, tuple(others)

    def as_ever(self) -> Any:
        streams = self._scope.running.host.streams
        self._first = len(streams.asked)
        return self._run(*self._args, **self._kwargs)

    def drawn(self) -> Any:
        """The streams, and what is folded into their keys below the path of this."""
        if not _keeps_nothing(self._module):
            return None
        found = []
        for stream, suffix in self._scope.running.host.streams.asked[self._first :]:
            prefix = self._scope._stream(stream).suffix
            if suffix[: len(prefix)] != prefix:
                return None
            found.append((stream, suffix[len(prefix) :]))
        return tuple(found)

    def draw(self, drawn: Any) -> list[Any] | None:
        keys = []
        streams = self._scope.running.host.streams
        if not all(streams.has(stream) for stream, _ in drawn):
            return None
        for stream, suffix in drawn:
            lazy = self._scope._stream(stream)
            whole = (*lazy.suffix, *suffix)
            keys.append(streams.fold(stream, lazy.rng, whole))
        return keys

    def undraw(self) -> None:
        """None was: they are folded from such as are there."""

    def apart(self, inputs: Any, drawn: Any, keys: Sequence[Any]) -> tuple[Any, Any]:
        variables, args, kwargs = inputs
        outer = self._scope.running.host
        given = dict(zip(drawn, keys, strict=True))
        host = _Apart(FoldedKeys(given, self._scope._has_stream), outer)
        module = self._module
        root = Scope.root_of(host, self._scope.mutable, variables, type(module))
        counts.write(root.rng_counters, self._before)
        clone = module.clone(parent=None, name=None)
        before = dict(_layout.leaves(variables))
        with root.temporary(), root.running.watch.until_end():
            method = getattr(bind(clone, root), self._method)
            output = self._calls.asked.alone(method)(*args, **kwargs)
        root.running.end()
        record = root.running.record
        wrote = record.wrote | record.made
        touched = {where.collection for where in wrote}
        for where, value in _layout.leaves(variables):
            if where.collection not in touched and before.get(where) is not value:
                raise TypeError("A variable was put into a box.")
        changed = {c: tree for c, tree in variables.items() if c in touched}
        said = (record, counts.read(root.rng_counters))
        return (output, changed), said

    def result(self, output: Any, said: Any) -> Any:
        (value, changed), (record, drawn), scope = output, said, self._scope
        for collection, tree in changed.items():
            _overwrite(scope._mutable_collection(collection), tree)
        prefix, into = scope.path, scope.record
        for here, there in ((record.wrote, into.wrote), (record.made, into.made)):
            there.update(Where(w.collection, (*prefix, *w.path)) for w in here)
        for collection, path in record.sown.items():
            into.sown.setdefault(collection, (*prefix, *path))
        counts.write(scope.rng_counters, drawn)
        return value


class _Apart(Alone):
    """Answers a submodule that runs apart: it has its variables, and its keys."""

    initializing = False

    def __init__(self, streams: FoldedKeys, outer: Host):
        super().__init__(streams)
        self._outer = outer
        self.hooked = outer.hooked

    def keeps(self, collection: str) -> bool:
        return self._outer.keeps(collection)


def _keeps_nothing(value: Any) -> bool:
    """Whether no object is in a module, by its `setup`, that its code may write."""
    if isinstance(value, nn.Module):
        held = vars(value).keys() - _OF_EACH - _names(type(value))
        return all(_keeps_nothing(vars(value)[name]) for name in held)
    if isinstance(value, (tuple, list)):
        return all(map(_keeps_nothing, value))
    if isinstance(value, Mapping):
        return all(map(_keeps_nothing, value.values()))
    kept = isinstance(value, (jax.Array, core_scope.Variable))
    return kept or callable(value) or is_fixed(value)


def _names(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def _below(tree: Any, path: Sequence[str]) -> Any:
    for part in path:
        tree = tree.get(part, {})
    return tree


def _overwrite(level: Any, tree: Mapping[str, Any]) -> None:
    """Has `level`, and those below, hold what `tree` holds."""
    for name in [name for name in level if name not in tree]:
        del level[name]
    for name, value in tree.items():
        old = level.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            _overwrite(old, value)
        elif old is not value:
            level[name] = value
