"""`load`: Flax variables out of a checkpoint."""

import pathlib
from typing import Any

import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge.migrate._files import Path
from hk_bridge.migrate._files import progress_bar
from hk_bridge.migrate._files import size_of
from hk_bridge.migrate._format import PLAIN
from hk_bridge.migrate._format import CheckpointError
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import is_number
from hk_bridge.migrate._formats import FORMATS
from hk_bridge.migrate._formats import ORBAX
from hk_bridge.migrate._formats import failed
from hk_bridge.migrate._formats import format_of
from hk_bridge.migrate._formats import no_format
from hk_bridge.migrate._shardings import sharding_of


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

    >>> from hk_bridge import migrate
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> migrate.save(f"{folder.name}/net.npz", {"params": {"bias": np.zeros(2)}})
    >>> migrate.load(f"{folder.name}/net.npz")
    {'params': {'bias': array([0., 0.])}}
    >>> folder.cleanup()
    """
    path = pathlib.Path(path)
    kind = format_of(path)
    if not path.is_dir():
        path.open("rb").close()  # what the system says of it comes as it is
        if kind is ORBAX:
            raise _unknown_suffix(path)
    try:
        with progress_bar(path, size_of(path), progress) as done:
            tree = kind.read(path, shardings, done)
            if not _layout.are_variables(tree):
                what = type(tree).__name__
                raise TypeError(f"it holds a {what}, not a dict of collections")
            return {k: _loaded(v, (k,), shardings) for k, v in tree.items()}
    except (CheckpointError, _errors.VariablesError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise failed(path, kind, "read", error) from error


def _loaded(tree: Any, path: _layout.Path, shardings: Any) -> Any:
    """`tree` with its arrays where `shardings` wants them."""
    if _layout.is_level(tree):
        return {k: _loaded(v, (*path, k), shardings) for k, v in tree.items()}
    leaf = np.asarray(tree) if isinstance(tree, np.generic) else tree
    if isinstance(leaf, np.ndarray) and is_number(leaf.dtype):
        if shardings is None:
            return leaf
        return jax.device_put(leaf, sharding_of(shardings, path, leaf))
    if isinstance(leaf, (jax.Array, list, *PLAIN)):
        return leaf
    what = (
        f"{leaf.dtype} array" if isinstance(leaf, np.ndarray) else _errors._type(leaf)
    )
    where = "/".join(map(str, path))
    raise TypeError(f"it holds a {what} at {where!r}, which is no leaf")


def _unknown_suffix(path: pathlib.Path) -> CheckpointError:
    copy = f"shutil.copy({str(path)!r}, {str(path) + '.msgpack'!r})"
    return CheckpointError(
        f"{no_format(path)}. Expected {', '.join(FORMATS)} or a directory. What "
        f"flax.training.checkpoints wrote is msgpack: {copy}. Pickles are never read."
    )
