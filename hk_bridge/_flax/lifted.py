"""Scopes inside lifted transforms (`nn.scan`, `nn.remat`, `nn.jit`, ...) become ours.

A lifted transform packs the variables and keys of a Scope, makes a plain Scope of them
inside, and puts all that it may have changed back into the outer one, whether it was
written or not. So a Scope inside is made one of ours as well (it has the same
attributes), when the first method that runs there is seen; then shapes are remembered,
writes recorded and streams explained inside as outside, and the outer Scope knows what
only passed through.

Private in Flax: `flax.linen.module._global_interceptor_stack` and its `_storage`.
Nothing public starts an interceptor below those in force, which leave from the top.
Without it, one is in force from the start, which costs time.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple
import weakref

from flax import core
from flax.core import scope as core_scope
import flax.linen as nn
import jax

from hk_bridge._flax import private
from hk_bridge._flax.bind import fields
from hk_bridge._flax.host import Record
from hk_bridge._flax.pack import Pack
from hk_bridge._layout import Where

if TYPE_CHECKING:
    from hk_bridge._flax.keyed import Keyed

Path = tuple[str, ...]


class Watch:
    """Adopts the plain Scopes that lead to one run, from the first lifted transform.

    Args:
      leads_here: whether a Scope is of the run.
      adopt: makes a plain Scope one of ours.
    """

    def __init__(
        self,
        leads_here: Callable[[core.Scope], bool],
        adopt: Callable[[core.Scope], None],
    ):
        self._leads_here = leads_here
        self._adopt = adopt
        # By the `debug_path` of what is made of it.
        self._packed: dict[Path, weakref.ref[Keyed]] = {}
        self._stop: Callable[[], None] | None = None

    def pack(self, scope: "Keyed", pack: Pack) -> None:
        """A lifted transform takes what `scope` has."""
        # A strong reference would keep tracers alive after their trace.
        self._packed[pack.inside(scope.debug_path)] = weakref.ref(scope)
        self._start()

    def _start(self) -> None:
        interceptors = private.interceptors()
        if self._stop is None and interceptors is not None:
            interceptors.insert(0, self._interceptor)
            self._stop = lambda: interceptors.remove(self._interceptor)

    def _end(self) -> None:
        if self._stop is not None:
            self._stop()
            self._stop = None  # a cycle, which would keep the run alive

    def outer(self, debug_path: Path) -> "tuple[Any, list[str]]":
        """The Scope that was packed for one of `debug_path`, and what is between.

        Where a lifted class is lifted again (`nn.jit(nn.scan(Block))`), no method runs
        between the two, and the Scope there stays plain."""
        found, between = self._packed.get(debug_path), list[str]()
        while found is None and debug_path and debug_path[-1].endswith(")"):
            *parents, last = debug_path
            name, _, inner = last[:-1].partition("(")
            between.append(name)
            debug_path = (*parents, inner)
            found = self._packed.get(debug_path)
        return (None if found is None else found()), between

    def _interceptor(self, run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        scope = context.module.scope
        if scope is None or not self._leads_here(scope):
            return run(*args, **kwargs)
        if type(scope) is core.Scope:
            for found in _scopes((context.module, args, kwargs)):
                if type(found) is core.Scope and self._leads_here(found):
                    self._adopt(found)
        # All below is ours up to the next lifted transform, which starts it again. To
        # be intercepted costs each method time.
        self._end()
        try:
            return run(*args, **kwargs)
        finally:
            self._start()

    @contextlib.contextmanager
    def until_end(self) -> Iterator[None]:
        """Ends watching with the block."""
        with contextlib.ExitStack() as always:
            if private.interceptors() is None:
                always.enter_context(nn.intercept_methods(self._interceptor))
            try:
                yield
            finally:
                self._end()


def _scopes(value: Any) -> Iterator[core.Scope]:
    """The Scopes of modules and variables that `value` is or holds."""
    if isinstance(value, nn.Module):
        if isinstance(value.scope, core.Scope):
            yield value.scope
        value = fields(value)
    if isinstance(value, core_scope.Variable):
        yield value.scope
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for held in value:
            yield from _scopes(held)


# Classes of modules with a trace of `nn.jit` that cannot tell what happened in it:
# another lifted transform is next inside. Where it matters, such a trace will not do.
untold: weakref.WeakSet[type] = weakref.WeakSet()
# Once there is one, other modules may meet its traces. These classes are known not to,
# each by a run of this number.
told: weakref.WeakKeyDictionary[type, int] = weakref.WeakKeyDictionary()


# What happened in `nn.jit` travels with its trace: on a hit of its cache nothing runs.


class Passed(NamedTuple):
    """A value that comes out of `nn.jit`, and what happened below it."""

    value: Any
    record: Record


@jax.tree_util.register_pytree_node_class
class Told:
    """A collection on its way out of `nn.jit`, and what happened to it inside.

    Lifted transforms hand on its `items()`. JAX remembers what is no array with the
    trace."""

    def __init__(self, tree: Mapping[str, Any], told: "_Telling"):
        self._tree, self._told = tree, told

    def items(self) -> Iterator[tuple[str, Passed]]:
        for name, value in self._tree.items():
            yield name, Passed(value, self._told.below(name))

    def tree_flatten(self) -> Any:
        return (dict(self._tree),), self._told

    @classmethod
    def tree_unflatten(cls, told: "_Telling", children: Any) -> "Told":
        return cls(children[0], told)


class _Telling(NamedTuple):
    """A record of one collection, relative to the Scope that was packed."""

    collection: str
    wrote: frozenset[Path]
    made: frozenset[Path]
    sown: Path | None  # by whom

    @classmethod
    def of(cls, record: Record, collection: str, prefix: Path) -> "_Telling":
        def relative(places: set[Where]) -> frozenset[Path]:
            return frozenset(
                where.path[len(prefix) :]
                for where in places
                if where.collection == collection
            )

        sown = record.sown.get(collection)
        return cls(collection, relative(record.wrote), relative(record.made), sown)

    def below(self, name: str) -> Record:
        """What happened to the variables `name` and below, relative still."""

        def places(paths: frozenset[Path]) -> set[Where]:
            return {Where(self.collection, path) for path in paths if path[0] == name}

        sown = {} if self.sown is None else {self.collection: self.sown}
        return Record(places(self.wrote), places(self.made), sown)


def tell(record: Record, collection: str, tree: Any, prefix: Path) -> Told:
    """The collection `tree` of a Scope at `prefix`, with what happened to it."""
    return Told(tree, _Telling.of(record, collection, prefix))


def moved(record: Record, prefix: Path) -> Record:
    """A relative record, seen from the root."""

    def places(relative: set[Where]) -> set[Where]:
        return {Where(where.collection, (*prefix, *where.path)) for where in relative}

    return Record(places(record.wrote), places(record.made), dict(record.sown))
