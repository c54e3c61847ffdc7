"""Nested trees as flat ones, by names like `params/Dense_0/kernel`, and back."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hk_bridge import _layout
from hk_bridge._layout import names
from hk_bridge.migrate._format import Tree


def every_leaf(
    tree: Tree, path: _layout.Path = ()
) -> Iterator[tuple[_layout.Path, Any]]:
    """Every leaf and every empty dict."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from every_leaf(value, (*path, name))
        else:
            yield (*path, name), value


def named(tree: Tree) -> dict[str, Any]:
    """The arrays of `tree` by flat names; an empty dict is an array without bytes."""
    flat: Tree = {}
    for (first, *rest), leaf in every_leaf(tree):
        name = names.join(names.escape(first), tuple(rest))
        empty = isinstance(leaf, dict)
        flat[name + "/" * empty] = np.zeros(0, np.uint8) if empty else leaf
    return flat


def nested(flat: Tree) -> Tree:
    """The inverse of `named`."""
    tree: Tree = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        level: dict[Any, Any] = tree
        for part in parents:
            level = level.setdefault(names.unescape(part), {})
            if not isinstance(level, dict):
                raise ValueError(f"{name!r} is below a name that is an array")
        if last or leaf.size:
            key = names.unescape(last)
            if key in level:
                raise ValueError(f"{name!r} is an array as well as a dict")
            level[key] = leaf
    return tree
