"""Walks over the variables of Flax: what a level is, what a leaf, what a box."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import inspect
import sys
from typing import Any

from hk_bridge import _errors
from hk_bridge._layout import names
from hk_bridge._layout.where import Where

Variables = Mapping[str, Any]  # {collection: nested dict}


def are_variables(value: Any) -> bool:
    """Whether `value` is a dict of any class, whose keys are names of collections."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def is_level(value: Any) -> bool:
    """Whether `value` is a level of the tree, and no leaf.

    That is a `dict` or a `FrozenDict`, but of no subclass, with str or int keys. Any
    other Mapping is a value that a module made: a dataclass of chex, say.

    >>> is_level({"a": 1, 0: {}}), is_level({(0, 1): 2}), is_level({True: 1})
    (True, False, False)
    """
    if type(value) is not dict and type(value) is not _frozen_dict():
        return False
    if _KEYS.issuperset(map(type, value)):
        return True
    return all(isinstance(key, str) or type(key) is int for key in value)


_KEYS = frozenset([str, int])


def _frozen_dict() -> Any:
    """Flax's class, if there can be an instance: nothing is imported for it."""
    return getattr(sys.modules.get("flax.core.frozen_dict"), "FrozenDict", None)


def leaves(variables: Variables) -> Iterator[tuple[Where, Any]]:
    """Every leaf of `variables`, boxes open, with where it is.

    >>> for where, leaf in leaves({"params": {"Dense_0": {"bias": 0.0}}}):
    ...     print(where, leaf)
    Where(collection='params', path=('Dense_0', 'bias')) 0.0
    """
    for collection, tree in variables.items():
        for path, leaf in _walk(unbox(tree)):
            yield Where(collection, path), leaf


def below(where: Where, value: Any) -> Iterator[Where]:
    """Where each leaf is of a `value` at `where`; `where` itself of an empty level.

    >>> [w.path for w in below(Where("cache", ("a",)), {"b": 1, "c": {"d": 2}})]
    [('a', 'b'), ('a', 'c', 'd')]
    """
    if is_level(value := unbox(value)) and value:
        for path, _ in _walk(value):
            yield Where(where.collection, (*where.path, *path))
    else:
        yield where


def find(variables: Variables, where: Where, default: Any = None) -> Any:
    """The leaf of `variables` at `where`, its box open.

    >>> find({"params": {"a": {"w": 1.0}}}, Where("params", ("a", "w")))
    1.0
    """
    tree: Any = variables
    for part in (where.collection, *where.path):
        tree = unbox(tree)
        if not is_level(tree) or part not in tree:
            return default
        tree = tree[part]
    return unbox(tree)


def map_leaves(
    function: Callable[[Where, Any], Any], tree: Any, path: names.Path = ()
) -> Any:
    """`tree` with `function(where, leaf)` for each leaf; boxes stay.

    Args:
      path: where `tree` is, the collection first; `()` is of whole variables.

    >>> map_leaves(lambda where, leaf: where.path, {"params": {"a": {"w": 1.0}}})
    {'params': {'a': {'w': ('a', 'w')}}}
    """
    if is_box(tree):
        return tree.replace_boxed(map_leaves(function, open_box(tree), path))
    if is_level(tree) or not path:
        return {k: map_leaves(function, v, (*path, k)) for k, v in tree.items()}
    return function(Where(path[0], path[1:]), tree)


def replace(variables: Variables, new: Mapping[Where, Any]) -> dict[str, Any]:
    """`variables` with other leaves in some places; boxes stay."""
    replaced: dict[str, Any] = map_leaves(new.get, variables)
    return replaced


def insert(variables: dict[str, Any], new: Mapping[Where, Any]) -> dict[str, Any]:
    """`variables`, with leaves put in, in place, where nothing is.

    Raises:
      VariablesError: one path is a leaf as well as a module.
    """
    for (collection, path), leaf in new.items():
        level, parts = variables, (collection, *path)
        for end, part in enumerate(parts[:-1], 1):
            level = level.setdefault(part, {})
            if not is_level(level):
                raise _errors.leaf_and_module(parts[:end])
        if path[-1] in level:
            raise _errors.leaf_and_module(parts)
        level[path[-1]] = leaf
    return variables


def make_level(variables: dict[str, Any], path: names.Path) -> dict[str, Any]:
    """The level of `variables` at `path`, the collection first; made if not there."""
    level = variables
    for part in path:
        level = level.setdefault(part, {})
    return level


def place(variables: dict[str, Any], where: Where, leaf: Any) -> None:
    """Puts a leaf into `variables`, in place, whatever is there."""
    parents = (where.collection, *where.path[:-1])
    make_level(variables, parents)[where.path[-1]] = leaf


def remove(variables: dict[str, Any], where: Where) -> None:
    """Takes a leaf out of `variables`, in place."""
    level: Any = variables
    for part in (where.collection, *where.path[:-1]):
        level = level[part]
    del level[where.path[-1]]


def empty_paths(tree: Mapping[str, Any], path: names.Path) -> Iterator[names.Path]:
    if not tree:
        yield path
    for key, value in tree.items():
        value = unbox(value)
        if is_level(value):
            yield from empty_paths(value, (*path, key))


def _walk(tree: Mapping[str, Any]) -> Iterator[tuple[names.Path, Any]]:
    for key, value in tree.items():
        value = unbox(value)
        if is_level(value):
            for path, leaf in _walk(value):
                yield (key, *path), leaf
        else:
            yield (key,), value


def is_box(value: Any) -> bool:
    """Whether `value` is a `flax.core.meta.AxisMetadata`, told by its methods."""
    return hasattr(type(value), "replace_boxed") and hasattr(type(value), "unbox")


def open_box(box: Any) -> Any:
    """What `box` holds, which may be a box again.

    `nn.Partitioned.unbox` adds a sharding constraint where a mesh is set; a conversion
    must not."""
    if "apply_constraint" in inspect.signature(type(box).unbox).parameters:
        return box.unbox(apply_constraint=False)
    return box.unbox()


def unbox(value: Any) -> Any:
    """`value` without its boxes."""
    while is_box(value):
        value = open_box(value)
    return value


def has_boxes(tree: Any) -> bool:
    """Whether `tree` is a box, or a level that holds one.

    One that computes when it is opened does not count: what came out cannot go back."""
    if is_level(tree):
        return any(map(has_boxes, tree.values()))
    if not is_box(tree):
        return False
    mark = object()
    return _inside(tree.replace_boxed(mark)) is mark


def box_in_place(level: dict[str, Any], like: Any) -> None:
    """Puts what `level` has into the boxes of `like`, where it is in none."""
    for key, value in level.items():
        inner = like.get(key)
        if is_level(value) and is_level(inner):
            box_in_place(value, inner)
        elif is_box(inner) and not is_box(value):
            level[key] = rebox(value, inner)


def _inside(box: Any) -> Any:
    """What `box` holds, if it opens without a value: another box, or not."""
    try:
        return open_box(box)
    except Exception:
        return None  # it computes with its value


def boxes_of(tree: Any) -> Any:
    """The boxes of `tree` without what they hold, for `rebox`."""
    if is_box(tree):
        return tree.replace_boxed(boxes_of(_inside(tree)))
    if is_level(tree):
        return {k: boxes_of(v) for k, v in tree.items() if has_boxes(v)}
    return None


def rebox(tree: Any, like: Any) -> Any:
    """`tree` with the boxes that `like` has in the same places."""
    if is_box(like):
        return like.replace_boxed(rebox(tree, _inside(like)))
    if is_level(like) and is_level(tree):
        return {key: rebox(value, like.get(key)) for key, value in tree.items()}
    return tree
