"""Acme's checkpoints: a folder with `array_nest` and `nest_exemplar`.

As `acme.jax.savers` writes them: the one is an `.npz` archive of the leaves, in the
order of dm-tree, the other the tree with True for each array and False for each number.
"""

import pathlib
from typing import Any

from hk_bridge.migrate._format import NUMPY
from hk_bridge.migrate._format import PLAIN
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import nothing
from hk_bridge.migrate.formats import npz
from hk_bridge.migrate.formats import pickles

_ARRAYS, _TREE = "array_nest", "nest_exemplar"


def knows(path: pathlib.Path) -> bool:
    return (path / _ARRAYS).is_file() and (path / _TREE).is_file()


def read(path: pathlib.Path, ask: Ask) -> Any:
    tree = pickles.dumped(path / _TREE)
    arrays = npz.FORMAT.read(path / _ARRAYS, ask)
    if set(arrays) != {f"arr_{number}" for number in range(len(arrays))}:
        raise ValueError(f"{_ARRAYS} has other names than arr_0, arr_1, ...")
    leaves = iter([arrays[f"arr_{number}"] for number in range(len(arrays))])
    filled = _filled(tree, leaves)
    if next(leaves, None) is not None:
        raise ValueError(f"{_ARRAYS} has more arrays than {_TREE} has leaves")
    return filled


def _filled(tree: Any, leaves: Any) -> Any:
    """`tree` with the leaves in their places: dm-tree sorts the keys of dicts."""
    if isinstance(tree, dict):
        made = {key: _filled(tree[key], leaves) for key in sorted(tree)}
        return {key: made[key] for key in tree}
    if isinstance(tree, (list, tuple)):
        return type(tree)([_filled(inner, leaves) for inner in tree])
    leaf = next(leaves, None)
    if leaf is None or not isinstance(tree, bool):
        raise ValueError(f"{_ARRAYS} has fewer arrays than {_TREE} has leaves")
    return leaf if tree else leaf.item()


FORMAT = Format(
    name="Acme's array_nest",
    suffixes=(),
    dtypes=NUMPY | {"complex128"},
    scalars=PLAIN,
    forbidden="",
    numbers=True,
    flat=False,
    knows=knows,
    read=read,
    check=nothing,
    write=None,
)
