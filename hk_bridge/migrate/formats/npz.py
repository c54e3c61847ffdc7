"""NumPy's archive of arrays, one flat file."""

import functools
import io
import math
import pathlib
import struct
from typing import Any
from typing import BinaryIO
import zipfile

import jax.numpy as jnp
import numpy as np

from hk_bridge.migrate._format import NUMPY
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Flat
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import add_once
from hk_bridge.migrate._format import check_unpacked
from hk_bridge.migrate._format import has_suffix
from hk_bridge.migrate._format import nothing

# Of ZIP's APPNOTE 6.3.10: the end record, the same for large archives, and where that
# is; of the header of a member what comes before its name.
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_PLACE_64 = struct.Struct("<4sLQL")
_HEADER = struct.Struct("<4s5H3L2H")

_SMALL = 2**16  # bytes: a member that is read at once
_BFLOAT16 = np.dtype("V2")  # as NumPy writes it; JAX has no other dtype of 2 bytes


def read(path: pathlib.Path, ask: Ask) -> Flat:
    flat = Flat()
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_end(file, archive, len(members))
        check_unpacked(sum(member.file_size for member in members), path)
        for member in members:
            _check_header(file, member)
            if member.is_dir() and not member.file_size:
                continue  # as `zip -r` has of each folder
            name = member.filename.removesuffix(".npy")
            add_once(flat, name, _array(archive, member))
            ask.done(member.file_size)
    return flat


def _check_end(file: BinaryIO, archive: zipfile.ZipFile, count: int) -> None:
    """Refuses an archive that is not all that is in the file, or not all of it."""
    comment = len(archive.comment)
    end = file.seek(0, 2) - comment - _END.size
    file.seek(end)
    mark, _, _, _, told, size, start, length = _END.unpack(file.read(_END.size))
    if mark != b"PK\5\6" or length != comment:
        raise zipfile.BadZipFile("something follows its end record")
    if 0xFFFF in (told,) or 0xFFFFFFFF in (size, start):
        file.seek(end - _PLACE_64.size)
        _, _, at, _ = _PLACE_64.unpack(file.read(_PLACE_64.size))
        file.seek(at)
        end = at
        told, size, start = _END_64.unpack(file.read(_END_64.size))[-3:]
    if told != count or start + size != end or start != archive.start_dir:
        raise zipfile.BadZipFile(f"its end record tells of {told} members, not {count}")


def _check_header(file: BinaryIO, member: zipfile.ZipInfo) -> None:
    """Refuses a member whose two headers differ in how its name is spelled."""
    file.seek(member.header_offset)
    flags = _HEADER.unpack(file.read(_HEADER.size))[2]
    if flags != member.flag_bits:
        raise zipfile.BadZipFile(f"its member {member.filename!r} has two headers")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """The array in a member, which is read to its end: there its checksum is."""
    if member.file_size <= _SMALL:
        return _small_array(archive.read(member), member)
    with archive.open(member) as file:
        try:
            shape, _, dtype, start = _header(file)
        except ValueError as error:
            raise _no_array(member, error) from error
    _check_size(member, shape, dtype, start)
    with archive.open(member) as file:
        array: Any = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"its member {member.filename!r} holds more than an array")
    return native(array)


def _no_array(member: zipfile.ZipInfo, error: ValueError) -> TypeError:
    return TypeError(f"its member {member.filename!r} is no array: {error}")


def _small_array(data: bytes, member: zipfile.ZipInfo) -> Any:
    """The same of all the bytes of a member, ten times as fast: headers are alike."""
    start = 10 + int.from_bytes(data[8:10], "little")  # of version 1
    header = data[: start if data[:7] == b"\x93NUMPY\x01" else None]
    try:
        shape, fortran, dtype, start = _parsed(header)
    except ValueError as error:
        raise _no_array(member, error) from error
    _check_size(member, shape, dtype, start)
    if not math.prod(shape) * dtype.itemsize:
        return native(np.zeros(shape, dtype))
    array = np.frombuffer(data, dtype, offset=start)
    return native(array.reshape(shape, order="F" if fortran else "C"))


def _header(file: Any) -> tuple[Any, bool, Any, int]:
    """What the header of an array says: shape, order and dtype; and where it ends."""
    major, _ = np.lib.format.read_magic(file)
    headers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    if major > len(headers):  # it has names of other than ASCII, of a compound dtype
        raise ValueError("its dtype is compound")
    shape, fortran, dtype = headers[major - 1](file)
    return shape, fortran, dtype, file.tell()


@functools.lru_cache(1024)
def _parsed(header: bytes) -> tuple[Any, bool, Any, int]:
    return _header(io.BytesIO(header))


def _check_size(member: zipfile.ZipInfo, shape: Any, dtype: Any, start: int) -> None:
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    size = start + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or member.file_size != size:
        raise ValueError(f"its member {member.filename!r} is no array of shape {shape}")


def native(array: Any) -> Any:
    """An array as it was before NumPy wrote it, in the byte order of the machine."""
    if array.dtype == _BFLOAT16:
        return array.view(jnp.bfloat16)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def write(path: pathlib.Path, tree: Tree) -> None:
    """As `np.savez`, which takes no array that is called as its own arguments are:
    `file`, and `allow_pickle`, which it leaves out without a word."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, leaf in tree.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, leaf, allow_pickle=False)


FORMAT = Format(
    name="NumPy .npz",
    suffixes=(".npz",),
    dtypes=NUMPY | {"complex128", "bfloat16"},
    scalars=(),
    forbidden="\0",  # where zipfile cuts a name off
    numbers=True,
    flat=True,
    knows=has_suffix(".npz"),
    read=read,
    check=nothing,
    write=write,
)
