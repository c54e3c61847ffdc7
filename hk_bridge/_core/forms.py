"""Trees without their arrays, which stand for all that is in a trace but values."""

import collections
from collections.abc import Sequence
import dataclasses
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


def _dicts(tree: Any) -> list[dict[Any, Any]]:
    """The dicts in `tree` that JAX sorts, each before those in it."""
    found: list[dict[Any, Any]] = []

    def is_leaf(node: Any) -> bool:
        if isinstance(node, dict) and not isinstance(node, collections.OrderedDict):
            found.append(node)
        return False

    jax.tree.leaves(tree, is_leaf=is_leaf)
    return found


def split(tree: Any) -> tuple[list[Any], Form]:
    """The arrays of `tree`, and its form."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = {id(leaf): leaf for leaf in leaves if isinstance(leaf, jax.Array)}
    places = {key: Place(index) for index, key in enumerate(arrays)}
    rest = [places.get(id(leaf), leaf) for leaf in leaves]
    return list(arrays.values()), Form(rest, treedef, tuple(map(tuple, _dicts(tree))))


def containers(tree: Any) -> list[int]:
    """The lists and dicts in `tree`, by their ids."""
    found: list[int] = []

    def is_leaf(node: Any) -> bool:
        if isinstance(node, (list, dict)):
            found.append(id(node))
        return False

    jax.tree.leaves(tree, is_leaf=is_leaf)
    return found


def as_it_is(tree: Any) -> Any:
    """What differs once something was written into `tree`."""
    arrays, form = split(tree)
    return list(map(id, arrays)), _flax.key_of(form.static)
