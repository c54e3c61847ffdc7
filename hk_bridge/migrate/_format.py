"""What a format of checkpoints is: what it can hold, and who reads and writes it."""

from collections.abc import Callable
import functools
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


class Ask(NamedTuple):
    """What is asked of `read`, as far as a format can do something about it.

    Attributes:
      shardings: where the leaves go, as `load` was told; None: to NumPy.
      collections: which ones are wanted; None: all.
      done: is told how many bytes more were read.
    """

    shardings: Any = None
    collections: tuple[str, ...] | None = None
    done: Done = lambda count: None


class Flat(dict[str, Any]):
    """The arrays of a file by their names there, which are yet to be split.

    Attributes:
      separator: between the parts of the names, if the file itself tells.
    """

    separator: str | None = None


class Format(NamedTuple):
    """What a format can hold, and the four functions that are the format.

    Attributes:
      name: in messages.
      suffixes: of its files; none of a directory.
      dtypes: the names of those that survive; None for all.
      scalars: the types of what else survives.
      forbidden: what no name may have in it.
      numbers: whether a name may be one.
      flat: whether `write` is given a `Flat`, and not a tree.
      knows: whether what is at a path is of this format, as far as its name tells.
      read: gives whatever tree is at a path, or a `Flat`; `load` checks it.
      check: refuses a tree that it cannot hold, for another reason than those above.
      write: writes, to a path where nothing is, what has been checked; None: it cannot.
    """

    name: str
    suffixes: tuple[str, ...]
    dtypes: set[str] | None
    scalars: tuple[type, ...]
    forbidden: str
    numbers: bool
    flat: bool
    knows: Callable[[pathlib.Path], bool]
    read: Callable[[pathlib.Path, Ask], Any]
    check: Callable[[Tree], None]
    write: Callable[[pathlib.Path, Tree], None] | None


def has_suffix(*suffixes: str) -> Callable[[pathlib.Path], bool]:
    """What tells that a path is a file with one of `suffixes`."""
    return lambda path: path.name.lower().endswith(suffixes) and not path.is_dir()


def nothing(tree: Tree) -> None:
    """The `check` of a format that has nothing more to refuse."""


@functools.cache
def is_number(dtype: Any) -> bool:
    """Whether `dtype` is one of JAX's, bool too, in the byte order of the machine."""
    number = any(jnp.issubdtype(dtype, kind) for kind in (np.number, np.bool_))
    # NumPy's longdouble is another thing on each machine.
    longest = 16 if jnp.issubdtype(dtype, np.complexfloating) else 8
    return number and np.dtype(dtype).isnative and np.dtype(dtype).itemsize <= longest


def check_unpacked(count: int, path: pathlib.Path) -> None:
    """Refuses a bomb: weights hardly shrink."""
    if count > max(_BOMB, 100 * size_of(path)):
        raise ValueError(
            f"it would unpack to {count} bytes, over 100 times its size; if you trust "
            "it, load it with its own library"
        )


def add_once(tree: dict[Any, Any], name: Any, value: Any) -> None:
    """Puts a value into a tree that is read, whose names are there once."""
    if name in tree:
        raise ValueError(f"it has the name {name!r} twice")
    tree[name] = value


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
