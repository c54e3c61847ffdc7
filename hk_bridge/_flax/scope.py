"""The Scope that a module is bound to: Flax's own, which asks and tells the bridge.

Private in Flax, and what `Scope`, its `push` and `rewound` are made of, which a class
with keys drawn on demand must write anew: `Scope._variables`, `_root`, `_invalid`,
`flax.core.scope.child_rng_token` and `flax.core.tracers.current_trace` (all since flax
0.12.2 and long before; `tests/test_doors.py` names each).
"""

import collections
from collections.abc import Mapping
import types
from typing import Any
import weakref

from flax import core
from flax.core import scope as core_scope
from flax.core import tracers

from hk_bridge import _layout
from hk_bridge._flax import lifted
from hk_bridge._flax import pack
from hk_bridge._flax.host import Host
from hk_bridge._flax.host import Record
from hk_bridge._flax.keyed import NOTHING
from hk_bridge._flax.keyed import Path
from hk_bridge._flax.keys import LazyRng
from hk_bridge._flax.recording import Recording
from hk_bridge._flax.running import FLAG
from hk_bridge._flax.running import Running
from hk_bridge._layout import Where


class Scope(Recording):
    """A Scope of ours, and how it comes to be: new, adopted, a child or rewound."""

    _tells = False  # by what comes out of `nn.jit`
    _began: Mapping[Where, Any] = types.MappingProxyType({})  # in a map, its leaves

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
        self.boxed = []

    @classmethod
    def root_of(
        cls,
        host: Host,
        mutable: core_scope.CollectionFilter,
        variables: dict[str, Any],
        module: type,
    ) -> "Scope":
        """The Scope of a module that begins to run, with all variables."""
        return cls(Running(host, mutable, cls.adopt, module), variables)

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
        scope.running, scope.inside = plain.flags[FLAG].running(), True
        scope._rngs, scope._root_path = rngs, path
        scope.boxed = []
        if plain.parent is not None:
            scope.record = scope.parent.record
            return
        outer, between = scope.running.watch.outer(plain.debug_path)
        scope.record = scope.running.record
        if outer is not None:
            scope._outer = weakref.ref(outer)
            scope._tells = outer.packed_by_jit and not between
            if outer.packed_by_map or pack.MAP in between:
                outer._maps = True
                scope._began = dict(_layout.leaves(plain._variables))
            scope.record = Record() if scope._tells else outer.record
            if between and (outer.packed_by_jit or "jit" in between):
                lifted.untold.add(scope.running.cls)
                lifted.told.pop(scope.running.cls, None)

    @property
    def path(self) -> Path:  # type: ignore[override]
        """Derived, since `nn.share_scope` gives a Scope another parent."""
        if self.parent is None:
            return self._root_path
        assert self.name is not None
        return (*self.parent.path, self.name)

    @property
    def root(self) -> "Scope":
        """Derived as well: the parent may be of another root, in a lifted transform."""
        scope: Any = self
        while scope.parent is not None:
            scope = scope.parent
        return scope  # type: ignore[no-any-return]

    def __hash__(self) -> int:
        """Coarser than Flax's, and faster: equal scopes have equal hashes.

        It is asked for so often that a call of `root` would tell."""
        scope: Any = self
        while scope.parent is not None:
            scope = scope.parent
        return id(scope._variables)

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    def push(
        self, name: str | None = None, prefix: str = "", reuse: bool = False
    ) -> "Scope":
        self.check()
        self._passing = NOTHING
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
        self.check()
        parent: Any = self.parent
        scope = Scope(self.running, self._variables, self.name, parent, self.debug_path)
        scope.mutable, scope.record, scope.inside = (
            self.mutable,
            self.record,
            self.inside,
        )
        if parent is None:
            scope._root_path, scope._outer = self._root_path, self._outer
            scope._tells, scope._began = self._tells, self._began
        scope._rngs = self._rngs
        scope.rng_counters = (
            dict.fromkeys(self._rngs, 0) if rewind_rngs else self.rng_counters
        )
        return scope

    def invalidate(self) -> None:
        """Ends the use of this Scope; one inside a lifted transform tells the outer."""
        super().invalidate()  # type: ignore[no-untyped-call]
        if self.inside:
            for level, name in self.boxed:  # what comes out is as what went in
                level[name] = _layout.unbox(level[name])
        outer = None if self._outer is None else self._outer()
        if outer is None:
            return
        if self._began and outer.trace_level == self.trace_level:
            outer.came_out(self, self._began)
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
