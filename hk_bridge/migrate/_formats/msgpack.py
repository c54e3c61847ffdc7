"""Flax's own format, one file."""

import pathlib
from typing import Any

from hk_bridge import _flax
from hk_bridge.migrate._files import Done
from hk_bridge.migrate._format import PLAIN
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree


def read(path: pathlib.Path, shardings: Any, done: Done) -> Any:
    return _flax.serialization.msgpack_restore(path.read_bytes())


def write(path: pathlib.Path, tree: Tree) -> None:
    path.write_bytes(_flax.serialization.msgpack_serialize(tree, in_place=True))


FORMAT = Format(
    name="Flax msgpack",
    dtypes=None,
    scalars=PLAIN,
    forbidden="__msgpack_chunked_array__",  # its mark of an array of more than 1 GiB
    numbers=False,  # Flax 0.12.2 writes them, and does not read them
    read=read,
    write=write,
)
