"""Calls of NNX submodules whose traces are shared: what goes into one, what comes out.

A submodule is run on a copy that has its values, as the whole module is. It does not
know where it is, so an equal one elsewhere may take its trace.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import threading
from typing import Any

from flax import nnx
import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge import _worth
from hk_bridge._flax import kinds
from hk_bridge._flax.inner import is_intercepted
from hk_bridge._flax.known import full_name
from hk_bridge._flax.known import key_of
from hk_bridge._flax.nnx import graph
from hk_bridge._flax.nnx import lazy
from hk_bridge._flax.nnx import streams
from hk_bridge._flax.nnx import told
from hk_bridge._flax.nnx.graph import Graph
from hk_bridge._flax.nnx.graph import Kind
from hk_bridge._flax.nnx.graph import Leaf
from hk_bridge._flax.nnx.passed import is_passed
from hk_bridge._flax.plan import Plan
from hk_bridge._flax.plan import Sharing
from hk_bridge._layout import names

# While traces are shared, objects are of other classes: code that asks is not shared.
_OF_STRUCTURE: tuple[Any, ...] = (
    *(jax.tree.map, jax.tree.structure, jax.tree.flatten, jax.tree.flatten_with_path),
    *(jax.tree_util.tree_map, jax.tree_util.tree_structure, jax.tree_util.tree_flatten),
    *(nnx.split, nnx.graphdef),
)
_ASKING = frozenset(["type", "__class__", *map(full_name, _OF_STRUCTURE)])


class _Next(threading.local):
    """What the run that comes next in this thread is to share."""

    asked: Sharing | None = None


_next = _Next()


@contextlib.contextmanager
def sharing(asked: Sharing) -> Iterator[None]:
    """Has the run that comes next share the calls of submodules."""
    before, _next.asked = _next.asked, asked
    try:
        yield
    finally:
        _next.asked = before


@contextlib.contextmanager
def shared(plan: Plan, module: Any, keys: Any, args: Any) -> Iterator[None]:
    """While `module` runs, a copy of that of `plan`, shares what is to be shared.

    Args:
      keys: the streams of the run.
    """
    asked, _next.asked = _next.asked, None
    try:
        if asked is None:
            yield
        elif not _may_be_told(plan, args):
            asked.refuse(asked.name, type(plan.module).__name__, _errors.ASKS_CLASS)
            yield
        else:
            calls = _Calls(asked, module, plan.keep_rngs, keys)
            with told.telling(module, calls, with_paths=False) as calls.paths:
                yield
    finally:
        _next.asked = asked


def _may_be_told(plan: Plan, args: Any) -> bool:
    """Whether no code asks of what class an object is, as far as that can be known."""
    static = [x for x in jax.tree.leaves(args) if not isinstance(x, jax.Array)]
    found = graph.remembered(plan.module, plan.keep_rngs, plan.memory)
    held = {id(x): x for x in [plan.function, *found.types, *found.statics, *static]}
    return key_of(list(held.values()), watched=_ASKING) is not None


class _Calls:
    """Runs the methods of submodules."""

    def __init__(self, asked: Sharing, module: Any, keep_rngs: bool, keys: Any):
        self.asked, self.keep_rngs, self.keys = asked, keep_rngs, keys
        self._running = [module]
        self.paths: dict[int, names.Path] = {}

    def name_of(self, part: Any) -> str:
        """For the report. A part inside of a transform of NNX has no path."""
        return "/".join([self.asked.name, _text(self.paths.get(id(part), ("?",)))])

    def is_of_many(self, part: Any) -> bool:
        """Whether `part` has others in it, and several are called alike."""
        texts = set(map(_text, self.paths.values()))
        own = _text(self.paths.get(id(part), ("?",)))
        has_some = any(text.startswith(f"{own}/") for text in texts)
        return has_some and _worth.is_of_many(own, texts)

    def __call__(
        self, path: Any, part: Any, method: str, run: Any, args: Any, kwargs: Any
    ) -> Any:
        if any(part is other for other in self._running):
            return run(*args, **kwargs)
        with self.running(part):
            return self.asked.share(Inner(self, part, method, run, args, kwargs))

    @contextlib.contextmanager
    def running(self, part: Any) -> Iterator[None]:
        """While `part` runs, what it calls of itself is part of that."""
        self._running.append(part)
        try:
            yield
        finally:
            self._running.pop()

    @contextlib.contextmanager
    def running_for(self, part: Any, copy: Any) -> Iterator[None]:
        """While a copy runs in place of `part`."""
        before = self.paths
        self.paths = {**before, **dict(_paths(copy, before.get(id(part), ("?",))))}
        try:
            with self.running(copy):
                yield
        finally:
            self.paths = before


class Inner:
    """A call of a method of a submodule."""

    watched: frozenset[str] = frozenset()
    patience = _worth.PATIENCE

    def __init__(
        self, calls: _Calls, part: Any, method: str, run: Any, args: Any, kwargs: Any
    ):
        self._calls, self._part, self._method = calls, part, method
        self._run, self._args, self._kwargs = run, args, kwargs
        self._known: Graph | None = None
        self._pending: dict[int, str] = {}  # the streams of leaves: keys, not drawn yet
        self._copy: Any = None

    @property
    def _graph(self) -> Graph:
        """What the part is now."""
        if self._known is None:
            self._known = _graph_of(self._part, self._calls.keep_rngs)
        return self._known

    @property
    def name(self) -> str:
        return self._calls.name_of(self._part)

    @property
    def title(self) -> str:
        return type(self._part).__name__

    @property
    def kind(self) -> Any:
        return type(self), told.original(type(self._part)), self._method

    @property
    def others(self) -> bool:
        return self._calls.is_of_many(self._part)

    def refusal(self) -> str | None:
        if is_intercepted():
            return _errors.INTERCEPTED
        return _errors.GIVEN if _has_objects((self._args, self._kwargs)) else None

    def arguments(self) -> Any:
        return self._args, self._kwargs

    def inputs(self) -> Any:
        leaves = self._graph.leaves
        pending = [lazy.pending(leaf.value) for leaf in leaves]
        self._pending = {i: s for i, s in enumerate(pending) if s is not None}
        values = [
            None if i in self._pending else _value(leaf)
            for i, leaf in enumerate(leaves)
        ]
        return values, self._args, self._kwargs

    def held(self) -> Any:
        return self._graph.parts

    def parts(self) -> Any:
        offers = [(i, self._calls.keys.offers(s)) for i, s in self._pending.items()]
        return self._method, self._calls.keep_rngs, tuple(offers)

    def as_ever(self) -> Any:
        self._known = None
        return self._run(*self._args, **self._kwargs)

    def drawn(self) -> Any:
        """The keys, by their leaves. They are drawn by who asks for what they hold."""
        leaves = self._graph.leaves
        if len(leaves) <= max(self._pending, default=-1):
            return None
        return tuple(i for i in self._pending if not lazy.pending(leaves[i].value))

    def draw(self, drawn: Any) -> list[Any] | None:
        if not all(self._calls.keys.has(self._pending[i]) for i in drawn):
            return None
        return [self._graph.leaves[i].value.get_raw_value() for i in drawn]

    def undraw(self) -> None:
        """None was: they are split from such as are there."""

    def apart(self, inputs: Any, drawn: Any, keys: Sequence[Any]) -> tuple[Any, Any]:
        values, args, kwargs = inputs
        held: dict[int, Any] = {
            **dict(enumerate(values)),
            **dict(zip(drawn, keys, strict=True)),
        }
        for i, leaf in enumerate(self._graph.leaves):
            if i in self._pending and i not in drawn:
                held[i] = lazy.refusing(self._pending[i], streams.stand_in())
            elif isinstance(held[i], bytes):
                held[i] = leaf.value.get_raw_value()
        variables = [
            # Code may write into a list or dict that a Variable has, as `sow` does.
            type(leaf.value).from_metadata(
                jax.tree.map(lambda x: x, held[i]), leaf.value.get_metadata()
            )
            for i, leaf in enumerate(self._graph.leaves)
        ]
        copy = self._graph.bind(variables, list(held.values())).module
        self._copy = copy  # which shows to whom the lists of the output belong
        method = told.untold(copy, self._method)
        with self._calls.running_for(self._part, copy):
            output = self._calls.asked.alone(method)(*args, **kwargs)
        if _has_objects(output):
            raise TypeError("It returns a module, or a Variable.")
        after = _graph_of(copy, self._calls.keep_rngs)
        if key_of(after.parts) != key_of(self._graph.parts):
            raise TypeError("It changes what it holds.")
        if any(
            leaf.value is not v for leaf, v in zip(after.leaves, variables, strict=True)
        ):
            raise TypeError("It holds other Variables now.")
        changed = {
            i: leaf.value.get_raw_value()
            for i, leaf in enumerate(after.leaves)
            if not lazy.pending(leaf.value)
            and not is_passed(leaf.value.get_raw_value(), held[i])
        }
        return (output, changed), None

    def result(self, output: Any, said: Any) -> Any:
        value, changed = output
        for i, held in changed.items():
            self._graph.leaves[i].value.set_raw_value(held)
        return value


def _text(path: names.Path) -> str:
    return "/".join(map(str, path))


def _paths(module: Any, prefix: names.Path) -> Iterator[tuple[int, names.Path]]:
    for path, part in nnx.iter_modules(module):
        yield id(part), (*prefix, *path)


def _graph_of(part: Any, keep_rngs: bool) -> Graph:
    """What a part is now. To look at it draws no keys."""
    with lazy.unread():
        return Graph(part, keep_rngs)


def _value(leaf: Leaf) -> Any:
    """What goes in of a leaf. A count that is not traced is known: the trace has it."""
    value = leaf.value.get_raw_value() if leaf.kind is not Kind.ARRAY else leaf.value
    if leaf.kind is Kind.COUNT and not isinstance(value, jax.core.Tracer):
        return np.asarray(value).tobytes()
    return value


def _has_objects(tree: Any) -> bool:
    """Whether there are modules or Variables in `tree`."""
    leaves = jax.tree.leaves(tree, is_leaf=kinds.is_of_graph)
    return any(map(kinds.is_of_graph, leaves))
