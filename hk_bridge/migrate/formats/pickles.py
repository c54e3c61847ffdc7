"""Pickles and joblib's dumps, which are read without running them, and not written."""

import bz2
from collections.abc import Callable
import gzip
import io
import lzma
import pathlib
from typing import Any
import zlib

from hk_bridge.migrate import _format
from hk_bridge.migrate._files import size_of
from hk_bridge.migrate._format import PLAIN
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import has_suffix
from hk_bridge.migrate._format import nothing
from hk_bridge.migrate._unpickle import Unpickler
from hk_bridge.migrate._unpickle import finished

_SUFFIXES = (".pkl", ".pickle", ".pckl", ".joblib", ".pkl.gz", ".pickle.gz")
# How compressed files start, as joblib and the shell make them, and who reads them.
_COMPRESSED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"]\x00\x00": lzma.open,
}
_LZ4 = b"\x04\x22\x4d\x18"


def read(path: pathlib.Path, ask: Ask) -> Any:
    return dumped(path)


def dumped(path: pathlib.Path, ordered: bool = False) -> Any:
    """What was dumped; a tuple, if several things were dumped into one file."""
    found = []
    with path.open("rb") as raw:
        file, size = _unpacked(raw, path)
        while file.tell() < size:
            unpickler = Unpickler(file, size - file.tell())
            found.append(finished(unpickler.load(), size, ordered))
    if not found:
        raise EOFError("it is empty")
    return found[0] if len(found) == 1 else tuple(found)


def _unpacked(raw: Any, path: pathlib.Path) -> tuple[Any, int]:
    """A file with its bytes unpacked, and how many these are."""
    start = raw.read(8)
    raw.seek(0)
    limit = max(_format._BOMB, 100 * size_of(path))
    if start.startswith(_LZ4):
        raise ValueError("it is compressed by lz4, which Python cannot read")
    if start[:1] == b"x" and int.from_bytes(start[:2], "big") % 31 == 0:
        stream = zlib.decompressobj()  # what joblib's compress=True writes
        data = stream.decompress(raw.read(), limit)
        if not stream.eof or stream.unused_data:
            raise EOFError("its compressed bytes are not whole")
        return io.BytesIO(data), len(data)
    for mark, opener in _COMPRESSED.items():
        if start.startswith(mark):
            with opener(raw) as file:
                data = file.read(limit + 1)
            if len(data) > limit:
                raise ValueError(f"it would unpack to more than {limit} bytes")
            return io.BytesIO(data), len(data)
    return raw, size_of(path)


FORMAT = Format(
    name="pickle",
    suffixes=_SUFFIXES,
    dtypes=None,
    scalars=PLAIN,
    forbidden="",
    numbers=True,
    flat=False,
    knows=has_suffix(*_SUFFIXES),
    read=read,
    check=nothing,
    write=None,
)
