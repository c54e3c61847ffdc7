"""Trees without their arrays, which stand for all that is in a trace but values."""

import collections
from collections.abc import Sequence
import dataclasses
import gc
import types
from typing import Any
from typing import NamedTuple

import jax

from hk_bridge import _flax


class Place(NamedTuple):
    """Stands for an array, by its position among them."""

    position: int


@dataclasses.dataclass(eq=False)  # JAX asks whether forms are equal
class Form:
    """A tree without its arrays: the leaves, a `Place` for each array, and the tree.

    An array that is there twice has one place: code may ask whether `q is kv`. The
    order of each dict is kept: code may go over it, and JAX sorts the keys."""

    leaves: list[Any]
    treedef: Any
    orders: tuple[tuple[Any, ...], ...]
    said: Any = None

    @property
    def static(self) -> Any:
        """All that it is, for a key."""
        rest = [x for x in self.leaves if type(x) is not Place]
        return self.positions, rest, self.treedef, self.orders

    @property
    def positions(self) -> str:
        """Which array each leaf is; a text, of which the key is soon told."""
        places = [x.position if type(x) is Place else "" for x in self.leaves]
        return ",".join(map(str, places))

    def join(self, arrays: Sequence[Any]) -> Any:
        """The tree with these arrays."""
        leaves = [arrays[x.position] if type(x) is Place else x for x in self.leaves]
        tree = jax.tree.unflatten(self.treedef, leaves)
        for made, order in zip(_dicts(tree), self.orders, strict=True):
            if tuple(made) != order:
                items = [(key, made.pop(key)) for key in order]
                made.update(items)
        return tree


def _nodes(tree: Any) -> list[Any]:
    """The nodes and leaves of `tree`, each before those in it."""
    found: list[Any] = []

    def is_leaf(node: Any) -> bool:
        found.append(node)
        return False

    jax.tree.leaves(tree, is_leaf=is_leaf)
    return found


def _dicts(tree: Any) -> list[dict[Any, Any]]:
    """The dicts in `tree` that JAX sorts, each before those in it."""
    ordered = collections.OrderedDict
    dicts = [node for node in _nodes(tree) if isinstance(node, dict)]
    return [node for node in dicts if not isinstance(node, ordered)]


def split(tree: Any) -> tuple[list[Any], Form]:
    """The arrays of `tree`, and its form."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = {id(leaf): leaf for leaf in leaves if isinstance(leaf, jax.Array)}
    places = {key: Place(index) for index, key in enumerate(arrays)}
    rest = [places.get(id(leaf), leaf) for leaf in leaves]
    return list(arrays.values()), Form(rest, treedef, tuple(map(tuple, _dicts(tree))))


def are_new(tree: Any, holder: Any) -> bool:
    """Whether each list and dict in `tree` is there once, and nobody else has it."""
    nodes = _nodes(tree)
    own = [node for node in nodes if isinstance(node, (list, dict))]
    if not own:
        return True
    known = {id(node) for node in (holder, nodes, own, *nodes)}
    holders = gc.get_referrers(*own)
    is_own = lambda holder: id(holder) in known or isinstance(holder, types.FrameType)
    return len({*map(id, own)}) == len(own) and all(map(is_own, holders))


def as_it_is(tree: Any) -> Any:
    """What differs once something was written into `tree`."""
    arrays, form = split(tree)
    return list(map(id, arrays)), _flax.key_of(form.static)
