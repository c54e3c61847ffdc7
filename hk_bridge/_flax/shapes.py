"""The shapes and boxes that initialisers make, remembered.

Flax evaluates each initialiser anew at each `apply`, only to compare shapes, which is a
third of its tracing time. The keys say all that the initialiser reads, and keep nothing
alive but plain data."""

from typing import Any
from typing import NamedTuple

import jax

from hk_bridge import _layout
from hk_bridge._flax.host import Recipe
from hk_bridge._flax.host import Shape
from hk_bridge._flax.known import key_of


class Initial(NamedTuple):
    """What an initialiser makes: the shapes of the leaves, and the value if boxed."""

    shapes: tuple[Shape, ...]
    boxed: Any = None


def initial(recipe: Recipe) -> Initial:
    """What the initialiser of a parameter makes, by shapes alone."""
    key = key_of((recipe.init_fn, recipe.args, recipe.kwargs))
    if key is None:
        return _evaluated(recipe)
    if key not in _known:
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = _evaluated(recipe)
    return _known[key]


def _evaluated(recipe: Recipe) -> Initial:
    made = recipe.spec()
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(made))
    return Initial(shapes, made if has_boxes(made) else None)


def has_boxes(value: Any) -> bool:
    """Whether `value` is a box, or holds one."""
    leaves = jax.tree.leaves(value, is_leaf=_layout.is_box)
    return any(map(_layout.is_box, leaves))


_known: dict[Any, Initial] = {}
_MOST = 4096
