"""Walks over the variables of Flax: what a level is, what a leaf, what a box."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import inspect
import sys
from typing import Any

from hk_bridge import _errors
from hk_bridge._layout import names

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
    return all(isinstance(key, str) or type(key) is int for key in value)


def _frozen_dict() -> Any:
    """Flax's class, if there can be an instance: nothing is imported for it."""
    return getattr(sys.modules.get("flax.core.frozen_dict"), "FrozenDict", None)


def leaves(variables: Variables) -> Iterator[tuple[str, names.Path, Any]]:
    """Every `(collection, path, leaf)` of `variables`, boxes open.

    >>> list(leaves({"params": {"Dense_0": {"bias": 0.0}}}))
    [('params', ('Dense_0', 'bias'), 0.0)]
    """
    for collection, tree in variables.items():
        for path, leaf in _walk(unbox(tree)):
            yield collection, path, leaf


def map_leaves(
    function: Callable[[str, names.Path, Any], Any], tree: Any, path: names.Path = ()
) -> Any:
    """`tree` with `function(collection, path, leaf)` for each leaf; boxes stay.

    Args:
      path: where `tree` is, the collection first; `()` is of whole variables.

    >>> map_leaves(lambda c, path, leaf: (c, *path), {"params": {"a": {"w": 1.0}}})
    {'params': {'a': {'w': ('params', 'a', 'w')}}}
    """
    if is_box(tree):
        return tree.replace_boxed(map_leaves(function, open_box(tree), path))
    if is_level(tree) or not path:
        return {k: map_leaves(function, v, (*path, k)) for k, v in tree.items()}
    return function(path[0], path[1:], tree)


def replace(
    variables: Variables, new: Mapping[tuple[str, names.Path], Any]
) -> dict[str, Any]:
    """`variables` with other leaves at some `(collection, path)`; boxes stay."""
    replaced: dict[str, Any] = map_leaves(
        lambda c, path, leaf: new.get((c, path), leaf), variables
    )
    return replaced


def insert(
    variables: Variables, new: Mapping[tuple[str, names.Path], Any]
) -> dict[str, Any]:
    """`variables` and leaves at other `(collection, path)`."""
    variables = dict(variables)
    for (collection, path), leaf in new.items():
        _insert(variables, (collection, *path[:-1]), {names.escape(path[-1]): leaf})
    return variables


def _insert(
    variables: dict[Any, Any], path: names.Path, bundle: Mapping[str, Any]
) -> None:
    level = variables
    for part in path:
        level = level.setdefault(part, {})
        if not is_level(level):
            raise _errors.leaf_and_module(path)
    for name, leaf in bundle.items():
        key = names.unescape(name)
        if key in level:
            raise _errors.leaf_and_module((*path, key))
        level[key] = leaf


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


def rebox(tree: Any, like: Any) -> Any:
    """`tree` with the boxes that `like` has in the same places."""
    if is_box(like):
        return like.replace_boxed(rebox(tree, open_box(like)))
    if is_level(like) and is_level(tree):
        return {key: rebox(value, like.get(key)) for key, value in tree.items()}
    return tree
