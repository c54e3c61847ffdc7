"""`save`: Flax variables into a checkpoint."""

import pathlib
from typing import Any

import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _layout
from hk_bridge._layout import names
from hk_bridge.migrate import _remote
from hk_bridge.migrate._files import Path
from hk_bridge.migrate._files import arriving
from hk_bridge.migrate._files import arriving_parts
from hk_bridge.migrate._files import progress_bar
from hk_bridge.migrate._files import replacing
from hk_bridge.migrate._files import size_of
from hk_bridge.migrate._flat import every_leaf
from hk_bridge.migrate._flat import joined
from hk_bridge.migrate._flat import named
from hk_bridge.migrate._flat import told_by_dots
from hk_bridge.migrate._format import CheckpointError
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import cannot_hold
from hk_bridge.migrate._format import is_number
from hk_bridge.migrate._format import where_is
from hk_bridge.migrate.formats import FORMATS
from hk_bridge.migrate.formats import ORBAX
from hk_bridge.migrate.formats import SHARDED
from hk_bridge.migrate.formats import WRITTEN
from hk_bridge.migrate.formats import failed
from hk_bridge.migrate.formats import for_saving
from hk_bridge.migrate.formats import no_format


def save(
    path: Path,
    variables: _layout.Variables,
    *,
    separator: str | None = None,
    progress: bool | None = None,
) -> None:
    """Keeps Flax variables in a checkpoint that `load` gives back exactly.

    A file that is there is replaced at once, when the new one is whole, so a save that
    fails or is killed leaves the old file as it was; the new one has its mode. An Orbax
    directory, or an `index.json` with its parts, appears when it is whole, and is never
    replaced; of two processes that save to one path, one fails. What a killed save
    wrote stays beside it, in a hidden `.tmp` file or directory. Boxes are opened and
    `FrozenDict`s become dicts, as by `hk_bridge.to_haiku`. Leaves are NumPy and JAX
    arrays, sharded ones too; NumPy scalars become arrays `[]`.

    Args:
      path: where to; see the module for formats.
      variables: `{collection: nested dict}`, such as `hk_bridge.to_flax` gives, or the
        parameters alone, `variables["params"]`.
      separator: what the parts of flat names are joined by, `.` or `/`, as they are:
        for other programs. By default they are spelled so that any name can be read.
      progress: as for `load`.

    Raises:
      VariablesError: there is a leaf or a name that the format cannot hold. Only
        `.msgpack` holds each dtype of JAX, None and Python scalars; none holds tuples,
        dataclasses and typed PRNG keys.
      FileExistsError: `path` is a directory, or a file whose suffix tells no format.
      OSError, CheckpointError: it could not be written.
      ModuleNotFoundError: the format's library is not installed.

    >>> from hk_bridge import migrate
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     migrate.save(f"{folder}/net.msgpack", {"params": {"bias": np.zeros(2)}})
    ...     migrate.load(f"{folder}/net.msgpack")
    {'params': {'bias': array([0., 0.])}}
    """
    if not _layout.are_variables(variables):
        raise _errors.variables_type(variables)
    with _remote.from_hand(path) as local:
        kind = for_saving(local)
        tree = prepared(local, kind, variables)
        keep(local, kind, _flat(tree, kind, separator) if kind.flat else tree, progress)


def prepared(path: pathlib.Path, kind: Format, tree: _layout.Variables) -> Tree:
    """`tree` as `kind` writes it, or the refusal of what it cannot hold."""
    if kind.write is None:
        raise _not_written(path, kind)
    if path.name.lower().endswith(".index.json") and kind is not SHARDED:
        raise CheckpointError(
            f"{path} names no format of the parts. Write model.safetensors.index.json, "
            "or flax_model.msgpack.index.json."
        )
    made: Tree = _savable(dict(tree), (), kind)
    kind.check(made)
    return made


def _flat(tree: Tree, kind: Format, separator: str | None) -> Tree:
    if separator is None:
        flat = named(tree)
        if told_by_dots(flat):
            raise cannot_hold(kind, (next(iter(tree)),), "a name that reads as two")
        return flat
    try:
        return joined(tree, separator)
    except ValueError as error:
        raise cannot_hold(kind, error.args[1], error.args[0]) from None


def keep(path: pathlib.Path, kind: Format, tree: Tree, progress: bool | None) -> None:
    """Writes what has been checked, whole or not at all."""
    total = sum(getattr(leaf, "nbytes", 0) for _, leaf in every_leaf(tree))
    place = replacing
    if kind in (ORBAX, SHARDED):
        if path.exists() or path.is_symlink():
            raise _in_the_way(path)
        place = arriving if kind is ORBAX else arriving_parts
    assert kind.write is not None
    try:
        with (
            place(path) as new,
            progress_bar(path, total, progress, lambda: size_of(new)),
        ):
            kind.write(new, tree)
    except (OSError, _errors.VariablesError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise failed(path, kind, "written", _short(error)) from None


def _short(error: Exception) -> Exception:
    """The cause of an error that a library wrapped: a hundred lines say no more."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _savable(tree: Any, path: _layout.Path, kind: Format) -> Any:
    """`tree` in new plain dicts, or the refusal of what `kind` cannot hold."""
    tree = _layout.unbox(tree)
    if _layout.is_level(tree):
        for name in tree:
            _check_name(name, (*path, name), kind)
        return {_plain(k): _savable(v, (*path, k), kind) for k, v in tree.items()}
    if len(path) == 1 and path[0] in _layout.FLAXS_OWN:
        raise _errors.collection_type(path[0], tree)
    leaf = np.asarray(tree) if isinstance(tree, np.generic) else tree
    if type(leaf) in kind.scalars and _packs(leaf):
        return leaf
    array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    if not array and type(leaf) not in (np.ndarray, np.memmap):  # masks would be lost
        raise cannot_hold(kind, path, f"a {_errors._type(leaf)}")
    if not is_number(leaf.dtype) or kind.dtypes and leaf.dtype.name not in kind.dtypes:
        raise cannot_hold(kind, path, f"a {leaf.dtype} array")
    return leaf if kind is ORBAX else np.asarray(leaf)


def _plain(name: names.Part) -> names.Part:
    """`name` less what a subclass adds: an enum is printed as `Name.A`, say."""
    return name if isinstance(name, int) else str.__str__(name)


def _packs(scalar: Any) -> bool:
    """Whether msgpack takes it: no more than 64 bits, no broken Unicode."""
    try:
        _flax.serialization.msgpack_serialize(scalar)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True


def _check_name(name: names.Part, path: _layout.Path, kind: Format) -> None:
    if isinstance(name, int):
        if not kind.numbers:
            raise _no_numbers(kind, path)
        return
    try:
        name.encode()
    except UnicodeEncodeError:
        raise cannot_hold(kind, path, "a name that is no valid Unicode") from None
    if kind.forbidden and kind.forbidden in name:
        raise cannot_hold(kind, path, f"a name with {kind.forbidden!r} in it")


def _no_numbers(kind: Format, path: _layout.Path) -> _errors.VariablesError:
    some = [other for other in FORMATS if other.numbers and other.write]
    others = ", ".join(suffix for other in some for suffix in other.suffixes)
    return _errors.VariablesError(
        f"{kind.name} cannot hold what is at {where_is(path)}: its name is a number, "
        f"not a str. Nothing was written. Save to a file that can: {others}."
    )


def _not_written(path: pathlib.Path, kind: Format) -> CheckpointError:
    return CheckpointError(
        f"{path} has the suffix of a {kind.name}, which is read and never written. "
        f"Give it one of {', '.join(WRITTEN)}."
    )


def _in_the_way(path: pathlib.Path) -> FileExistsError:
    if path.name.lower().endswith(SHARDED.suffixes):
        return FileExistsError(
            f"{path} exists, and its parts cannot be replaced at once. Choose a new "
            "name, or remove it with its parts."
        )
    if path.is_file():
        return FileExistsError(
            f"{no_format(path)}, and an Orbax directory replaces no file. Give it one "
            f"of {', '.join(WRITTEN)}, or choose a new name."
        )
    hint = ""
    if ORBAX.knows(path) and path.name:  # "." has none, and cannot be removed
        hint = f", or remove this checkpoint: shutil.rmtree({str(path)!r})"
    return FileExistsError(
        f"{path} exists, and a directory cannot be replaced at once. Choose a new "
        f"name{hint}."
    )
