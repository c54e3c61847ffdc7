"""Orbax, a directory, of which each device reads and writes its own shards."""

from collections.abc import Iterator
import contextlib
import logging
import math
import pathlib
from typing import Any

import jax
import numpy as np

from hk_bridge import _layout
from hk_bridge.migrate._extras import extra
from hk_bridge.migrate._flat import every_leaf
from hk_bridge.migrate._format import JAX
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import cannot_hold
from hk_bridge.migrate._format import check_unpacked
from hk_bridge.migrate._format import where_is
from hk_bridge.migrate._shardings import sharding_of

_TENSORSTORE = {"float4_e2m1fn", "float8_e3m4", "float8_e4m3b11fnuz", "int2", "int4"}


def knows(path: pathlib.Path) -> bool:
    return (path / "_METADATA").is_file()


def read(path: pathlib.Path, ask: Ask) -> Any:
    ocp = extra("orbax.checkpoint")
    wanted = ask.collections

    with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        metadata = checkpointer.metadata(path.absolute()).item_metadata
        if metadata is None:  # Orbax logs why, at length
            raise ValueError("its files do not fit together, or one is cut short")
        tree = metadata.tree
        above: _layout.Path = ()  # the collection that the whole tree is
        part = False
        if wanted is not None and isinstance(tree, dict):
            if set(wanted) <= set(tree):
                part = set(wanted) != set(tree)
                tree = {key: tree[key] for key in tree if key in wanted}
                if part and not tree:  # none are wanted, which Orbax cannot restore
                    return {}
            elif len(wanted) == 1:
                above = wanted
        arrays = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
        sizes = (math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in arrays)
        check_unpacked(sum(sizes), path)

        def restore(keys: Any, leaf: Any) -> Any:
            if type(leaf) is not ocp.metadata.ArrayMetadata:  # a scalar, say
                return ocp.RestoreArgs()
            if ask.shardings is None:
                return ocp.RestoreArgs(restore_type=np.ndarray)
            where = (*above, *(str(getattr(key, "key", key)) for key in keys))
            sharding = sharding_of(ask.shardings, where, leaf)
            return ocp.ArrayRestoreArgs(sharding=sharding)

        restore_args = jax.tree_util.tree_map_with_path(restore, tree)
        only: Any = {"item": tree, "partial_restore": True} if part else {}
        args = ocp.args.PyTreeRestore(restore_args=restore_args, **only)
        return checkpointer.restore(path.absolute(), args=args)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what Orbax logs of errors that it raises as well: their tracebacks."""
    logger = logging.getLogger("absl")
    logger.addFilter(_is_no_trace)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_trace)


def _is_no_trace(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname or record.levelno < logging.ERROR


def check(tree: Tree) -> None:
    files: dict[str, _layout.Path] = {}
    for where, leaf in every_leaf(tree):
        # Orbax (0.12.8) writes `{"a.b": x}` and `{"a": {"b/": y}}` to one place.
        file = ".".join(where).removesuffix("/")
        other = files.setdefault(file, where)
        if other != where:
            raise cannot_hold(FORMAT, where, f"what it mixes with {where_is(other)}")
        if not isinstance(leaf, dict) and not leaf.size:
            raise cannot_hold(FORMAT, where, f"an array of shape {leaf.shape}")
    if not tree:
        raise cannot_hold(FORMAT, (), "variables without a collection")


def write(path: pathlib.Path, tree: Tree) -> None:
    ocp = extra("orbax.checkpoint")
    with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(path.absolute(), args=ocp.args.PyTreeSave(tree))


FORMAT = Format(
    name="Orbax",
    suffixes=(),
    dtypes=JAX | _TENSORSTORE | {"complex128"},
    scalars=(),
    forbidden="",
    numbers=False,
    flat=False,
    knows=knows,
    read=read,
    check=check,
    write=write,
)
