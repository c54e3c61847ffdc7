"""A call at apply: Flax runs on what Haiku holds, and what it wrote goes back."""

import copy
from typing import Any

import jax

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._core.side import Changes
from hk_bridge._core.side import Options
from hk_bridge._core.side import Side
from hk_bridge._core.side import Variables
from hk_bridge._core.side import owner
from hk_bridge._layout import PARAMS
from hk_bridge._layout import Where


class Apply(Side):
    """Gives Flax what Haiku holds; nothing is made."""

    initializing = False

    def __init__(
        self, net: Any, ledger: _haiku.Ledger, options: Options, streams: _flax.Streams
    ):
        super().__init__(net, ledger, options, streams)
        self.elsewhere: set[Where] = set()  # state that creators gave, and not Haiku

    def may_share(self) -> bool:
        if self.options.asked is not None or self.options.capture:
            return False
        return not (self.observes or _haiku.has_creators())

    def may_share_inside(self) -> bool:
        if self.options.capture or self.observes or self.reads_late:
            return False
        return not (_haiku.has_creators() or _haiku.has_state_creators())

    def with_keys(self, keys: dict[str, Any], ahead: dict[str, Any]) -> "Apply":
        """This call with these keys, and those `ahead` if it asks for them."""
        other = copy.copy(self)
        other.streams = self.streams.only(keys, ahead)
        return other

    @property
    def mutable(self) -> Any:
        """What Flax may change: by default what Haiku keeps in state."""
        mutable = self.options.asked
        if mutable is None:
            left_out = {PARAMS, *self.net._transient}
            mutable = tuple(sorted(self.ledger.collections - left_out)) or False
        return _flax.with_intermediates(mutable) if self.options.capture else mutable

    def param(self, recipe: _flax.Recipe) -> Any:
        if recipe.inside:
            return _flax.MISSING
        stored = self.late(recipe)
        if stored is _flax.MISSING:
            _haiku.check_usage()
        if stored is not _flax.MISSING or not _haiku.has_creators():
            return stored
        spec = recipe.spec(open_box=True)  # a creator and a getter may give it
        if not hasattr(spec, "shape"):
            return _flax.MISSING
        return self._fetched(recipe.where, spec, recipe.draw)

    def leaf(self, recipe: _flax.Recipe) -> Any:
        where = recipe.where
        if where.collection == PARAMS:
            return self.param(recipe)
        if not _haiku.has_state_creators():
            return _flax.MISSING
        return self._elsewhere(where, recipe.draw())

    def _fetched(self, where: Where, spec: Any, draw: Any) -> Any:
        value = self.ledger.fetch_param(where, spec, draw)
        return _flax.MISSING if value is _haiku.MISSING else value

    def start(self, where: Where, made: Any) -> Any:
        if not _haiku.has_state_creators() or where.collection in self.net._transient:
            return made
        return _layout.map_leaves(
            self._elsewhere, made, (where.collection, *where.path)
        )

    def _elsewhere(self, where: Where, made: Any) -> Any:
        """A leaf of state that creators and getters may keep elsewhere."""
        self.elsewhere.add(where)
        return self.ledger.fetch_state(where, made)

    def fetched(self, specs: Variables) -> Changes:
        """The parameters of these shapes that only creators and getters give.

        Inside lifted transforms Haiku cannot be asked for them."""
        found = {
            where: self._fetched(where, spec, _draws_nothing)
            for where, spec in _layout.leaves(specs)
            if where.collection == PARAMS and not self.ledger.has_param(where)
        }
        return {w: value for w, value in found.items() if value is not _flax.MISSING}

    def settle(self, outcome: _flax.Outcome) -> bool:
        """Writes what the module wrote in the collections that Haiku keeps.

        Returns:
          False: the module never runs again.

        Raises:
          StateStructureError: a leaf is new there, or gone.
        """
        wrote = outcome.record.wrote | outcome.record.made
        touched = {w.collection for w in wrote}.intersection(self._kept())
        variables = {c: v for c, v in outcome.variables.items() if c in touched}
        changed = {w: v for w, v in _layout.leaves(variables) if w in wrote}
        old = self.ledger.values
        for where in changed:
            known = where in old or _haiku.has_state_creators()
            if not known and self.options.asked is None:
                raise _errors.new_state_leaf(owner(self.net), *where)
        for where in old:
            after = _layout.find(variables, where, _flax.MISSING)
            gone = after is _flax.MISSING or _layout.is_level(after)
            if where.collection in touched and gone:
                before = jax.tree.structure(old[where])
                raise _errors.changed_state_leaf(
                    owner(self.net), *where, before, "no leaf"
                )
        for where, value in changed.items():
            away = where in self.elsewhere and where in outcome.record.wrote
            if where in old or away:
                self.set_state(where, value, old.get(where, value))
        return False

    def _kept(self) -> set[str]:
        """The collections whose changes go to Haiku."""
        return {c for c in self.ledger.collections if self.writes(c)}


def _draws_nothing() -> Any:
    raise AssertionError("No initialiser is at hand.")
