"""`load`: Flax variables out of a checkpoint."""

from collections.abc import Collection
from typing import Any

from hk_bridge import _layout
from hk_bridge.migrate import _remote
from hk_bridge.migrate._files import Path
from hk_bridge.migrate._flat import nested
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Flat
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._place import reading
from hk_bridge.migrate._put import check_dtype
from hk_bridge.migrate._put import put
from hk_bridge.migrate._table import Table


def load(
    path: Path,
    *,
    collection: str | Collection[str] | None = None,
    step: int | None = None,
    separator: str | None = None,
    table: Table | Path | None = None,
    dtype: Any = None,
    shardings: Any = None,
    progress: bool | None = None,
) -> Tree:
    """The variables in a checkpoint, as `hk_bridge.to_haiku` and `module.apply` take.

    Leaves are NumPy arrays in the byte order of the machine, whatever they were saved
    from, maybe read-only; with `shardings`, JAX arrays. Those of safetensors lie in the
    file, which is not to be overwritten while they are used (`save` never does).
    `to_haiku` hands them on untouched, so a sharded load lands in Haiku's layout as it
    is, and out of an Orbax directory each device reads its shards alone:

        shardings = nn.get_sharding(jax.eval_shape(module.init, key, x), mesh)
        params, state = to_haiku(load(path, shardings=shardings), name="net")

    A tree that others saved comes as it stands. `collection` makes variables of
    parameters alone, and takes collections out of a saved `TrainState`. Of an
    `nnx.State` it leaves out the level `value` that some have below each name. Orbax
    keeps neither its types nor its numbers (`0` is text): these are a model's own,

        state = nnx.state(model)
        nnx.replace_by_pure_dict(state, load(path, collection="params")["params"])
        params, state = to_haiku(state, name="net")

    Args:
      path: a file or a directory; see the module for formats. Of a folder of steps, as
        Orbax's CheckpointManager has them, the newest is taken; of one of Hugging Face
        Flax's weights, else the safetensors. `gs://...` and the like need fsspec.
      collection: the collections that are taken, by name; one that is not there is the
        whole tree: `"params"` for a file that has parameters alone.
      step: which one of a folder of steps.
      separator: what the parts of flat names are joined by, `.` or `/`, if the file
        does not tell. Names that `save` did not write may have `%` and `~` in them,
        which it spells in its own way: then `/` is to be given.
      table: where the leaves of a file with other names go, and how they are turned: a
        `Table` that `diff` proposed, or a file with one.
      dtype: what floating-point leaves are cast to.
      shardings: a `jax.sharding.Sharding`, or a nested dict of them like the variables,
        in which one stands for all that is below it.
      progress: whether to show a bar on stderr (tqdm); by default only in a terminal,
        from 100 MB on, if tqdm is installed.

    Returns:
      `{collection: nested dict}`, new plain dicts.

    Raises:
      FileNotFoundError: nothing is at `path`.
      CheckpointError: what is there is no whole, safe checkpoint of its format.
      VariablesError: `shardings` lacks a leaf or cannot split it, a leaf would lose its
        64 bits, or a collection is not there.
      ModuleNotFoundError: the format's library is not installed.

    >>> from hk_bridge import migrate
    >>> import tempfile
    >>> import numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> migrate.save(f"{folder.name}/net.npz", {"bias": np.zeros(2)})
    >>> migrate.load(f"{folder.name}/net.npz", collection="params")
    {'params': {'bias': array([0., 0.])}}
    >>> folder.cleanup()
    """
    check_dtype(dtype)
    if separator is not None and (not isinstance(separator, str) or not separator):
        raise ValueError(f"separator= is a str like '.', not {separator!r}.")
    if table is not None and not isinstance(table, Table):
        table = Table.load(table)
    ask = Ask(shardings, None if collection is None else names_of(collection))
    with _remote.at_hand(path) as local, reading(local, step) as place:
        tree = place.read(ask, progress)
        if table is not None:
            tree = _by_table(tree, table)
        elif isinstance(tree, Flat):
            tree = nested(tree, separator)
        if not _layout.are_variables(tree):
            what = type(tree).__name__
            raise TypeError(f"it holds a {what}, not a dict of collections")
        if ask.collections is not None:
            tree = _collections(tree, ask.collections)
        return {k: put(v, (k,), shardings, dtype) for k, v in tree.items()}


def _by_table(tree: Any, table: Table) -> Tree:
    if not isinstance(tree, Flat):
        raise TypeError("it has no flat names, for which a table is")
    return table.variables(tree)


def names_of(collection: str | Collection[str]) -> tuple[str, ...]:
    names = (collection,) if isinstance(collection, str) else collection
    if not isinstance(names, Collection) or not _are_names(names):
        raise ValueError(
            f"collection= is a name like 'params', or several, not {collection!r}."
        )
    return tuple(names)


def _are_names(names: Collection[Any]) -> bool:
    return all(isinstance(name, str) for name in names)


def _collections(tree: Tree, wanted: tuple[str, ...]) -> Tree:
    """The collections that are wanted: those on top, or the whole tree as one.

    A tree with one of Flax's own collections on top is no collection itself."""
    if len(wanted) != 1 or wanted[0] in tree or _layout.FLAXS_OWN.intersection(tree):
        return _layout.chosen(tree, wanted)
    return {wanted[0]: _without_value_level(tree)}


def _without_value_level(tree: Tree) -> Tree:
    """A tree without the level `value` that an `nnx.State` has, if it is one: each leaf
    is below that name alone."""
    kept = {key: _value(inner) for key, inner in tree.items()}
    return tree if any(v is _NO_VALUE for v in kept.values()) else kept


class _NoValue:
    """Stands for a leaf that is not below `value`; compared by identity."""


_NO_VALUE: Any = _NoValue()


def _value(tree: Any) -> Any:
    if not _layout.is_level(tree):
        return _NO_VALUE
    if set(tree) == {"value"} and not _layout.is_level(tree["value"]):
        return tree["value"]
    kept = {key: _value(inner) for key, inner in tree.items()}
    return _NO_VALUE if any(v is _NO_VALUE for v in kept.values()) else kept
