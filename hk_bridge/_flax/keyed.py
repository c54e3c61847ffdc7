"""The keys of a Scope, drawn when they are used.

Private in Flax, and what `make_rng` is made of: `Scope._check_valid` and
`_validate_trace_level`.
"""

from collections.abc import Iterable
from typing import Any
import weakref

from flax import core
from flax import errors
from flax.core import scope as core_scope

from hk_bridge import _errors
from hk_bridge._flax import pack
from hk_bridge._flax.host import Record
from hk_bridge._flax.keys import DEFAULT
from hk_bridge._flax.keys import Key
from hk_bridge._flax.keys import LazyRng
from hk_bridge._flax.running import Running

Path = tuple[str, ...]
NOTHING: frozenset[tuple[str, str]] = frozenset()

# Streams that Flax's own layers ask for. A lifted transform takes its keys before it
# runs, when the streams that the code inside will ask for cannot be known.
_STREAMS = ("params", "dropout")


class Keyed(core.Scope):
    """A Scope that has a key of each stream that its host offers.

    Inside a lifted transform (`inside`), Haiku can make nothing, and draw no key."""

    running: Running
    record: Record
    inside = False
    # At the root of what a lifted transform made: the Scope that it took it from.
    _outer: "weakref.ref[Any] | None" = None
    _pack: pack.Pack | None = None  # the last lifted transform that took this Scope's
    _passing: "frozenset[tuple[str, str]]" = NOTHING
    # Whether that is a map of variables, or one is right inside it; and by their ids
    # the leaves that come out of it, with what went in.
    _maps = False
    _same: "dict[int, tuple[Any, Any]]"
    _root_path: Path
    _rngs: dict[str, Any]
    # At a root: what was put into boxes after the Scope was made.
    boxed: list[tuple[dict[str, Any], str]]

    def check(self) -> None:
        """Refuses use after the call, and where Flax refuses another trace."""
        self._check_valid()  # type: ignore[no-untyped-call]
        self._validate_trace_level()  # type: ignore[no-untyped-call]

    @property
    def rngs(self) -> dict[str, Any]:
        """The streams at hand, which only lifted transforms and the NNX bridge ask for.

        A lifted transform hands on the streams that its `rngs=` or `split_rngs=` names,
        so those are drawn now; there is no way to draw a Haiku key inside it. What was
        drawn before is handed on as well."""
        asking = pack.asking()
        filters: tuple[Any, ...] = (True,)
        if asking is not None:
            self._pack, self._passing = asking, NOTHING
            self._maps, self._same = False, {}
            filters = asking.rng_filters
            self.running.watch.pack(self, asking)
        named = {name for f in filters for name in _names_in(f)}
        named.update(self.running.host.streams.keys)
        if asking is None:
            named.add(DEFAULT)
            self._answer_for_all()
        for stream in (*_STREAMS, *sorted(named.difference(_STREAMS))):
            wanted = any(core_scope.in_filter(f, stream) for f in filters)
            if wanted and self._has_stream(stream):
                self.running.host.streams.hand_on()
                self._stream(stream)
        _complete(self.rng_counters, self._rngs)
        return self._rngs

    @rngs.setter
    def rngs(self, rngs: dict[str, Any]) -> None:
        self._rngs = rngs

    def _answer_for_all(self) -> None:
        """Has the NNX bridge find a key for any stream inside a lifted transform, too.

        That of `params` was drawn where it starts, and this one is made of it."""
        if not self.inside or self._has_stream(DEFAULT):
            return
        if self._is_left_outside(DEFAULT) and self._has_stream("params"):
            self._rngs[DEFAULT] = LazyRng.create(self._stream("params"), DEFAULT)

    @property
    def packed_by_jit(self) -> bool:
        return self._pack is not None and self._pack.jitted

    @property
    def packed_by_map(self) -> bool:
        return self._pack is not None and self._pack.maps

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

    def _handed_on_by(self, stream: str) -> "Keyed | None":
        """The Scope outside, if the lifted transform between hands on `stream`."""
        root: Any = self.root
        outer: Keyed | None = None if root._outer is None else root._outer()
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
        self.check()  # before a key is drawn, which a wrong trace would keep
        lazy = self._stream(name)
        suffix = (*lazy.suffix, self.count(name))
        return self.running.host.streams.fold(name, lazy.rng, suffix)

    def count(self, stream: str) -> int:
        """Counts one key of `stream` as used."""
        self.rng_counters[stream] = self.rng_counters.get(stream, 0) + 1
        return self.rng_counters[stream]


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
