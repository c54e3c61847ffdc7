"""Pickles of weights, read without running any of the code that they name.

A pickle is a program that calls what it names. This one may name what arrays are made
of: NumPy's and JAX's (of three generations: JAX forwarded to NumPy's until 0.2, then
`jax._src.device_array.reconstruct_device_array`, since 0.4
`jax._src.array._reconstruct_array`), dtypes, dicts, and the mappings of Haiku and Flax.
None of these is called: each name stands for a function of this file, which checks what
it is given. Every other name is refused.
"""

import collections
import math
import pickle
from typing import Any
from typing import BinaryIO
from typing import ClassVar

import numpy as np


class _Dtype:
    """A dtype that is being made: its name, and the order of its bytes."""

    def __init__(self, name: Any, *_: Any):
        self.dtype: Any = np.dtype(_plain(name))
        if not (self.dtype.isbuiltin and not self.dtype.hasobject):
            raise pickle.UnpicklingError(f"the dtype {name!r} is none of weights")

    def __setstate__(self, state: Any) -> None:
        _, order, *rest = state
        if any(part is not None for part in rest[:3]):
            raise pickle.UnpicklingError("it has an array of a compound dtype")
        if order in ("<", ">", b"<", b">"):
            self.dtype = self.dtype.newbyteorder(_plain(_text(order)))


def _text(value: Any) -> Any:
    """What Python 2 has as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else value


def _plain(name: Any) -> str:
    name = _text(name)
    if not isinstance(name, str):
        raise pickle.UnpicklingError(f"{name!r} is no name of a dtype")
    return name


class _Array:
    """An array that is being made."""

    value: Any = None

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # of Python 2
        self.value = _filled(shape, dtype, "F" if fortran else "C", raw)


def _filled(shape: Any, dtype: Any, order: Any, raw: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, (bytes, bytearray)):
        raise pickle.UnpicklingError("it has an array of other than numbers")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise pickle.UnpicklingError(f"it has an array of shape {shape!r}")
    if len(raw) != math.prod(shape) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(f"it has no whole array of shape {tuple(shape)}")
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"it has an array in the order {order!r}")
    array = np.frombuffer(raw, dtype.dtype) if raw else np.zeros(0, dtype.dtype)
    array = array.reshape(shape, order=order)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.value = _filled(shape, dtype, order, raw)
    return array


def _of_jax(make: Any, args: Any, state: Any, of_aval: Any) -> _Array:
    """An array of JAX, as it pickles one: that of NumPy, and what `aval` has beside."""
    if make not in (_Array, _from_buffer):
        raise pickle.UnpicklingError("it has an array of JAX that is none of NumPy")
    array: _Array = make(*args)
    if state is not None:
        array.__setstate__(state)
    return array


def _scalar(dtype: Any, raw: Any) -> _Array:
    array = _Array()
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    array.value = _filled((), dtype, "C", raw)
    return array


def _mapping(*args: Any) -> dict[Any, Any]:
    """A mapping of Haiku or Flax, which is given a dict or pairs."""
    return dict(*args)


class _Name(str):
    """The name of a scalar type, of which a dtype is made."""


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_ML_DTYPES = [
    *("bfloat16", "float8_e4m3", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"),
    *("float8_e4m3b11fnuz", "float8_e5m2fnuz", "float8_e3m4", "float8_e8m0fnu"),
    *("float4_e2m1fn", "int4", "uint4", "int2", "uint2"),
]
_HAIKU = "haiku._src.data_structures"

KNOWN: dict[tuple[str, str], Any] = {
    **{(module, "_reconstruct"): _Array for module in _MULTIARRAY},
    **{(module, "scalar"): _scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _from_buffer for module in _NUMERIC},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("jax._src.array", "_reconstruct_array"): _of_jax,
    ("jax._src.device_array", "reconstruct_device_array"): _of_jax,
    **{("ml_dtypes", name): _Name(name) for name in _ML_DTYPES},
    **{("jax._src.dtypes", name): _Name(name) for name in _ML_DTYPES},
    ("jaxlib.xla_extension", "bfloat16"): _Name("bfloat16"),
    ("_codecs", "encode"): lambda text, encoding: _encoded(text, encoding),
    ("builtins", "bytes"): lambda: b"",  # as protocol 2 has none
    ("builtins", "dict"): _mapping,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): lambda *args: {},
    ("builtins", "list"): "the factory of a defaultdict",
    (_HAIKU, "FlatMapping"): _mapping,
    (_HAIKU, "FlatMap"): _mapping,
    (_HAIKU, "frozendict"): _mapping,
    ("flax.core.frozen_dict", "FrozenDict"): _mapping,
}


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes, as protocol 2 has them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"it has text in the encoding {encoding!r}")
    return text.encode("latin1")


class Unpickler(pickle._Unpickler):
    """Python's own, in Python: the one in C makes room for what a bad file claims."""

    stack: list[Any]

    def __init__(self, file: BinaryIO, limit: int):
        self.source = Source(file, limit)
        super().__init__(self.source, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return Wrapper
        module = "builtins" if module == "__builtin__" else module  # in Python 2
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it names something that is not in it")

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"it names the extension {code}")

    def load_build(self) -> None:
        """As Python's, but that it sets no attributes; and joblib's arrays follow."""
        state = self.stack.pop()
        top = self.stack[-1]
        if not isinstance(top, (_Array, _Dtype, Wrapper)):
            raise pickle.UnpicklingError(f"it sets the state of a {type(top).__name__}")
        top.__setstate__(state)
        if isinstance(top, Wrapper):
            array = self.stack[-1] = _Array()
            array.value = top.read(self.source)

    dispatch: ClassVar[Any] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }


class Wrapper:
    """What joblib has in the place of an array, whose bytes follow."""

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state)

    def read(self, source: "Source") -> Any:
        state = self.state
        dtype, shape = state["dtype"], state["shape"]
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("it has an array of other than numbers")
        if state.get("numpy_array_alignment_bytes") is not None:
            source.read(source.read(1)[0])
        if not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError(f"it has an array of shape {shape!r}")
        raw = source.read(math.prod(shape) * dtype.dtype.itemsize)
        return _filled(shape, dtype, state["order"], raw)


class Source:
    """A file that gives no more than `limit` bytes, and all that it is asked for."""

    def __init__(self, file: BinaryIO, limit: int):
        self._file = file
        self._left = limit

    def read(self, count: int) -> bytes:
        if count > self._left:
            raise EOFError(f"it ends {count - self._left} bytes early")
        self._left -= count
        data = self._file.read(count)
        if len(data) != count:
            raise EOFError(f"it ends {count - len(data)} bytes early")
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[:] = data
        return len(data)

    def readline(self) -> bytes:
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


def finished(value: Any, most: int, ordered: bool = False) -> Any:
    """What was made, as plain dicts, lists, tuples and arrays.

    Args:
      value: what an `Unpickler` gives.
      most: how many things there may be: each takes a byte at least. What holds a
        thing twice, and that another twice, and so on, soon holds more than memory.
      ordered: whether an `OrderedDict` stays one: JAX has its leaves in another order.
    """
    left = [most]
    return _finished(value, left, ordered, 0)


def _finished(value: Any, left: list[int], ordered: bool, depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise pickle.UnpicklingError("it holds more things than it has bytes")
    if depth > 100:
        raise pickle.UnpicklingError("it is nested more than 100 levels deep")
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError("it has an array without values")
        return value.value
    if type(value) in (dict, collections.OrderedDict):
        kind = type(value) if ordered else dict
        return kind(
            (_key(key), _finished(inner, left, ordered, depth + 1))
            for key, inner in value.items()
        )
    if type(value) in (list, tuple):
        parts = (_finished(inner, left, ordered, depth + 1) for inner in value)
        return type(value)(parts)
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}, which is no leaf")


def _key(key: Any) -> Any:
    if type(key) not in (str, int):
        raise pickle.UnpicklingError(f"it has a name of type {type(key).__name__}")
    return key
