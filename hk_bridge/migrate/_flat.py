"""Nested trees as flat ones, by names like `params/Dense_0/kernel`, and back."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hk_bridge import _layout
from hk_bridge._layout import names
from hk_bridge.migrate._format import Flat
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


def named(tree: Tree) -> Flat:
    """The arrays of `tree` by flat names; an empty dict is an array without bytes."""
    flat = Flat()
    for (first, *rest), leaf in every_leaf(tree):
        name = names.join(names.escape(first), tuple(rest))
        empty = isinstance(leaf, dict)
        flat[name + "/" * empty] = np.zeros(0, np.uint8) if empty else leaf
    return flat


def nested(flat: Flat, separator: str | None = None) -> Tree:
    """The inverse of `named`; of other names as far as they are known.

    Args:
      separator: what the parts of the names stand between, as they are. By default that
        is what the file tells, or `/`, and the parts are spelled as `named` spells
        them. Names without any `/` are split at `.` if each starts with one of Flax's
        own collections; others stay whole, as PyTorch's do.
    """
    separator = flat.separator if separator is None else separator
    if separator is None and told_by_dots(flat):
        separator = "."
    if separator is not None:
        return split(flat, separator)
    tree: Tree = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        level = _level(tree, name, map(names.unescape, parents))
        if last or leaf.size:
            _put(level, name, names.unescape(last), leaf)
    return tree


def told_by_dots(flat: Tree) -> bool:
    """Whether the names are those of variables, joined by dots."""
    if not flat or any("/" in name for name in flat):
        return False
    return all(name.partition(".")[0] in _layout.FLAXS_OWN for name in flat)


def split(flat: Tree, separator: str) -> Tree:
    """A tree of what is joined by `separator`, the parts as they stand."""
    tree: Tree = {}
    for name, leaf in flat.items():
        *parents, last = name.split(separator)
        _put(_level(tree, name, iter(parents)), name, last, leaf)
    return tree


def joined(tree: Tree, separator: str) -> Flat:
    """The inverse of `split`.

    Raises:
      ValueError: a name has the separator in it, or is no str, or a dict is empty; its
        second argument is where.
    """
    flat = Flat()
    flat.separator = separator
    for path, leaf in every_leaf(tree):
        if isinstance(leaf, dict):
            raise ValueError("an empty dict", path)
        if any(not isinstance(part, str) or separator in part for part in path):
            raise ValueError(f"a name that cannot be joined by {separator!r}", path)
        flat[separator.join(path)] = leaf
    return flat


def _level(tree: Tree, name: str, parents: Iterator[Any]) -> dict[Any, Any]:
    level: dict[Any, Any] = tree
    for part in parents:
        level = level.setdefault(part, {})
        if not isinstance(level, dict):
            raise ValueError(f"{name!r} is below a name that is an array")
    return level


def _put(level: dict[Any, Any], name: str, key: Any, leaf: Any) -> None:
    if key in level:
        raise ValueError(f"{name!r} is an array as well as a dict")
    level[key] = leaf
