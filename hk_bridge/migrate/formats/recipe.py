"""The recipe of Haiku's users: a folder with `arrays.npy` and `tree.pkl`.

The one has the leaves, by `np.save` one after the other, in the order in which JAX
flattens a tree; the other the tree with 0 for each leaf, as a pickle:
github.com/google-deepmind/dm-haiku/issues/18.
"""

import math
import pathlib
from typing import Any

import jax
import numpy as np

from hk_bridge.migrate._format import NUMPY
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import nothing
from hk_bridge.migrate.formats import npz
from hk_bridge.migrate.formats import pickles

_ARRAYS, _TREE = "arrays.npy", "tree.pkl"


def knows(path: pathlib.Path) -> bool:
    return (path / _ARRAYS).is_file() and (path / _TREE).is_file()


def read(path: pathlib.Path, ask: Ask) -> Any:
    tree = pickles.dumped(path / _TREE, ordered=True)
    places, structure = jax.tree.flatten(tree)
    leaves = []
    with (path / _ARRAYS).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        for _ in places:
            leaves.append(_array(file, size))
        if file.tell() != size:
            raise ValueError(f"{_ARRAYS} has more arrays than the tree has leaves")
    return jax.tree.unflatten(structure, leaves)


def _array(file: Any, size: int) -> Any:
    start = file.tell()
    major, _ = np.lib.format.read_magic(file)
    headers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, _, dtype = headers[major - 1](file)
    if (
        math.prod(shape) * dtype.itemsize > size - file.tell()
        or min(shape, default=0) < 0
    ):
        raise ValueError(f"{_ARRAYS} has no whole array of shape {shape}")
    file.seek(start)
    array: Any = np.lib.format.read_array(file, allow_pickle=False)
    return npz.native(array)


FORMAT = Format(
    name="arrays.npy and tree.pkl",
    suffixes=(),
    dtypes=NUMPY | {"complex128", "bfloat16"},
    scalars=(),
    forbidden="",
    numbers=True,
    flat=False,
    knows=knows,
    read=read,
    check=nothing,
    write=None,
)
