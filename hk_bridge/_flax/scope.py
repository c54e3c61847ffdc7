"""The Scope that a module is bound to: Flax's own, which asks and tells the bridge.

Private in Flax, and what `Scope`, its `push`, `rewound` and `make_rng` are made of,
which a subclass with keys drawn on demand must write anew: `Scope._variables`, `_root`,
`_invalid`, `_check_valid`, `_validate_trace_level`, `_collection`,
`_mutable_collection`, `flax.core.scope.child_rng_token` and
`flax.core.tracers.current_trace` (all since flax 0.12.2 and long before;
`tests/test_doors.py` names each).
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
import itertools
from typing import Any
import weakref

from flax import core
from flax import errors
from flax.core import meta
from flax.core import scope as core_scope
from flax.core import tracers
import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge._flax import lifted
from hk_bridge._flax import pack
from hk_bridge._flax.host import MISSING
from hk_bridge._flax.host import Host
from hk_bridge._flax.host import Recipe
from hk_bridge._flax.host import Record
from hk_bridge._flax.keys import Key
from hk_bridge._flax.keys import LazyRng
from hk_bridge._flax.keys import folded
from hk_bridge._flax.shapes import initial
from hk_bridge._layout import Where

Path = tuple[str, ...]

# Streams that Flax's own layers ask for. A lifted transform takes its keys before it
# runs, when the streams that the code inside will ask for cannot be known.
_STREAMS = ("params", "dropout")
_FLAG = "hk_bridge"
_numbers = itertools.count()
_NOTHING: frozenset[tuple[str, str]] = frozenset()


class _Lead:
    """Leads from the flags of a Scope to its run.

    Leads are equal, so that `nn.jit`, which goes by the flags, traces once; but where
    somebody watches, a trace in which nobody did will not do."""

    def __init__(self, running: "Running"):
        # The run holds its flags: a strong reference back would keep it alive.
        self.running = weakref.ref(running)
        host = running.host
        matters = host.observes or (lifted.seen.untold and host.hooked)
        # Flax keeps but a hash: that of an object() is its address, which returns.
        self._watched = next(_numbers) if matters else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lead) and self._watched == other._watched

    def __hash__(self) -> int:
        return hash(self._watched)

    def leads_from(self, scope: core.Scope) -> bool:
        return scope.flags.get(_FLAG) is self


class Running:
    """One run of a module: who answers, what may change, what has happened.

    Attributes:
      host: answers.
      mutable: the collections that may change.
      record: what happened.
      watch: sees lifted transforms.
      leads_here: whether a Scope is of this run, and not of an `apply` inside it.
      flags: of all Scopes of the run.
    """

    def __init__(self, host: Host, mutable: core_scope.CollectionFilter):
        self.host = host
        self.mutable = mutable
        self.record = Record()
        lead = _Lead(self)
        self.leads_here = lead.leads_from
        self.watch = lifted.Watch(lead.leads_from, Scope.adopt)
        initializing = {"initializing": True} if host.initializing else {}
        self.flags: Any = core.FrozenDict({**initializing, _FLAG: lead})


class Scope(core.Scope):
    """A Scope that draws keys when they are used, and asks for parameters.

    It records what is written.

    Inside a lifted transform (`inside`), Haiku can make nothing, and draw no key."""

    running: Running
    record: Record
    inside = False
    # At the root of what a lifted transform made: the Scope that it took it from.
    _outer: "weakref.ref[Scope] | None" = None
    _tells = False  # by what comes out of `nn.jit`
    _pack: pack.Pack | None = None  # the last lifted transform that took this Scope's
    _passing: "frozenset[tuple[str, str]]" = _NOTHING
    _root_path: Path
    _rngs: dict[str, Any]

    def __init__(
        self,
        running: Running,
        variables: dict[str, Any],
        name: str | None = None,
        parent: "Scope | None" = None,
        debug_path: Path = (),
    ):
        # What core.Scope.__init__ does, in less time; a test compares.
        self.running = running
        self._variables = variables
        self.parent = parent
        self.name = name
        self.debug_path = debug_path
        self._rngs = {}
        if parent is None:
            keys = running.host.streams.keys.items()
            self._rngs = {k: LazyRng.create(v) for k, v in keys}
            self.mutable, self.record, self._root_path = (
                running.mutable,
                running.record,
                (),
            )
        else:
            self.mutable, self.record = parent.mutable, parent.record
            self.inside = parent.inside
        self.flags: Any = running.flags
        self._root = None if parent is None else parent.root
        self.trace_level = tracers.current_trace()
        self.rng_counters = dict.fromkeys(self._rngs, 0)
        self.reservations = collections.defaultdict(set)
        self._invalid = False
        self._hash = id(variables if parent is None else parent.root._variables)

    @staticmethod
    def root_of(running: Running, variables: dict[str, Any]) -> "Scope":
        """The Scope of the module that runs, with all variables."""
        return Scope(running, variables)

    @staticmethod
    def adopt(plain: core.Scope) -> None:
        """Makes a plain Scope, inside a lifted transform, one of ours."""
        if type(plain) is not core.Scope:
            return
        if plain.parent is not None:
            Scope.adopt(plain.parent)
        scope: Any = plain
        state = vars(plain)
        path, rngs = state.pop("path"), state.pop("rngs")
        plain.__class__ = Scope
        scope.running, scope.inside = plain.flags[_FLAG].running(), True
        scope._rngs, scope._root_path = rngs, path
        scope._hash = id(plain.root._variables)
        if plain.parent is not None:
            scope.record = scope.parent.record
            return
        outer, between = scope.running.watch.outer(plain.debug_path)
        scope.record = scope.running.record
        if outer is not None:
            scope._outer = weakref.ref(outer)
            scope._tells = outer.packed_by_jit and not between
            scope.record = Record() if scope._tells else outer.record
            untold = between and (outer.packed_by_jit or "jit" in between)
            lifted.seen.untold |= bool(untold)

    @property
    def path(self) -> Path:  # type: ignore[override]
        """Derived, since `nn.share_scope` gives a Scope another parent."""
        if self.parent is None:
            return self._root_path
        assert self.name is not None
        return (*self.parent.path, self.name)

    def _check(self) -> None:
        """Refuses use after the call, and where Flax refuses another trace."""
        self._check_valid()  # type: ignore[no-untyped-call]
        self._validate_trace_level()  # type: ignore[no-untyped-call]

    def __hash__(self) -> int:
        """Coarser than Flax's, and faster: equal scopes have equal hashes."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    # Keys.

    @property
    def rngs(self) -> dict[str, Any]:
        """The streams at hand, which only lifted transforms and the NNX bridge ask for.

        A lifted transform hands on the streams that its `rngs=` or `split_rngs=` names,
        so those are drawn now; there is no way to draw a Haiku key inside it. What was
        drawn before is handed on as well."""
        asking = pack.asking()
        filters: tuple[Any, ...] = (True,)
        if asking is not None:
            self._pack, self._passing = asking, _NOTHING
            filters = asking.rng_filters
            self.running.watch.pack(self, asking)
        named = {name for f in filters for name in _names_in(f)}
        named.update(self.running.host.streams.keys)
        for stream in (*_STREAMS, *sorted(named.difference(_STREAMS))):
            wanted = any(core_scope.in_filter(f, stream) for f in filters)
            if wanted and self._has_stream(stream):
                self._stream(stream)
        _complete(self.rng_counters, self._rngs)
        return self._rngs

    @rngs.setter
    def rngs(self, rngs: dict[str, Any]) -> None:
        self._rngs = rngs

    @property
    def packed_by_jit(self) -> bool:
        return self._pack is not None and self._pack.jitted

    def _has_stream(self, stream: str) -> bool:
        """Whether there is a key of `stream`, or one can be drawn."""
        if stream in self._rngs:
            return True
        if not self.inside:
            return self.running.host.streams.offers(stream)
        outer = self._handed_on_by(stream)
        if outer is None or outer.trace_level != self.trace_level:
            return False
        return outer._has_stream(stream)

    def _stream(self, stream: str) -> Any:
        if stream not in self._rngs:
            parent: Any = self.parent
            name: Any = self.name
            outer = None if parent else self._handed_on_by(stream)
            if outer is not None:
                lazy = outer._stream(stream)
            elif parent is None:
                lazy = LazyRng.create(self.running.host.streams.key(stream))
            else:
                lazy = LazyRng.create(parent._stream(stream), name)
            self._rngs[stream] = lazy
            self.rng_counters.setdefault(stream, 0)
        return self._rngs[stream]

    def has_rng(self, name: str) -> bool:
        """As in Flax.

        Raises:
          InvalidRngError: inside a lifted transform that hands on every stream, and
            Haiku could have drawn this one outside."""
        if not self._has_stream(name) and self._is_left_outside(name):
            raise errors.InvalidRngError(_errors.lifted_stream(name, self.path_text))
        return self._has_stream(name)

    def _is_left_outside(self, name: str) -> bool:
        """Whether a lifted transform would have handed on `name`, had it been drawn."""
        outer = self._handed_on_by(name)
        if outer is None:
            return False
        return outer._has_stream(name) or outer._is_left_outside(name)

    def _handed_on_by(self, stream: str) -> "Scope | None":
        """The Scope outside, if the lifted transform between hands on `stream`."""
        root: Any = self.root
        outer: Scope | None = None if root._outer is None else root._outer()
        if outer is None:
            return None
        filters = (True,) if outer._pack is None else outer._pack.rng_filters
        allowed = any(core_scope.in_filter(f, stream) for f in filters)
        return outer if allowed else None

    def make_rng(self, name: str = "params") -> Key:
        if not self.has_rng(name):
            if not self.has_rng("params"):
                return super().make_rng(name)  # raises
            name = "params"
        self._check()  # before a key is drawn, which a wrong trace would keep
        lazy = self._stream(name)
        return folded(lazy.rng, (*lazy.suffix, self.count(name)))

    def count(self, stream: str) -> int:
        """Counts one key of `stream` as used."""
        self.rng_counters[stream] = self.rng_counters.get(stream, 0) + 1
        return self.rng_counters[stream]

    # Children.

    def push(
        self, name: str | None = None, prefix: str = "", reuse: bool = False
    ) -> "Scope":
        self._check()
        self._passing = _NOTHING
        if name is None:
            name = self.default_name(prefix)
        if not reuse or name not in self.reservations:
            core.Scope.reserve(self, name)
        child = Scope(self.running, {}, name, self, (*self.debug_path, name))
        child._rngs = {
            key: LazyRng.create(rng, name) for key, rng in self._rngs.items()
        }
        counters: Any = self.rng_counters  # of streams, and by token those of children
        child.rng_counters = counters.setdefault(
            (core_scope.child_rng_token, name), dict.fromkeys(child._rngs, 0)
        )
        return child

    def rewound(self, rewind_rngs: bool = False) -> "Scope":
        self._check()
        parent: Any = self.parent
        scope = Scope(self.running, self._variables, self.name, parent, self.debug_path)
        scope.mutable, scope.record, scope.inside = (
            self.mutable,
            self.record,
            self.inside,
        )
        if parent is None:
            scope._root_path, scope._outer = self._root_path, self._outer
            scope._tells = self._tells
        scope._rngs = self._rngs
        scope.rng_counters = (
            dict.fromkeys(self._rngs, 0) if rewind_rngs else self.rng_counters
        )
        return scope

    def invalidate(self) -> None:
        """Ends the use of this Scope; one inside a lifted transform tells the outer."""
        super().invalidate()  # type: ignore[no-untyped-call]
        outer = None if self._outer is None else self._outer()
        if outer is None:
            return
        mutable = [c for c in self._variables if self.is_mutable_collection(c)]
        outer._passing = frozenset(
            (col, name) for col in mutable for name in self._variables[col]
        )
        if self._tells:
            for col in mutable:
                told: Any = lifted.tell(
                    self.record, col, self._variables[col], self.path
                )
                self._variables[col] = told

    # Variables.

    def _collection(self, col: str) -> Any:
        """As in Flax, once the parameters are read that only wait to be asked for."""
        self._passing = _NOTHING
        host = self.running.host
        if col != _layout.PARAMS or not host.reads_late:
            return super()._collection(col)
        root: Any = self.root
        host.read_rest(root._variables, self.path)
        level = self._own_level(col)
        if level:
            self._variables[col] = level
        return level or core.FrozenDict()

    def reserve(self, name: str, col: str | None = None) -> None:
        """As in Flax. What a Scope declares (`param`, `variable`) does not come here:
        who reserves the name of a variable, and declares none, sows."""
        if col is not None:
            self.record.sown.add(col)
        super().reserve(name, col)

    def param(
        self,
        name: str,
        init_fn: Callable[..., Any],
        *args: Any,
        unbox: bool = True,
        **kwargs: Any,
    ) -> Any:
        try:
            core.Scope.reserve(self, name, _layout.PARAMS)
            value = self._param(Recipe(self, name, init_fn, args, kwargs))
        except errors.FlaxError as error:
            self._explain(error, _layout.PARAMS, name)
            raise
        is_plain = isinstance(value, jax.Array)  # meta.unbox takes long to see that
        return meta.unbox(value) if unbox and not is_plain else value

    def _param(self, recipe: Recipe) -> Any:
        host, name = self.running.host, recipe.name
        if host.reads_late:
            level = self._own_level(_layout.PARAMS)
            if name in level:
                return self._checked(recipe, level[name])
        elif self.has_variable(_layout.PARAMS, name):
            return self._checked(recipe, self.get_variable(_layout.PARAMS, name))
        value = host.param(recipe)
        if value is not MISSING and host.initializing:
            self._mutable_collection(_layout.PARAMS)[name] = value
            return value
        if value is not MISSING:
            root: Any = self.root
            _layout.place(root._variables, recipe.where, value)
            return self._checked(recipe, value)
        if not self.is_mutable_collection(_layout.PARAMS):
            if self.is_collection_empty(_layout.PARAMS):
                raise errors.ScopeCollectionNotFound(
                    _layout.PARAMS, name, self.path_text
                )
            raise errors.ScopeParamNotFoundError(name, self.path_text)
        value = recipe.draw()
        super().put_variable(_layout.PARAMS, name, value)
        return value

    def _checked(self, recipe: Recipe, value: Any) -> Any:
        """`value`, in the box of its initialiser, if that makes a value of its shapes.

        Raises:
          ScopeParamShapeError: as Flax does, if it makes another."""
        made = initial(recipe)
        if made.boxed is not None and not _layout.is_box(value):
            value = _layout.rebox(value, made.boxed)
            self._own_level(_layout.PARAMS)[recipe.name] = value
        if hasattr(value, "shape"):
            found = [value.shape]
        else:
            found = list(map(np.shape, jax.tree.leaves(value)))
        for shape, expected in zip(found, made.shapes, strict=False):
            if shape != expected:
                raise errors.ScopeParamShapeError(
                    recipe.name, self.path_text, shape, expected
                )
        return value

    def _own_level(self, col: str) -> Any:
        """The level of the tree that has the variables of this Scope, or an empty."""
        root: Any = self.root
        level = root._variables.get(col, {})
        for part in self.path[len(root._root_path) :]:
            level = level.get(part, {})
        return level

    def variable(
        self,
        col: str,
        name: str,
        init_fn: Callable[..., Any] | None = None,
        *args: Any,
        unbox: bool = True,
        **kwargs: Any,
    ) -> Any:
        try:
            core.Scope.reserve(self, name, col)
            if not self.has_variable(col, name):
                self._make(col, name, init_fn, args, kwargs)
        except errors.FlaxError as error:
            self._explain(error, col, name)
            raise
        return core_scope.Variable(self, col, name, unbox=unbox)

    def _make(self, col: str, name: str, init_fn: Any, args: Any, kwargs: Any) -> None:
        if not self.is_mutable_collection(col) or init_fn is None:
            if self.is_collection_empty(col):
                raise errors.ScopeCollectionNotFound(col, name, self.path_text)
            raise errors.ScopeVariableNotFoundError(name, col, self.path_text)
        value, where = init_fn(*args, **kwargs), Where(col, (*self.path, name))
        if not self.inside:
            value = self.running.host.start(where, value)
        super().put_variable(col, name, value)
        self.record.made.update(_layout.below(where, value))

    def put_variable(self, col: str, name: str, value: Any) -> None:
        told = None
        if isinstance(value, lifted.Passed):
            value, told = value
        where = Where(col, (*self.path, name))
        written = set(_layout.below(where, value)) if told is None else set()
        if (col, name) in self._passing:
            self._passing -= {(col, name)}  # once: the next to come is the module's
            written = self._mapped(where, value) if self._maps else set()
        try:
            super().put_variable(col, name, value)
        except errors.FlaxError as error:
            self._explain(error, col, name)
            raise
        self.record.wrote |= written
        if told is not None:
            self.record.update(lifted.moved(told, self.path))

    @property
    def _maps(self) -> bool:
        """Whether the last lifted transform writes all that it maps, by itself."""
        return self._pack is not None and self._pack.name == "map_variables"

    def _mapped(self, where: Where, value: Any) -> set[Where]:
        """Which leaves of `value`, that comes out of a map, are not as they were."""
        old = {where.path[-1]: self._own_level(where.collection).get(where.path[-1])}
        new = {where.path[-1]: value}
        return {
            Where(where.collection, (*self.path, *below.path))
            for below in _layout.below(Where(where.collection, ()), new)
            if _layout.find({where.collection: old}, below)
            is not _layout.find({where.collection: new}, below)
        }

    def _explain(self, error: Exception, col: str, name: str) -> None:
        self.running.host.explain(error, Where(col, (*self.path, name)))


def _names_in(stream_filter: Any) -> set[str]:
    """The names that a filter spells out."""
    if isinstance(stream_filter, core.DenyList):
        return _names_in(stream_filter.deny)
    if isinstance(stream_filter, bool):
        return set()
    return core_scope.filter_to_set(stream_filter)


def _complete(counters: dict[Any, Any], streams: Iterable[str]) -> None:
    """Has a count for each stream, as Flax expects, in children made before it was."""
    for stream in streams:
        counters.setdefault(stream, 0)
    for child in [c for c in counters.values() if isinstance(c, dict)]:
        _complete(child, streams)
