"""The variables of a Scope: asked for, made, and recorded where they are written.

Private in Flax, and what `param`, `variable` and their kin are made of:
`Scope._variables`, `_collection` and `_mutable_collection`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from flax import core
from flax import errors
from flax.core import meta
from flax.core import scope as core_scope
import jax
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge._flax import lifted
from hk_bridge._flax.host import MISSING
from hk_bridge._flax.host import Recipe
from hk_bridge._flax.keyed import NOTHING
from hk_bridge._flax.keyed import Keyed
from hk_bridge._flax.shapes import initial
from hk_bridge._flax.shapes import initial_box
from hk_bridge._layout import Where


class Recording(Keyed):
    """A Scope that asks its host for parameters, and records what is written."""

    def _collection(self, col: str) -> Any:
        """As in Flax, once the parameters are read that only wait to be asked for."""
        self._passing = NOTHING
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
            self.record.sown.setdefault(col, self.path)
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
        except (errors.FlaxError, TypeError, ValueError) as error:
            self._explain(error, _layout.PARAMS, name, init_fn)
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
        if made.boxed is not None and not _layout.has_boxes(value):
            value = _layout.rebox(value, made.boxed)
            level = self._own_level(_layout.PARAMS)
            if type(level) is dict:  # a loop has frozen ones, which go nowhere
                level[recipe.name] = value
                if self.inside:
                    self._boxed(level, recipe.name)
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
            elif init_fn is not None:
                self._box(col, name, initial_box(init_fn, args, kwargs))
        except (errors.FlaxError, TypeError, ValueError) as error:
            self._explain(error, col, name, init_fn)
            raise
        return core_scope.Variable(self, col, name, unbox=unbox)

    def _box(self, col: str, name: str, made: Any) -> None:
        """Puts a variable into the box in which its initialiser makes it."""
        value = self.get_variable(col, name)
        if made is not None and not _layout.has_boxes(value):
            level = self._own_level(col)
            level[name] = _layout.rebox(value, made)
            self._boxed(level, name)

    def _boxed(self, level: dict[str, Any], name: str) -> None:
        """Notes a box that is opened again when the variables go out."""
        root: Any = self.root
        root.boxed.append((level, name))

    def _make(self, col: str, name: str, init_fn: Any, args: Any, kwargs: Any) -> None:
        if not self.is_mutable_collection(col) or init_fn is None:
            if self.is_collection_empty(col):
                raise errors.ScopeCollectionNotFound(col, name, self.path_text)
            raise errors.ScopeVariableNotFoundError(name, col, self.path_text)
        where, host = Where(col, (*self.path, name)), self.running.host
        if self.inside:
            with host.drawing_from(None):  # else a key of Haiku's gets into the trace
                value = init_fn(*args, **kwargs)
        else:
            value = host.start(where, init_fn(*args, **kwargs))
        super().put_variable(col, name, value)
        self.record.made.update(_layout.below(where, value))

    def put_variable(self, col: str, name: str, value: Any) -> None:
        told = None
        if isinstance(value, lifted.Passed):
            value, told = value
        where = Where(col, (*self.path, name))
        old = self._own_level(col).get(name)
        written = set(_put(where, value, old)) if told is None else set()
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

    def _mapped(self, where: Where, value: Any) -> set[Where]:
        """Which leaves of `value`, that comes out of a map, are not as they were.

        A trace between the two makes others of all of them."""
        old = {where.path[-1]: self._own_level(where.collection).get(where.path[-1])}
        new = {where.path[-1]: value}
        return {
            Where(where.collection, (*self.path, *below.path))
            for below in _layout.below(Where(where.collection, ()), new)
            if not _abstract.are_same(
                _layout.find({where.collection: old}, below),
                jax.tree.map(
                    self._went_in, _layout.find({where.collection: new}, below)
                ),
            )
        }

    def _went_in(self, leaf: Any) -> Any:
        """What came out of the last lifted transform as `leaf`, if nobody wrote it."""
        return self._same.get(id(leaf), (leaf, leaf))[1]

    def came_out(self, inside: "Recording", began: Mapping[Where, Any]) -> None:
        """Notes what `inside`, that began with these leaves, gives back unwritten.

        A transform in it gives back other arrays, though it only read."""
        for where, start in began.items():
            place = Where(where.collection, (*inside.path, *where.path))
            if place not in inside.record.wrote | inside.record.made:
                end = _layout.find(inside._variables, where)
                pairs = zip(jax.tree.leaves(end), jax.tree.leaves(start), strict=False)
                for new, old in pairs:  # a map may run its inside twice
                    self._same[id(new)] = new, self._went_in(old)

    def _explain(
        self, error: Exception, col: str, name: str, init_fn: Any = None
    ) -> None:
        self.running.host.explain(error, Where(col, (*self.path, name)), init_fn)


def _put(where: Where, value: Any, old: Any) -> Iterator[Where]:
    """Which leaves are written where Flax puts `value` in the place of `old`.

    What any Mapping holds it puts into a level that is there, part by part."""
    if _layout.is_level(old) and isinstance(value, Mapping) and value:
        for key, part in value.items():
            below = Where(where.collection, (*where.path, key))
            yield from _put(below, part, old.get(key))
    else:
        yield from _layout.below(where, value)
