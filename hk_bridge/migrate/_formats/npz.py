"""NumPy's archive of arrays, one flat file."""

import contextlib
import pathlib
from typing import Any

import numpy as np

from hk_bridge.migrate._files import Done
from hk_bridge.migrate._format import NUMPY
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import check_unpacked
from hk_bridge.migrate._formats.flat import named
from hk_bridge.migrate._formats.flat import nested


def read(path: pathlib.Path, shardings: Any, done: Done) -> Tree:
    flat: Tree = {}
    # `np.load` (NumPy 2.4) leaves a broken archive open, and advises to unpickle what
    # is none.
    with path.open("rb") as file, contextlib.ExitStack() as stack:
        archive: Any = np.lib.npyio.NpzFile(file, allow_pickle=False)
        stack.enter_context(archive)
        members = archive.zip.infolist()
        check_unpacked(sum(member.file_size for member in members), path)
        for member in members:
            # By its full name: `archive["w.npy"]` gives `w` if both are there.
            array = archive[member.filename]
            if not isinstance(array, np.ndarray):
                raise TypeError(f"its member {member.filename!r} is no array")
            name = member.filename.removesuffix(".npy")
            flat[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
            done(member.file_size)
    return nested(flat)


def write(path: pathlib.Path, tree: Tree) -> None:
    with path.open("wb") as file:
        np.savez(file, **named(tree))


FORMAT = Format(
    name="NumPy .npz",
    dtypes=NUMPY | {"complex128"},
    scalars=(),
    forbidden="\0",  # where zipfile cuts a name off
    numbers=True,
    read=read,
    write=write,
)
