"""Safetensors, one flat file, which other libraries read without JAX."""

import pathlib
from typing import Any

import numpy as np

from hk_bridge.migrate._extras import extra
from hk_bridge.migrate._files import Done
from hk_bridge.migrate._format import FLOAT8
from hk_bridge.migrate._format import JAX
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._formats.flat import named
from hk_bridge.migrate._formats.flat import nested


def read(path: pathlib.Path, shardings: Any, done: Done) -> Tree:
    safetensors = extra("safetensors")
    flat: Tree = {}
    with safetensors.safe_open(path, framework="numpy") as file:
        # Its NumPy door (0.8.0) looks for numpy.float8_e4m3fn, which does not exist.
        names = file.keys()
        dtypes = {name: file.get_slice(name).get_dtype() for name in names}
        for name, dtype in dtypes.items():
            if dtype not in FLOAT8:
                flat[name] = file.get_tensor(name)
                done(flat[name].nbytes)
    if len(flat) < len(dtypes):
        for name, raw in safetensors.deserialize(path.read_bytes()):
            if name not in flat:
                dtype = np.dtype(FLOAT8[raw["dtype"]])
                flat[name] = np.frombuffer(raw["data"], dtype).reshape(raw["shape"])
    return nested(flat)


def write(path: pathlib.Path, tree: Tree) -> None:
    # 0.8.0 writes the memory as it lies, so a transposed array would be garbled.
    flat = {name: np.asarray(leaf, order="C") for name, leaf in named(tree).items()}
    extra("safetensors.numpy").save_file(flat, path)


FORMAT = Format(
    name="safetensors",
    dtypes=JAX,
    scalars=(),
    forbidden="",
    numbers=True,
    read=read,
    write=write,
)
