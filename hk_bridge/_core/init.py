"""A call at init: Haiku makes what Flax asks for, and what Flax has made."""

from collections.abc import Callable
import functools
from typing import Any

import jax

from hk_bridge import _abstract
from hk_bridge import _boxes
from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._core.given import Given
from hk_bridge._core.given import check_used
from hk_bridge._core.side import Changes
from hk_bridge._core.side import Options
from hk_bridge._core.side import Side
from hk_bridge._core.side import Variables
from hk_bridge._core.side import owner
from hk_bridge._core.side import sowers
from hk_bridge._layout import PARAMS
from hk_bridge._layout import Where


class Init(Side):
    """Makes parameters in Haiku as Flax asks for them; the rest after the run.

    That is state, and parameters that were made inside lifted transforms. If a hook of
    Haiku changed one of those, the module runs again with it."""

    initializing = True

    def __init__(
        self, net: Any, ledger: _haiku.Ledger, options: Options, streams: _flax.Streams
    ):
        super().__init__(net, ledger, options, streams)
        self.given = Given(net._given, owner(net))
        self.before = self.variables()
        self.made: set[Where] = set()
        self._started: dict[Where, Any] = {}
        self._changed: Changes = {}
        if net._made is None and self.given.leaves:
            _haiku.at_end(functools.partial(check_used, net))
        self._made_ever: set[Where] = set(net._made or ())
        net._made = self._made_ever

    def may_share(self) -> bool:
        return False

    @property
    def mutable(self) -> Any:
        mutable = _flax.mutable_at_init(self.options.asked)
        return _flax.with_intermediates(mutable) if self.options.capture else mutable

    # While it runs.

    def param(self, recipe: _flax.Recipe) -> Any:
        if recipe.inside:
            return _flax.MISSING  # Haiku can make nothing there
        stored = self.late(recipe)
        return self._make_param(recipe) if stored is _flax.MISSING else stored

    def leaf(self, recipe: _flax.Recipe) -> Any:
        if recipe.where.collection == PARAMS:
            return self.param(recipe)
        self._refuse_if_stateless(recipe.where)
        return self._make_param(recipe)

    def _refuse_if_stateless(self, where: Where) -> None:
        message = _errors.stateless_transform(owner(self.net), *where)
        _haiku.refuse_if_stateless(message)

    def _make_param(self, recipe: _flax.Recipe) -> Any:
        """Makes the parameter in Haiku, and gives what Haiku made of it."""
        where = recipe.where
        drawn: list[Any] = []

        def draw() -> Any:
            if not drawn:
                drawn.append(recipe.draw())
            return drawn[0]

        if where in self.given.leaves:
            spec = recipe.spec()
            given = self.given.instead(where, recipe.spec(open_box=True))
            drawn.append(_layout.rebox(given, spec))
            recipe.skip()
        # A creator may do without the initialiser, which then neither runs nor asks for
        # a key; nor does it run if another module made the parameter.
        stored = self.ledger.has_param(where)
        lazy = (stored or _haiku.has_creators()) and not drawn
        lazy &= where.collection == PARAMS
        like = recipe.spec() if lazy else draw()
        if lazy and any(map(_is_weak, jax.tree.leaves(like))):
            like = draw()  # a Python number has no shape
        made = self._make_tree(where, like, draw, recipe.with_shape)
        if not drawn:
            recipe.skip()
        return made

    def _make_tree(
        self, where: Where, like: Any, draw: Callable[[], Any], remake: Any
    ) -> Any:
        if _layout.is_box(like):
            opened = self._make_tree(
                where, _layout.open_box(like), lambda: _layout.open_box(draw()), remake
            )
            return like.replace_boxed(opened)
        if _layout.is_level(like):
            part: Callable[..., Any] = lambda key: draw()[key]
            return {
                key: self._make_tree(
                    Where(where.collection, (*where.path, key)),
                    value,
                    functools.partial(part, key),
                    remake,
                )
                for key, value in like.items()
            }
        return self._make_leaf(where, like, draw, remake)

    def _make_leaf(
        self, where: Where, value: Any, draw: Callable[[], Any], remake: Any
    ) -> Any:
        """Makes one leaf in Haiku: of the value given by the user, else of `draw()`.

        `value` has its shape and dtype."""
        given = self.given.instead(where, value)
        if given is not value:
            value, draw = given, lambda: given
        self._note(where)
        if where.collection != PARAMS:
            return self.ledger.make_state(where, value)

        def init(shape: Any, dtype: Any) -> Any:
            if not _abstract.is_array(value):
                return draw()
            made = (
                draw() if tuple(shape) == value.shape else _layout.unbox(remake(shape))
            )
            if made is _flax.MISSING:
                name = "/".join(_layout.address(self.ledger.name, where))
                raise _errors.creator_shape(name, shape, value.shape)
            return _haiku.cast(made, dtype)

        return self.ledger.make_param(where, value, init)

    def _note(self, where: Where) -> None:
        self.made.add(where)
        self._made_ever.add(where)
        self.touched.add(where)

    def start(self, where: Where, made: Any) -> Any:
        """What a variable starts from: a leaf that is given or there, else `made`."""

        def leaf(where: Where, made: Any) -> Any:
            return _abstract.copied(start(where, made))  # Flax writes into containers

        def start(where: Where, made: Any) -> Any:
            new = where not in self.given.leaves and where not in self.made
            if new and self.ledger.has_state(where):  # by a module of the same name
                self._note(where)
                return self.ledger.read_state(where)
            self._started[where] = self.given.instead(where, made)
            return self._started[where]

        if where.collection in self.net._transient:
            return made
        return _layout.map_leaves(leaf, made, (where.collection, *where.path))

    # After it ran.

    def settle(self, outcome: _flax.Outcome) -> bool:
        """Makes the leaves that are new, and writes those that were written.

        Returns:
          Whether the module has to run again: a hook of Haiku changed a leaf that was
          made here, or the user gave one inside a lifted transform.
        """
        variables = self._kept(outcome)
        self._note_used(outcome)
        _boxes.note_boxes(self.ledger.name, self.net.module, outcome.variables)
        _boxes.remember(self.net.module, outcome.variables)
        self.given.check(variables)
        for where, value in _layout.leaves(variables):
            if where in self.made or where in self.ledger.values:
                self._write(where, value, outcome.record)
            else:
                self._settle(where, value, outcome.record)
        self.ledger.make_empty(variables)
        return bool(self._changed)

    def _kept(self, outcome: _flax.Outcome) -> Variables:
        record = outcome.record
        transient = self.net._transient.union(record.sown) - {PARAMS}
        for where in record.made:
            if where.collection in record.sown:  # and so it is not kept
                sower = record.sown[where.collection]
                sowers.setdefault(type(self.net.module), {})[where.collection] = sower
        return {c: v for c, v in outcome.variables.items() if c not in transient}

    def _note_used(self, outcome: _flax.Outcome) -> None:
        """Notes which of the variables that were given the module has."""
        if self.given.leaves:
            has = (where for where, _ in _layout.leaves(outcome.variables))
            self.net._has.update(has, self.made)
            self.net._passing.update(self.net._transient, outcome.record.sown)

    def _write(self, where: Where, value: Any, record: _flax.Record) -> None:
        """Writes a leaf that Haiku has, if the module wrote it."""
        if where in record.wrote and self.writes(where.collection):
            self.set_state(where, value, self.ledger.values.get(where, value))

    def _settle(self, where: Where, value: Any, record: _flax.Record) -> None:
        """Makes a leaf that Haiku has not."""
        given = where in self.given.leaves
        if where.collection != PARAMS and self.ledger.has_state(where):
            stored = self.ledger.read_state(where)  # made by a module of the same name
            if where in record.wrote:
                self.set_state(where, value, stored)
            return
        if where.collection != PARAMS:
            self._refuse_if_stateless(where)
            if where in record.wrote - record.made and not given:
                self._note(where)  # written before anything declared it
                self.ledger.put_state(where, value)
                return
        draw = functools.partial(_layout.unbox, value)
        made = self._make_leaf(where, value, draw, lambda shape: _flax.MISSING)
        start = self._started.get(where, value) if given else value
        if made is not start:
            self._changed[where] = made
        elif not _abstract.are_same(value, start) and self.writes(where.collection):
            self.set_state(where, value, start)

    def after(self, outcome: _flax.Outcome) -> Variables:
        """The variables with which to run again: all params, and state as it was.

        `start` gives the module what state starts from now. It is not asked inside
        lifted transforms, where such a leaf has to be there before."""
        self.given.leaves |= self._changed
        params = {c: v for c, v in outcome.variables.items() if c == PARAMS}
        known = {
            where: _abstract.copied(value)
            for where, value in {**self.ledger.values, **self._changed}.items()
            if where.collection == PARAMS
        }
        lifted = {
            where: _abstract.copied(value)
            for where, value in self._changed.items()
            if where.collection != PARAMS and where not in self._started
        }
        before = {c: v for c, v in self.before.items() if c != PARAMS}
        return _layout.insert({**before, **_layout.replace(params, known)}, lifted)

    def settle_again(self, outcome: _flax.Outcome) -> None:
        """Writes what the second run made of the leaves for which it ran."""
        self._note_used(outcome)
        for where, start in self._changed.items():
            value = _layout.find(outcome.variables, where, start)
            self._write(where, value, outcome.record)


def _is_weak(leaf: Any) -> bool:
    return bool(getattr(leaf, "weak_type", False))
