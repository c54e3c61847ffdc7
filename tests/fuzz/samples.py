"""Whole checkpoints of every format, to be damaged."""

from collections.abc import Callable
import pathlib
import pickle
from typing import Any
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import joblib
import numpy as np

from hk_bridge import migrate
from hk_bridge.migrate.formats import sharded


class Sample(NamedTuple):
    """A checkpoint.

    Attributes:
      name: of its format, and of what is special.
      path: what is loaded.
      files: those of its files that can be damaged.
      read: what loads it.
      checked: whether its format has a checksum of all bytes that matter.
    """

    name: str
    path: pathlib.Path
    files: tuple[pathlib.Path, ...]
    read: Callable[[pathlib.Path], Any]
    checked: bool = False


def leaves(*dtypes: Any) -> dict[str, Any]:
    numbers = np.arange(24.0).reshape(2, 3, 4)
    return {f"w{i}": numbers.astype(dtype) for i, dtype in enumerate(dtypes)}


VARIABLES: Any = {
    "params": {
        "Dense_0": leaves("f4", "f2"),
        "é": {"b": np.zeros(0, "f4"), "s": np.full([], 2.5), "none": {}},
        "layers": {str(i): {"w": np.full(i, i, "i4")} for i in range(1, 5)},
    },
    "batch_stats": {"BatchNorm_0": leaves("f8", "?")},
}
BARE: Any = {"Dense_0": leaves("f4"), "a": {"b": {"c": leaves("i8")}}}
PARAMS: Any = {"mlp/~/linear_0": leaves("f4", "f4"), "norm": leaves("f8")}
STATE: Any = {"norm/~/ema": leaves("f4", "i4")}


def samples(folder: pathlib.Path) -> list[Sample]:
    return [*_files(folder), *_pickles(folder), *_folders(folder)]


def _files(folder: pathlib.Path) -> list[Sample]:
    made = []

    def add(
        name: str, path: pathlib.Path, read: Any = migrate.load, **how: Any
    ) -> None:
        made.append(Sample(name, path, (path,), read, **how))

    for suffix in (".msgpack", ".safetensors", ".npz"):
        path = folder / f"flax{suffix}"
        migrate.save(path, VARIABLES)
        add(suffix[1:], path, checked=suffix == ".npz")
        path = folder / f"haiku{suffix}"
        migrate.save_haiku(path, PARAMS, STATE)
        add(f"haiku {suffix[1:]}", path, migrate.load_haiku, checked=suffix == ".npz")
    for names in ("alphafold", "weathernext", "plain", "dotted"):
        path = folder / f"{names}.npz"
        migrate.save_haiku(path, PARAMS, names=names)  # type: ignore[arg-type]
        add(names, path, migrate.load_haiku, checked=True)
    path = folder / "compressed.npz"
    np.savez_compressed(path, **{"params/w": np.arange(999.0), "params/b": np.ones(9)})
    add("compressed npz", path, checked=True)
    path = folder / "chunked.msgpack"
    size, flax.serialization.MAX_CHUNK_SIZE = flax.serialization.MAX_CHUNK_SIZE, 32
    migrate.save(path, VARIABLES)
    flax.serialization.MAX_CHUNK_SIZE = size
    add("chunked msgpack", path)
    path = folder / "dots.safetensors"
    migrate.save(path, BARE, separator=".")
    add("dotted safetensors", path)
    return made


def _pickles(folder: pathlib.Path) -> list[Sample]:
    made = []
    jaxs = jax.tree.map(jnp.asarray, jax.tree.map(np.float32, PARAMS))
    for protocol in (0, 2, 4, 5):
        path = folder / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps((jaxs, STATE), protocol))
        made.append(Sample("pickle", path, (path,), migrate.load_haiku))
    for compress in (0, "zlib", "gzip", "bz2", "xz", "lzma"):
        path = folder / f"{compress}.joblib"
        joblib.dump((PARAMS, STATE), path, compress=compress)
        checked = compress in ("zlib", "gzip", "bz2", "xz")
        name = f"joblib {compress}"
        made.append(Sample(name, path, (path,), migrate.load_haiku, checked))
    return made


def _folders(folder: pathlib.Path) -> list[Sample]:
    made = []

    def add(name: str, path: pathlib.Path, read: Any = migrate.load) -> None:
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        checked = name == "orbax"
        made.append(Sample(name, path, tuple(files), read, checked))

    size, sharded.SHARD_SIZE = sharded.SHARD_SIZE, 120
    for name in ("flax_model.msgpack", "model.safetensors"):
        inner = folder / name.partition(".")[2]
        inner.mkdir()
        migrate.save(inner / f"{name}.index.json", BARE)
        add(f"sharded {name}", inner)
    sharded.SHARD_SIZE = size
    tree = {"params": PARAMS, "state": STATE}
    recipe = folder / "recipe"
    recipe.mkdir()
    with (recipe / "arrays.npy").open("wb") as file:
        for leaf in jax.tree.leaves(tree):
            np.save(file, leaf)
    zeros = jax.tree.map(lambda leaf: 0, tree)
    (recipe / "tree.pkl").write_bytes(pickle.dumps(zeros))
    add("recipe", recipe, migrate.load_haiku)
    nest = folder / "nest"
    nest.mkdir()
    with (nest / "array_nest").open("wb") as file:
        np.savez(file, *jax.tree.leaves(tree))
    true = jax.tree.map(lambda leaf: True, tree)
    (nest / "nest_exemplar").write_bytes(pickle.dumps(true))
    add("acme", nest, migrate.load_haiku)
    migrate.save(folder / "orbax", {"params": {"Dense_0": leaves("f4", "f2")}})
    add("orbax", folder / "orbax")
    return made
