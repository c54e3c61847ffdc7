"""The shapes and boxes that initialisers make, remembered.

Flax evaluates each initialiser anew at each `apply`, only to compare shapes, which is a
third of its tracing time. The keys say all that the initialiser reads, and keep nothing
alive but plain data."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

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
    asked = (recipe.init_fn, recipe.args, recipe.kwargs)
    key = key_of(asked, by_type=True)
    if key is None:
        return _evaluated(recipe.spec)
    # A box may hold what the initialiser reads, so for one its type is not enough.
    return _remembered(key, recipe.spec, lambda: key_of(asked) is not None)


def initial_box(init_fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The box that the initialiser of a variable makes, as far as that is known.

    One of which not all is known is not evaluated: it may ask for keys. Arrays among
    its arguments are given by shapes alone."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    rest = [jax.typeof(x) if isinstance(x, jax.Array) else x for x in leaves]
    key = key_of((init_fn, rest, treedef))
    if key is None:
        return None

    def make(*arrays: Any) -> Any:
        left = iter(arrays)
        filled = [next(left) if isinstance(x, jax.Array) else x for x in leaves]
        args, kwargs = jax.tree.unflatten(treedef, filled)
        return init_fn(*args, **kwargs)

    try:
        return _remembered(
            ("variable", key), lambda: jax.eval_shape(make, *arrays)
        ).boxed
    except Exception:
        return None  # it looks at the values of arrays


def _remembered(
    key: Any, spec: Callable[[], Any], with_box: Callable[[], bool] = lambda: True
) -> Initial:
    if key in _known:
        return _known[key]
    made = _evaluated(spec)
    if made.boxed is None or with_box():
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = made
    return made


def _evaluated(spec: Callable[[], Any]) -> Initial:
    made = spec()
    shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(made))
    return Initial(shapes, made if _layout.has_boxes(made) else None)


_known: dict[Any, Initial] = {}
_MOST = 4096
