"""What a format of checkpoints is: what it can hold, and who reads and writes it."""

from collections.abc import Callable
import pathlib
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge.migrate._files import Done
from hk_bridge.migrate._files import size_of

Tree = dict[str, Any]

_BOMB = 2**30  # bytes: from here on a file that unpacks to 100 times its size is one
PLAIN = (bool, int, float, complex, str, bytes, type(None))
# NumPy's dtypes, and those that JAX adds, by the names that safetensors gives them.
NUMPY = {"bool", "float16", "float32", "float64", "complex64"}
NUMPY |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
FLOAT8 = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
JAX = NUMPY | {"bfloat16"} | set(FLOAT8.values())


class CheckpointError(ValueError):
    """A file or directory is no whole checkpoint of its format, or cannot be one.

    >>> from hk_bridge import migrate
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     try:
    ...         migrate.load(file.name)
    ...     except CheckpointError as error:
    ...         print(type(error.__cause__).__name__)
    BadZipFile
    """


class Format(NamedTuple):
    """What a format can hold, and how it is read and written.

    Attributes:
      name: in messages.
      dtypes: the names of those that survive; None for all.
      scalars: the types of what else survives.
      forbidden: what no name may have in it.
      numbers: whether a name may be one.
      read: gives whatever tree is at a path, given shardings; `load` checks it.
      write: is given a tree that `save` has checked.
    """

    name: str
    dtypes: set[str] | None
    scalars: tuple[type, ...]
    forbidden: str
    numbers: bool
    read: Callable[[pathlib.Path, Any, Done], Any]
    write: Callable[[pathlib.Path, Tree], None]


def is_number(dtype: Any) -> bool:
    """Whether `dtype` is one of JAX's, bool too, in the byte order of the machine."""
    number = any(jnp.issubdtype(dtype, kind) for kind in (np.number, np.bool_))
    return number and np.dtype(dtype).isnative


def check_unpacked(count: int, path: pathlib.Path) -> None:
    """Refuses a bomb: weights hardly shrink."""
    if count > max(_BOMB, 100 * size_of(path)):
        raise ValueError(
            f"it would unpack to {count} bytes, over 100 times its size; if you trust "
            "it, load it with its own library"
        )


def where_is(path: _layout.Path) -> str:
    return _errors._path(path[0], path[1:]) if path else "the top"


def cannot_hold(kind: Format, path: _layout.Path, what: str) -> _errors.VariablesError:
    hint = "" if kind.scalars else ", save to a .msgpack file, which holds more,"
    return _errors.VariablesError(
        f"{kind.name} cannot hold what is at {where_is(path)}: {what}. Nothing was "
        "written. Make it an array of a dtype that survives (np.asarray(number), "
        "jax.random.key_data(key), leaf.astype(dtype)), a container a dict with string "
        f"keys{hint} or leave it out."
    )
