"""Checkpoints: `load(path)` gives Flax variables, `save(path, variables)` keeps them.

The format follows from the path:

* `.msgpack`: Flax's own (`flax.serialization`);
* `.safetensors`: flat names, `params/Dense_0/kernel`;
* `.npz`: NumPy's archive, with the same names;
* else, or if it is a directory: an Orbax checkpoint.

The flat names are spelled as in Haiku (`a%2Fb` for the Flax name `a/b`), and a name
that ends in `/` is an empty dict. A round trip is exact: structure, names, dtypes and
bits; what a format cannot hold is refused before anything is written. Pickles are never
read. `pip install 'hk_bridge[checkpoint]'` brings the libraries that are not Flax's.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import glob
import importlib
import math
import os
import pathlib
import secrets
import threading
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _layout
from hk_bridge._layout import names as _names

__all__ = ["CheckpointError", "load", "save"]

Path = str | os.PathLike[str]
Tree = dict[str, Any]
Done = Callable[[int], Any]  # told how many bytes more are done

_LARGE = 100_000_000  # bytes: from here on progress is shown
_BOMB = 2**30  # bytes: from here on a file that unpacks to 100 times its size is one
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
# NumPy's dtypes, and those that JAX adds, by the names that safetensors gives them.
_NUMPY = {"bool", "float16", "float32", "float64", "complex64"}
_NUMPY |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FLOAT8 = {
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
_TENSORSTORE = {"float4_e2m1fn", "float8_e3m4", "float8_e4m3b11fnuz", "int2", "int4"}


class CheckpointError(ValueError):
    """A file or directory is no whole checkpoint of its format, or cannot be one.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     try:
    ...         load(file.name)
    ...     except CheckpointError as error:
    ...         print(type(error.__cause__).__name__)
    BadZipFile
    """


def load(path: Path, *, shardings: Any = None, progress: bool | None = None) -> Tree:
    """The variables in a checkpoint, as `hk_bridge.to_haiku` and `module.apply` take.

    Leaves are NumPy arrays in the byte order of the machine, whatever they were saved
    from, maybe read-only; with `shardings`, JAX arrays. `to_haiku` hands them on
    untouched, so a sharded load lands in Haiku's layout as it is, and out of an Orbax
    directory each device reads its shards alone:

        shardings = nn.get_sharding(jax.eval_shape(module.init, key, x), mesh)
        params, state = to_haiku(load(path, shardings=shardings), name="net")

    A tree that others saved comes as it stands: the `params` of a saved `TrainState`
    are `load(path)["params"]`.

    Args:
      path: a file or an Orbax directory on a local disk; see the module for formats.
      shardings: a `jax.sharding.Sharding`, or a nested dict of them like the variables,
        in which one stands for all that is below it.
      progress: whether to show a bar on stderr (tqdm); by default only in a terminal,
        from 100 MB on, if tqdm is installed.

    Returns:
      `{collection: nested dict}`, new plain dicts.

    Raises:
      FileNotFoundError: nothing is at `path`.
      CheckpointError: what is there is no whole, safe checkpoint of its format.
      VariablesError: `shardings` lacks a leaf or cannot split it, or a leaf would lose
        its 64 bits.
      ModuleNotFoundError: the format's library is not installed.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> save(f"{folder.name}/net.npz", {"params": {"bias": np.zeros(2)}})
    >>> load(f"{folder.name}/net.npz")
    {'params': {'bias': array([0., 0.])}}
    >>> folder.cleanup()
    """
    path = pathlib.Path(path)
    kind = _format(path)
    if not path.is_dir():
        path.open("rb").close()  # what the system says of it comes as it is
        if kind is _ORBAX:
            raise _unknown_suffix(path)
    try:
        with _progress(path, _size(path), progress) as done:
            tree = kind.read(path, shardings, done)
            if not _layout.are_variables(tree):
                what = type(tree).__name__
                raise TypeError(f"it holds a {what}, not a dict of collections")
            return {k: _loaded(v, (k,), shardings) for k, v in tree.items()}
    except (CheckpointError, _errors.VariablesError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise _failed(path, kind, "read", error) from error


def save(
    path: Path, variables: _layout.Variables, *, progress: bool | None = None
) -> None:
    """Keeps Flax variables in a checkpoint that `load` gives back exactly.

    A file that is there is replaced at once, when the new one is whole, so a save that
    fails or is killed leaves the old file as it was; the new one has its mode. An Orbax
    directory appears when it is whole, and is never replaced. What a killed save wrote
    stays beside it: a hidden `.tmp` file, or a directory `*.orbax-checkpoint-tmp*`.
    Boxes are opened and `FrozenDict`s become dicts, as by `hk_bridge.to_haiku`. Leaves
    are NumPy and JAX arrays, sharded ones too; NumPy scalars become arrays `[]`.

    Args:
      path: where to; see the module for formats.
      variables: `{collection: nested dict}`, such as `hk_bridge.to_flax` gives.
      progress: as for `load`.

    Raises:
      VariablesError: there is a leaf or a name that the format cannot hold. Only
        `.msgpack` holds each dtype of JAX, None and Python scalars; none holds tuples,
        dataclasses and typed PRNG keys.
      FileExistsError: `path` is a directory, or a file whose suffix tells no format.
      OSError, CheckpointError: it could not be written.
      ModuleNotFoundError: the format's library is not installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/net.msgpack", {"params": {"bias": np.zeros(2)}})
    ...     load(f"{folder}/net.msgpack")
    {'params': {'bias': array([0., 0.])}}
    """
    path = pathlib.Path(path)
    kind = _format(path)
    if not _layout.are_variables(variables):
        raise _errors.variables_type(variables)
    tree = _savable(variables, (), kind)
    total = sum(getattr(leaf, "nbytes", 0) for _, leaf in _flat(tree))
    if kind is _ORBAX and (path.exists() or path.is_symlink()):
        raise _in_the_way(path)
    place = contextlib.nullcontext(path) if kind is _ORBAX else _replacing(path)
    try:
        with place as new, _progress(path, total, progress, lambda: _size(new)):
            kind.write(new, tree)
    except (OSError, _errors.VariablesError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise _failed(path, kind, "written", error) from error


# The formats. A writer gets a tree that passed `_savable`; a reader gives any tree.


def _read_msgpack(path: pathlib.Path, shardings: Any, done: Done) -> Any:
    return _flax.serialization.msgpack_restore(path.read_bytes())


def _write_msgpack(path: pathlib.Path, tree: Tree) -> None:
    path.write_bytes(_flax.serialization.msgpack_serialize(tree, in_place=True))


def _read_safetensors(path: pathlib.Path, shardings: Any, done: Done) -> Tree:
    safetensors = _extra("safetensors")
    flat: Tree = {}
    with safetensors.safe_open(path, framework="numpy") as file:
        # Its NumPy door (0.8.0) looks for numpy.float8_e4m3fn, which does not exist.
        names = file.keys()
        dtypes = {name: file.get_slice(name).get_dtype() for name in names}
        for name, dtype in dtypes.items():
            if dtype not in _FLOAT8:
                flat[name] = file.get_tensor(name)
                done(flat[name].nbytes)
    if len(flat) < len(dtypes):
        for name, raw in safetensors.deserialize(path.read_bytes()):
            if name not in flat:
                dtype = np.dtype(_FLOAT8[raw["dtype"]])
                flat[name] = np.frombuffer(raw["data"], dtype).reshape(raw["shape"])
    return _nested(flat)


def _write_safetensors(path: pathlib.Path, tree: Tree) -> None:
    # 0.8.0 writes the memory as it lies, so a transposed array would be garbled.
    flat = {name: np.asarray(leaf, order="C") for name, leaf in _named(tree).items()}
    _extra("safetensors.numpy").save_file(flat, path)


def _read_npz(path: pathlib.Path, shardings: Any, done: Done) -> Tree:
    flat: Tree = {}
    # `np.load` (NumPy 2.4) leaves a broken archive open, and advises to unpickle what
    # is none.
    with path.open("rb") as file, contextlib.ExitStack() as stack:
        archive: Any = np.lib.npyio.NpzFile(file, allow_pickle=False)
        stack.enter_context(archive)
        members = archive.zip.infolist()
        _check_unpacked(sum(member.file_size for member in members), path)
        for member in members:
            # By its full name: `archive["w.npy"]` gives `w` if both are there.
            array = archive[member.filename]
            if not isinstance(array, np.ndarray):
                raise TypeError(f"its member {member.filename!r} is no array")
            name = member.filename.removesuffix(".npy")
            flat[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
            done(member.file_size)
    return _nested(flat)


def _write_npz(path: pathlib.Path, tree: Tree) -> None:
    with path.open("wb") as file:
        np.savez(file, **_named(tree))


def _read_orbax(path: pathlib.Path, shardings: Any, done: Done) -> Any:
    ocp = _extra("orbax.checkpoint")
    if not _is_orbax(path):
        raise _no_orbax(path)

    def restore(keys: Any, leaf: Any) -> Any:
        if type(leaf) is not ocp.metadata.ArrayMetadata:  # a scalar, say
            return ocp.RestoreArgs()
        if shardings is None:
            return ocp.RestoreArgs(restore_type=np.ndarray)
        where = tuple(str(getattr(key, "key", key)) for key in keys)
        return ocp.ArrayRestoreArgs(sharding=_sharding(shardings, where, leaf))

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        metadata = checkpointer.metadata(path.absolute()).item_metadata
        if metadata is None:  # Orbax logs why
            raise ValueError("its files do not fit together, or one is cut short")
        tree = metadata.tree
        arrays = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
        sizes = (math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in arrays)
        _check_unpacked(sum(sizes), path)
        args = jax.tree_util.tree_map_with_path(restore, tree)
        args = ocp.args.PyTreeRestore(restore_args=args)
        return checkpointer.restore(path.absolute(), args=args)


def _is_orbax(path: pathlib.Path) -> bool:
    return (path / "_METADATA").is_file()


def _write_orbax(path: pathlib.Path, tree: Tree) -> None:
    ocp = _extra("orbax.checkpoint")
    files: dict[str, _names.Path] = {}
    for where, leaf in _flat(tree):
        # Orbax (0.12.8) writes `{"a.b": x}` and `{"a": {"b/": y}}` to one place.
        file = ".".join(where).removesuffix("/")
        other = files.setdefault(file, where)
        if other != where:
            raise _cannot_hold(_ORBAX, where, f"what it mixes with {_where(other)}")
        if not isinstance(leaf, dict) and not leaf.size:
            raise _cannot_hold(_ORBAX, where, f"an array of shape {leaf.shape}")
    if not tree:
        raise _cannot_hold(_ORBAX, (), "variables without a collection")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(path.absolute(), args=ocp.args.PyTreeSave(tree))


class _Format(NamedTuple):
    name: str
    dtypes: set[str] | None  # names of those that survive; None: all
    scalars: tuple[type, ...]  # what else survives
    forbidden: str  # what no name may have in it
    numbers: bool  # whether a name may be one
    read: Callable[[pathlib.Path, Any, Done], Any]
    write: Callable[[pathlib.Path, Tree], None]


_JAX = _NUMPY | {"bfloat16"} | set(_FLOAT8.values())
_FORMATS = {
    ".msgpack": _Format(
        "Flax msgpack",
        None,
        _PLAIN,
        "__msgpack_chunked_array__",  # Flax's mark of an array of more than 1 GiB
        False,  # Flax 0.12.2 writes them, and does not read them
        _read_msgpack,
        _write_msgpack,
    ),
    ".safetensors": _Format(
        "safetensors", _JAX, (), "", True, _read_safetensors, _write_safetensors
    ),
    ".npz": _Format(  # zipfile cuts a name off at NUL
        "NumPy .npz", _NUMPY | {"complex128"}, (), "\0", True, _read_npz, _write_npz
    ),
}
_ORBAX = _Format(
    "Orbax",
    _JAX | _TENSORSTORE | {"complex128"},
    (),
    "",
    False,
    _read_orbax,
    _write_orbax,
)


def _format(path: pathlib.Path) -> _Format:
    return _ORBAX if path.is_dir() else _FORMATS.get(path.suffix.lower(), _ORBAX)


# Trees.


def _savable(tree: Any, path: _names.Path, kind: _Format) -> Any:
    """`tree` in new plain dicts, or the refusal of what `kind` cannot hold."""
    tree = _layout.unbox(tree)
    if _layout.is_level(tree):
        for name in tree:
            _check_name(name, (*path, name), kind)
        return {_plain(k): _savable(v, (*path, k), kind) for k, v in tree.items()}
    if len(path) == 1:
        raise _errors.collection_type(path[0], tree)
    leaf = np.asarray(tree) if isinstance(tree, np.generic) else tree
    if type(leaf) in kind.scalars and _packs(leaf):
        return leaf
    array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    if not array and type(leaf) not in (np.ndarray, np.memmap):  # masks would be lost
        raise _cannot_hold(kind, path, f"a {_errors._type(leaf)}")
    if not _is_number(leaf.dtype) or kind.dtypes and leaf.dtype.name not in kind.dtypes:
        raise _cannot_hold(kind, path, f"a {leaf.dtype} array")
    return leaf if kind is _ORBAX else np.asarray(leaf)


def _plain(name: _names.Part) -> _names.Part:
    """`name` less what a subclass adds: an enum is printed as `Name.A`, say."""
    return name if isinstance(name, int) else str.__str__(name)


def _packs(scalar: Any) -> bool:
    """Whether msgpack takes it: no more than 64 bits, no broken Unicode."""
    try:
        _flax.serialization.msgpack_serialize(scalar)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True


def _check_name(name: _names.Part, path: _names.Path, kind: _Format) -> None:
    if isinstance(name, int):
        if not kind.numbers:
            raise _no_numbers(kind, path)
        return
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _cannot_hold(kind, path, "a name that is no valid Unicode") from None
    if kind.forbidden and kind.forbidden in name:
        raise _cannot_hold(kind, path, f"a name with {kind.forbidden!r} in it")


def _loaded(tree: Any, path: _names.Path, shardings: Any) -> Any:
    """`tree` with its arrays where `shardings` wants them."""
    if _layout.is_level(tree):
        return {k: _loaded(v, (*path, k), shardings) for k, v in tree.items()}
    leaf = np.asarray(tree) if isinstance(tree, np.generic) else tree
    if isinstance(leaf, np.ndarray) and _is_number(leaf.dtype):
        if shardings is None:
            return leaf
        return jax.device_put(leaf, _sharding(shardings, path, leaf))
    if isinstance(leaf, (jax.Array, list, *_PLAIN)):
        return leaf
    what = (
        f"{leaf.dtype} array" if isinstance(leaf, np.ndarray) else _errors._type(leaf)
    )
    where = "/".join(map(str, path))
    raise TypeError(f"it holds a {what} at {where!r}, which is no leaf")


def _sharding(shardings: Any, path: _names.Path, leaf: Any) -> Any:
    for part in path:
        if _layout.is_level(shardings):
            shardings = shardings.get(part)
    if not isinstance(shardings, jax.sharding.Sharding):
        raise _no_sharding(path, shardings)
    if jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
        raise _loses_bits(path, leaf.dtype)
    array = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    try:
        jax.eval_shape(lambda x: jax.device_put(x, shardings), array)
    except ValueError as error:
        raise _does_not_split(path, shardings, array.shape) from error
    return shardings


def _is_number(dtype: Any) -> bool:
    """Whether `dtype` is one of JAX's, bool too, in the byte order of the machine."""
    number = any(jnp.issubdtype(dtype, kind) for kind in (np.number, np.bool_))
    return number and np.dtype(dtype).isnative


def _flat(tree: Tree, path: _names.Path = ()) -> Iterator[tuple[_names.Path, Any]]:
    """Every leaf and every empty dict."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*path, name))
        else:
            yield (*path, name), value


def _named(tree: Tree) -> dict[str, Any]:
    flat: Tree = {}
    for (first, *rest), leaf in _flat(tree):
        name = _names.join(_names.escape(first), tuple(rest))
        empty = isinstance(leaf, dict)
        flat[name + "/" * empty] = np.zeros(0, np.uint8) if empty else leaf
    return flat


def _nested(flat: Tree) -> Tree:
    """The inverse of `_named`."""
    tree: Tree = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        level: dict[Any, Any] = tree
        for part in parents:
            level = level.setdefault(_names.unescape(part), {})
            if not isinstance(level, dict):
                raise ValueError(f"{name!r} is below a name that is an array")
        if last or leaf.size:
            key = _names.unescape(last)
            if key in level:
                raise ValueError(f"{name!r} is an array as well as a dict")
            level[key] = leaf
    return tree


def _check_unpacked(count: int, path: pathlib.Path) -> None:
    """Refuses a bomb: weights hardly shrink."""
    if count > max(_BOMB, 100 * _size(path)):
        raise ValueError(
            f"it would unpack to {count} bytes, over 100 times its size; if you trust "
            "it, load it with its own library"
        )


# Disk, and what is shown of it.


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new path beside `path`, which takes its place when the block is through."""
    target = pathlib.Path(os.path.realpath(path))  # through a link, as open() writes
    new = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        new.touch(exist_ok=False)
    except OSError as error:
        error.filename = str(path)  # the caller knows no other
        raise
    mode = (target if target.exists() else new).stat().st_mode
    try:
        new.chmod(0o600)  # what it replaces may be a secret
        yield new
        with new.open("rb+") as file:
            os.fsync(file)  # else a power cut may leave the new name on no bytes
        new.chmod(mode)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _size(path: pathlib.Path) -> int:
    """Bytes at `path` so far; a directory's while Orbax writes it, under its name."""
    if path.is_file():
        return path.stat().st_size
    roots = [path, *path.parent.glob(glob.escape(path.name) + ".orbax*")]
    files = (file for root in roots for file in root.rglob("*"))
    return sum(file.stat().st_size for file in files if file.is_file())


@contextlib.contextmanager
def _progress(
    path: pathlib.Path,
    total: int,
    wanted: bool | None,
    size: Callable[[], int] | None = None,
) -> Iterator[Done]:
    """Shows how much of `total` is done: as the block tells, or `size` as it grows."""
    tqdm = None
    if wanted or (wanted is None and total > _LARGE):
        with contextlib.nullcontext() if wanted else contextlib.suppress(ImportError):
            tqdm = _extra("tqdm")
    if tqdm is None:
        yield lambda count: None
        return
    hide = None if wanted is None else False  # None: unless in a terminal
    options = {"unit": "B", "unit_scale": True, "disable": hide}
    stop = threading.Event()
    with tqdm.tqdm(total=total, desc=path.name, **options) as bar:

        def follow(size: Callable[[], int]) -> None:
            while not stop.wait(0.1):
                with contextlib.suppress(OSError):  # Orbax renames beneath our feet
                    bar.update(min(size(), total) - bar.n)

        thread = threading.Thread(target=follow, args=(size,), daemon=True)
        if size:  # a thread, since the libraries write a file in one call
            thread.start()
        try:
            yield bar.update
            bar.update(total - bar.n)
        finally:
            stop.set()
            if size:
                thread.join()


def _extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"hk_bridge.checkpoint needs {name.partition('.')[0]} for this, which is "
            "not installed. Write pip install 'hk_bridge[checkpoint]'.",
            name=error.name,
        ) from error


# What is refused.


def _where(path: _names.Path) -> str:
    return _errors._path(path[0], path[1:]) if path else "the top"


def _cannot_hold(kind: _Format, path: _names.Path, what: str) -> _errors.VariablesError:
    hint = "" if kind.scalars else ", save to a .msgpack file, which holds more,"
    return _errors.VariablesError(
        f"{kind.name} cannot hold what is at {_where(path)}: {what}. Nothing was "
        "written. Make it an array of a dtype that survives (np.asarray(number), "
        "jax.random.key_data(key), leaf.astype(dtype)), a container a dict with string "
        f"keys{hint} or leave it out."
    )


def _no_numbers(kind: _Format, path: _names.Path) -> _errors.VariablesError:
    others = ", ".join(suffix for suffix, other in _FORMATS.items() if other.numbers)
    return _errors.VariablesError(
        f"{kind.name} cannot hold what is at {_where(path)}: its name is a number, not "
        f"a str. Nothing was written. Save to a file that can: {others}."
    )


def _no_sharding(path: _names.Path, given: Any) -> _errors.VariablesError:
    return _errors.VariablesError(
        f"shardings= has {given!r} for {_where(path)}, where a jax.sharding.Sharding "
        "was expected. Give one for each leaf of the checkpoint, or one for all."
    )


def _does_not_split(
    path: _names.Path, given: jax.sharding.Sharding, shape: tuple[int, ...]
) -> _errors.VariablesError:
    return _errors.VariablesError(
        f"shardings= has {given!r} for {_where(path)}, which cannot split an array of "
        f"shape {shape}. Give one that names no more axes than the array has, "
        "and splits each into equal parts: jax.P(), say, splits none."
    )


def _loses_bits(path: _names.Path, dtype: Any) -> _errors.VariablesError:
    return _errors.VariablesError(
        f"{_where(path)} is a {dtype} array, which JAX would cut to 32 bits. Write "
        'jax.config.update("jax_enable_x64", True), or leave shardings= out.'
    )


def _in_the_way(path: pathlib.Path) -> FileExistsError:
    if path.is_file():
        return FileExistsError(
            f"{_no_format(path)}, and an Orbax directory replaces no file. Give it one "
            f"of {', '.join(_FORMATS)}, or choose a new name."
        )
    hint = ""
    if _is_orbax(path) and path.name:  # "." has none, and cannot be removed
        hint = f", or remove this checkpoint: shutil.rmtree({str(path)!r})"
    return FileExistsError(
        f"{path} exists, and a directory cannot be replaced at once. Choose a new "
        f"name{hint}."
    )


def _unknown_suffix(path: pathlib.Path) -> CheckpointError:
    copy = f"shutil.copy({str(path)!r}, {str(path) + '.msgpack'!r})"
    return CheckpointError(
        f"{_no_format(path)}. Expected {', '.join(_FORMATS)} or a directory. What "
        f"flax.training.checkpoints wrote is msgpack: {copy}. Pickles are never read."
    )


def _no_format(path: pathlib.Path) -> str:
    return f"{path} is a file with the suffix {path.suffix!r}, which tells no format"


def _no_orbax(path: pathlib.Path) -> CheckpointError:
    found = [*path.glob("*/_METADATA"), *path.glob("*/*/_METADATA")]
    inside = ", ".join(sorted(repr(str(file.parent)) for file in found)[:8])
    hint = f"It has some inside. Load one of {inside}." if inside else "It has none."
    return CheckpointError(
        f"{path} is a directory, but no Orbax checkpoint: a file _METADATA was "
        f"expected in it. {hint}"
    )


def _failed(
    path: pathlib.Path, kind: _Format, verb: str, error: Exception
) -> CheckpointError:
    cause = (str(error).strip() or "no more is known").splitlines()[0].rstrip(".")
    hint = "What was there before stands."
    if verb == "read":
        hint = (
            "Get the file again, if it was cut short, or give it the suffix of its "
            f"format ({', '.join(_FORMATS)}; a directory is Orbax's)."
        )
    return CheckpointError(
        f"{path} could not be {verb} as a whole {kind.name} checkpoint. "
        f"{type(error).__name__}: {cause}. {hint}"
    )
