"""Flax's own format, one file."""

import math
import pathlib
import re
from typing import Any

import msgpack
import numpy as np

from hk_bridge import _flax
from hk_bridge.migrate._files import mapped
from hk_bridge.migrate._format import PLAIN
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import add_once
from hk_bridge.migrate._format import nothing

_CHUNKED = "__msgpack_chunked_array__"  # its mark of an array of more than 1 GiB
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # the codes of what msgpack itself has not


def knows(path: pathlib.Path) -> bool:
    """Flax's `checkpoint_100`, too, which `flax.training.checkpoints` writes."""
    if path.is_dir():
        return False
    legacy = re.fullmatch(r".*_\d+", path.name) is not None
    return path.suffix.lower() == ".msgpack" or legacy


def read(path: pathlib.Path, ask: Ask) -> Any:
    """As `flax.serialization.msgpack_restore`, which lets wrong files pass: of a name
    that is there twice it takes one, and it makes dimensions of -1 fit."""
    with mapped(path) as data:
        hooks = {"ext_hook": _extension, "object_pairs_hook": _level}
        return msgpack.unpackb(data, raw=False, strict_map_key=False, **hooks)


def _level(pairs: list[tuple[Any, Any]]) -> Any:
    level: dict[Any, Any] = {}
    for name, value in pairs:
        add_once(level, name, value)
    return _joined(level) if _CHUNKED in level else level


def _extension(code: int, data: bytes) -> Any:
    if code == _COMPLEX:
        real, imag = msgpack.unpackb(data)
        return complex(real, imag)
    if code not in (_ARRAY, _SCALAR):
        return msgpack.ExtType(code, data)
    shape, dtype, raw = msgpack.unpackb(data, raw=True)
    array = np.frombuffer(raw, np.dtype(dtype.decode()))
    array = array.reshape(_sizes(shape))
    return array[()] if code == _SCALAR else array


def _sizes(shape: Any) -> tuple[int, ...]:
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array in it has the shape {tuple(shape)}")
    return tuple(shape)


def _joined(level: dict[Any, Any]) -> Any:
    """The array that was split into `level`."""
    if set(level) != {_CHUNKED, "shape", "chunks"}:
        raise ValueError(f"an array in it is split into {sorted(map(str, level))}")
    shape = _sizes(_listed(level["shape"]))
    chunks = _listed(level["chunks"])
    kinds = {(chunk.dtype.name, chunk.ndim) for chunk in chunks}
    sizes = sum(chunk.size for chunk in chunks)
    if len(kinds) != 1 or next(iter(kinds))[1] != 1 or sizes != math.prod(shape):
        raise ValueError(f"the parts of an array of shape {shape} do not fit together")
    return np.concatenate(chunks).reshape(shape)


def _listed(level: dict[str, Any]) -> list[Any]:
    """The values of `{"0": ..., "1": ...}`."""
    if set(level) != set(map(str, range(len(level)))):
        raise ValueError(f"a list in it has the places {sorted(map(str, level))}")
    return [level[str(place)] for place in range(len(level))]


def write(path: pathlib.Path, tree: Tree) -> None:
    path.write_bytes(_flax.serialization.msgpack_serialize(tree, in_place=True))


FORMAT = Format(
    name="Flax msgpack",
    suffixes=(".msgpack",),
    dtypes=None,
    scalars=PLAIN,
    forbidden=_CHUNKED,
    numbers=False,  # Flax 0.12.2 writes them, and does not read them
    flat=False,
    knows=knows,
    read=read,
    check=nothing,
    write=write,
)
