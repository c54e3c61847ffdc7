"""Safetensors, one flat file, which other libraries read without JAX."""

import json
import math
import pathlib
from typing import Any

import numpy as np

from hk_bridge.migrate._extras import extra
from hk_bridge.migrate._files import mapped
from hk_bridge.migrate._format import FLOAT8
from hk_bridge.migrate._format import JAX
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Flat
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import cannot_hold
from hk_bridge.migrate._format import has_suffix
from hk_bridge.migrate._format import nothing

_TOLD = "__metadata__"  # what is no array in the header
_DTYPES = {
    **FLOAT8,
    "BOOL": "bool",
    "BF16": "bfloat16",
    "C64": "complex64",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def read(path: pathlib.Path, ask: Ask) -> Flat:
    """Its arrays are parts of the file, which is mapped into memory and not copied."""
    flat = Flat()
    with extra("safetensors").safe_open(path, framework="numpy") as file:
        # It has checked that the arrays lie in a row, and fill the file.
        told = file.metadata() or {}
        file.keys()
    if told.get("format") == "flax":  # as transformers writes it
        flat.separator = "."
    with mapped(path, keep=True) as data:
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(bytes(data[8:start]), object_pairs_hook=_once)
        header.pop(_TOLD, None)
        for name, entry in header.items():
            flat[name] = _array(data, start, entry)
            ask.done(flat[name].nbytes)
    return flat


def _array(data: Any, start: int, entry: Tree) -> Any:
    if entry["dtype"] not in _DTYPES:
        raise TypeError(f"it holds an array of dtype {entry['dtype']}")
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
    offset, count = start + entry["data_offsets"][0], math.prod(shape)
    if not count:
        return np.zeros(shape, dtype)
    array = np.frombuffer(data, dtype, count, offset).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _once(pairs: list[tuple[str, Any]]) -> Tree:
    level = dict(pairs)
    if len(level) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the name {twice!r} twice")
    return level


def write(path: pathlib.Path, tree: Tree) -> None:
    if _TOLD in tree:  # which would be written, and never read
        raise cannot_hold(FORMAT, (_TOLD,), "an array of that name")
    # 0.8.0 writes the memory as it lies, so a transposed array would be garbled.
    flat = {name: np.asarray(leaf, order="C") for name, leaf in tree.items()}
    told = {"format": "flax"} if getattr(tree, "separator", None) == "." else None
    extra("safetensors.numpy").save_file(flat, path, metadata=told)


FORMAT = Format(
    name="safetensors",
    suffixes=(".safetensors",),
    dtypes=JAX,
    scalars=(),
    forbidden="",
    numbers=True,
    flat=True,
    knows=has_suffix(".safetensors"),
    read=read,
    check=nothing,
    write=write,
)
