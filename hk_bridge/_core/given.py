"""The variables that a user gives: `FlaxModule(module, variables=...)`."""

from collections.abc import Collection
from collections.abc import Mapping
import difflib
from typing import Any

import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge._core.side import owner
from hk_bridge._layout import PARAMS
from hk_bridge._layout import Where


def check_form(variables: Mapping[str, Any], owner: str) -> None:
    """Refuses variables of a wrong form, before anything runs."""
    _layout.bundles(variables, name="given")
    for where, leaf in _layout.leaves(variables):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise _errors.abstract_leaf(owner, *where)


def passing(
    transient: str | Collection[str] | Mapping[str, Any] | None, owner: str
) -> tuple[frozenset[str], dict[Where, Any]]:
    """The collections that live for one call, and what each call begins with.

    Raises:
      VariablesError: parameters are among them, or that is of a wrong form.
    """
    names = [transient] if isinstance(transient, str) else transient or ()
    if PARAMS in names:
        raise _errors.transient_params(owner)
    if not isinstance(transient, Mapping):
        return frozenset(names), {}
    begins = {name: tree for name, tree in transient.items() if tree is not None}
    opened = _layout.opened(begins)
    check_form(opened, owner)
    return frozenset(names), dict(_layout.leaves(opened))


def check_used(net: Any) -> None:
    """Refuses, when init is over, what was given and the module has not made.

    Not before: another call of the same `init` may make it."""
    unused = [
        where
        for where, _ in _layout.leaves(net._given)
        if where not in net._has and where.collection not in net._passing
    ]
    if unused:
        spelled = _layout.spelled(unused[0])
        free = net._has - {where for where, _ in _layout.leaves(net._given)}
        near: list[str] = []
        for names in (free, net._has):
            near = near or difflib.get_close_matches(
                spelled, sorted(map(_layout.spelled, names)), n=1, cutoff=0.5
            )
        raise _errors.unused_leaf(owner(net), *unused[0], near, len(unused) - 1)


class Given:
    """What was given to one module, held against what it makes.

    Attributes:
      leaves: by where they are; those that a hook of Haiku made of a leaf come in.
    """

    def __init__(self, variables: Mapping[str, Any] | None, owner: str):
        self._variables = variables or {}
        self._owner = owner
        self.leaves: dict[Where, Any] = dict(_layout.leaves(self._variables))

    def instead(self, where: Where, made: Any) -> Any:
        """What is given for `made`, or `made`.

        Raises:
          VariablesError: it has another shape.
        """
        value = self.leaves.get(where, made)
        if value is not made and _shapes(value) != _shapes(made):
            described = map(_describe, (value, made))
            raise _errors.leaf_shape(self._owner, *where, *described)
        return value

    def check(self, made: Mapping[str, Any]) -> None:
        """Refuses what does not fit the variables that were made: a level of
        collections too many or too few, leaves in the place of levels."""
        params = made.get(PARAMS, {})
        for key in self._variables:
            if key not in made and key in params:
                raise _errors.missing_collection_level(key, self._owner)
        if PARAMS in self._variables.get(PARAMS, ()) and PARAMS not in params:
            raise _errors.doubled_collection_level(self._owner)
        if self.leaves:
            self._check_levels(dict(_layout.leaves(made)))

    def _check_levels(self, made: dict[Where, Any]) -> None:
        levels = {Where(c, path[:i]) for c, path in made for i in range(1, len(path))}
        for where, leaf in self.leaves.items():
            if where in levels:
                raise _errors.leaf_shape(self._owner, *where, _describe(leaf), "a dict")
            c, path = where
            for above in (Where(c, path[:i]) for i in range(1, len(path))):
                if above in made:
                    leaf = _describe(made[above])
                    raise _errors.leaf_shape(self._owner, *above, "a dict", leaf)


def _shapes(value: Any) -> list[Any]:
    """The shape of each array in a leaf, a number's too; None of what is no array."""
    found = jax.tree.leaves(value)
    numbers = (bool, int, float, complex)
    arrays = [isinstance(x, numbers) or hasattr(x, "shape") for x in found]
    pairs = zip(found, arrays, strict=True)
    return [tuple(np.shape(x)) if is_array else None for x, is_array in pairs]


def _describe(value: Any) -> str:
    """The dtype and shape of an array in a message, or of those in a tree."""
    if hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    held = [x for x in jax.tree.leaves(value) if x is not value]
    of = f" of {', '.join(map(_describe, held))}" if held else ""
    return type(value).__name__ + of
